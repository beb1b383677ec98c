import numpy as np
import pytest

from calotype.evaluation.rating.judgements import (
    CaptionRating,
    ControlAnswer,
    Judgement,
    StudyResults,
)


@pytest.fixture
def study():
    """Make a study of given answers."""

    def make(judgements=(), **changes):
        facts = {
            "name": "a study", "protocol": "drawbench", "sets": ("a", "b"), "planned": 100,
            "stopping_rule": "100 answers", "sha256": "5a" * 32, "closed": True,
        }  # fmt: skip
        return StudyResults(**{**facts, **changes}, judgements=tuple(judgements))

    return make


@pytest.fixture
def judge():
    """Simulated raters: each answers about each prompt, and two control trials."""

    def answers(raters, prompts, rate, *, failing=(), category=None, ties=0.15, seed=0):
        generator = np.random.default_rng(seed)
        win = rate - ties / 2
        judgements, controls = [], []
        for rater in (f"r{i}" for i in range(raters)):
            controls += [ControlAnswer(rater, f"c{i}", rater not in failing) for i in range(2)]
            for prompt in range(prompts):
                score = generator.choice([1.0, 0.5, 0.0], p=[win, ties, 1 - win - ties])
                score = 0.0 if rater in failing else float(score)
                name = None if category is None else category[prompt % len(category)]
                judgements.append(
                    Judgement(rater, f"t{prompt}", f"p{prompt}", name, "quality", "a", "b", score)
                )
        return judgements, tuple(controls)

    return answers


@pytest.fixture
def rate():
    """Caption ratings by raters of prompts, of a model and its reference."""

    def ratings(raters, prompts, *, model=0.4, real=0.8, seed=0):
        generator = np.random.default_rng(seed)
        return tuple(
            CaptionRating(
                f"r{i}", f"{name}{j}", f"p{j}", None, name,
                float(generator.choice([100, 50, 0], p=[yes, 0.1, 0.9 - yes])),
            )
            for name, yes in (("model", model), ("real", real))
            for i in range(raters)
            for j in range(prompts)
        )  # fmt: skip

    return ratings
