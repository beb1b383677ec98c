"""What raters are asked: the papers' protocols, as tables.

References: Saharia et al. 2022, section 4.4 and appendix (drawbench, realism, caption),
arXiv:2205.11487; Nichol et al. 2022, section 5.2 (elo), arXiv:2112.10741.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, SAME, SECOND = "first", "same", "second"
"""Answers about a pair, in the study's order of its sets and not in the screen's."""

YES, SOMEWHAT, NO = "yes", "somewhat", "no"

PAIR_SCORES = {FIRST: 1.0, SAME: 0.5, SECOND: 0.0}
CAPTION_SCORES = {YES: 100.0, SOMEWHAT: 50.0, NO: 0.0}


@dataclass(frozen=True)
class Choice:
    """A button: its answer where sides are not swapped, and what it says."""

    answer: str
    label: str


@dataclass(frozen=True)
class Question:
    """One page of a trial."""

    name: str
    text: str
    shows_caption: bool
    choices: tuple[Choice, ...]  # key 1 is the first


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a study of one kind is asked.

    Args:
        name: on the command line.
        questions: of each trial, in this order; quality comes before the caption is seen.
        images: that a side shows.
        raters: answers wanted for each trial, where the user does not say.
        is_pair: whether two sides are compared; else one is rated.
        by_category: whether a rater is given one category of prompts.
        control: the question, of `questions`, that a trial with another prompt's caption asks;
            None = there are none.
        ruined: the question that a trial with a ruined copy asks; None = there are none.
        instructions: what raters read before they begin.
    """

    name: str
    questions: tuple[Question, ...]
    images: int
    raters: int
    is_pair: bool
    by_category: bool = False
    control: str | None = None
    ruined: str | None = None
    instructions: str


_SETS = (
    Choice(FIRST, "I prefer set A"),
    Choice(SAME, "I am indifferent"),
    Choice(SECOND, "I prefer set B"),
)
_IMAGES = (Choice(FIRST, "Image A"), Choice(SAME, "Cannot tell"), Choice(SECOND, "Image B"))
_BINARY = (Choice(FIRST, "Image A"), Choice(SECOND, "Image B"))
_DEGREES = (Choice(YES, "Yes"), Choice(SOMEWHAT, "Somewhat"), Choice(NO, "No"))

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="drawbench",
            questions=(
                Question("quality", "Which set of images is of higher quality?", False, _SETS),
                Question(
                    "alignment", "Which set of images better represents the caption?", True, _SETS
                ),
            ),
            images=8,
            raters=25,
            is_pair=True,
            by_category=True,
            control="alignment",
            ruined="quality",
            instructions="You see two sets of images, A and B. First say which set is of higher "
            "quality. Then you see a caption: say which set better represents it.",
        ),
        Protocol(
            name="realism",
            questions=(
                Question(
                    "realism",
                    "Which image is more photorealistic (looks more real)?",
                    False,
                    _BINARY,
                ),
            ),
            images=1,
            raters=5,
            is_pair=True,
            ruined="realism",
            instructions="You see two images, A and B. Say which one looks more real.",
        ),
        Protocol(
            name="caption",
            questions=(
                Question(
                    "caption", "Does the caption accurately describe the image?", True, _DEGREES
                ),
            ),
            images=1,
            raters=5,
            is_pair=False,
            control="caption",
            instructions="You see an image and a caption. Say whether the caption accurately "
            "describes the image.",
        ),
        Protocol(
            name="elo",
            questions=(
                Question("quality", "Which image is of higher quality?", False, _IMAGES),
                Question("alignment", "Which image better matches the caption?", True, _IMAGES),
            ),
            images=1,
            raters=5,
            is_pair=True,
            control="alignment",
            ruined="quality",
            instructions="You see two images, A and B. First say which one is of higher quality. "
            "Then you see a caption: say which image matches it better. If neither is better, say "
            "that you cannot tell.",
        ),
    )
}


def answer_of(question: Question, choice: int, *, is_swapped: bool) -> str:
    """The answer of a button, counted from 0, in the study's order."""
    answer = question.choices[choice].answer
    if is_swapped:
        return {FIRST: SECOND, SECOND: FIRST}.get(answer, answer)
    return answer
