"""The draft: closed forms of its regression and its basis, folds that never see their captions."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calotype.cascade.io import load_stage, save_stage
from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding
from calotype.config.data import DataConfig
from calotype.config.diffusion import DiffusionTraining, DraftTrainingConfig
from calotype.config.lora import LoraConfig
from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
from calotype.config.recipe import Recipe
from calotype.config.stage import StageConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import each_example
from calotype.data.example import Caption, Example
from calotype.data.painting import composite
from calotype.data.source import ListSource
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.networks.draft import Draft
from calotype.tasks.draft import DraftTraining
from calotype.tasks.draft_examples import (
    Basis,
    DraftExamples,
    fit_basis,
    ground_coefficients,
    layers_of,
    project_examples,
)
from calotype.tasks.draft_folds import draft_of, fold_of, new_folds
from calotype.training.signals import Stopped

WIDTH, SIDE, COUNT = 6, 8, 48


def embedding(caption: str) -> Tensor:
    """The made-up text states of a caption: (1, WIDTH)."""
    generator = torch.Generator().manual_seed(fold_of(caption, 1 << 30))
    return torch.randn(1, WIDTH, generator=generator)


def embed(captions: Sequence[str]) -> TextEmbedding:
    tokens = torch.stack([embedding(caption) for caption in captions])
    return TextEmbedding(tokens, torch.ones(len(captions), 1, dtype=torch.bool))


def opaque(colours: np.ndarray) -> np.ndarray:
    return np.concatenate((colours, np.full((SIDE, SIDE, 1), 255)), 2).astype(np.uint8)


def linear_source(count: int = COUNT) -> ListSource:
    """Images whose pixels are a linear function of their caption's states."""
    generator = torch.Generator().manual_seed(3)
    weight = 12 * torch.randn(WIDTH, 3 * SIDE * SIDE, generator=generator)
    examples = []
    for number in range(count):
        name = f"caption {number}"
        pixels = (128 + embedding(name) @ weight).clamp(0, 255).reshape(SIDE, SIDE, 3)
        examples.append(Example(name, opaque(pixels.round().numpy()), (Caption(name),)))
    return ListSource(examples, fingerprint=f"linear {count}")


def config(*, rank: int = WIDTH, spread: bool = False, **changes: object) -> DiffusionTraining:
    network = UNetConfig(
        levels=(LevelConfig(channels=8, blocks=1),),
        text_dim=WIDTH,
        head_dim=8,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=64, rank=rank, resolution=SIDE, spread=spread),
    )
    settings = {"images": 64_000, "batch_size": 64, "text_noise": 0.0, "text_dropout": 0.0}
    return DiffusionTraining(
        stage=StageConfig(resolution=SIDE, network=network),
        text_encoder="bytes:6",
        data=DataConfig(),
        draft=DraftTrainingConfig(**{**settings, **changes}),  # type: ignore[arg-type]
    )


def training(
    folder: Path,
    train: DiffusionTraining,
    *,
    source: ListSource | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> DraftTraining:
    torch.manual_seed(0)
    chosen = linear_source() if source is None else source
    return DraftTraining(
        Stage(train.stage), chosen, embed, config=train, folder=folder, progress=progress
    )


def test_images_that_are_linear_in_the_text_give_the_least_squares_solution(tmp_path: Path) -> None:
    made = training(tmp_path, config())
    made.train_main()
    draft = draft_of(made.stage)
    assert draft is not None
    source = linear_source()
    texts = torch.cat([embedding(example.key) for example in source.examples])
    images = torch.stack([torch.from_numpy(e.image) for e in source.examples])
    images = layers_of(images)[:, : 3 * SIDE * SIDE]  # opaque: nothing shows through
    solution = torch.linalg.lstsq(torch.cat((texts, torch.ones(COUNT, 1)), 1), images).solution
    expected = torch.cat((texts, torch.ones(COUNT, 1)), 1) @ solution
    found = draft(texts).flatten(1).detach()
    spread = images.var(0).mean()
    assert (found - expected).square().mean() < 2e-3 * spread
    assert (found - images).square().mean() < 5e-3 * spread  # clipping and rounding stay


def test_basis_is_orthonormal_and_spans_what_the_images_vary_in() -> None:
    pixels = torch.stack([torch.from_numpy(e.image) for e in linear_source().examples])
    found = fit_basis(pixels, rank=WIDTH, seed=0)
    rows = found.components
    torch.testing.assert_close(rows @ rows.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    x = layers_of(pixels) - found.mean
    exact = torch.linalg.svd(x, full_matrices=False).S[WIDTH:].square().sum()
    left = (x - x @ rows.T @ rows).square().sum()
    assert left < 1.01 * exact + 1e-4


def test_parts_make_the_composite_on_any_ground() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, SIDE, SIDE, 4)).astype(np.uint8)
    colours = generator.integers(0, 256, (5, 3)).astype(np.float32)
    painted = torch.from_numpy(composite(pixels, colours)).permute(0, 3, 1, 2)
    numbers = 4 * SIDE * SIDE
    draft = Draft(DraftConfig(width=4, rank=numbers, resolution=SIDE), WIDTH)
    draft.set_basis(torch.eye(numbers), mean := torch.randn(numbers))  # exact in 8 bits
    image = layers_of(torch.from_numpy(pixels)) - mean
    ground = ground_coefficients(torch.from_numpy(colours), side=SIDE)
    found = draft.image(torch.cat((image, ground), 1))
    torch.testing.assert_close(found, painted, atol=1e-5, rtol=1e-5)


def test_a_row_is_trained_on_the_ground_its_caption_asks_for(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8)
    red = Caption("on red", (200, 10, 30))
    source = ListSource(
        [Example("both", image, (Caption("plain"), red)), Example("one", image, (red,))]
    )
    numbers = 4 * SIDE * SIDE
    basis = Basis(torch.eye(numbers), torch.zeros(numbers))
    plan = BatchPlan(
        resolution=SIDE, lowres_resolution=None, config=DataConfig(), batch_size=2, seed=0
    )

    def pool(captions: Sequence[str]) -> Tensor:
        return torch.arange(len(captions)).float()[:, None]  # tells captions apart

    found = project_examples(
        each_example(source, plan), basis, variants=2, fold=lambda _: 0, pool=pool
    )
    settings = DraftTrainingConfig(
        batch_size=64, plain_fraction=0.0, text_noise=0.0, text_dropout=0.0
    )
    text, target = found.batch(settings, torch.arange(2), torch.Generator().manual_seed(0))
    draft = Draft(DraftConfig(width=4, rank=numbers, resolution=SIDE), WIDTH)
    draft.set_basis(torch.eye(numbers), torch.zeros(numbers))
    painted = {}
    for number, colour in ((1, (255, 255, 255)), (2, red.background)):
        on_colour = composite(image[None], np.array([colour], np.float32))
        painted[number] = torch.from_numpy(on_colour).permute(0, 3, 1, 2)[0]
    numbers_seen = text[:, 0].int().tolist()
    assert set(numbers_seen) == {1, 2}
    for number, x in zip(numbers_seen, draft.image(target), strict=True):
        torch.testing.assert_close(x, painted[number], atol=1e-5, rtol=1e-5)


def test_the_basis_stays_in_eight_bits_in_files(tmp_path: Path) -> None:
    made = training(tmp_path / "draft", config(images=640))
    made.train_main()
    save_stage(made.stage, tmp_path / "stage", dtype=torch.float16)
    saved = load_file(tmp_path / "stage" / "weights.safetensors")
    kinds = {name: saved[f"network.draft.{name}"].dtype for name in ("basis", "scale", "mean")}
    assert kinds == {"basis": torch.int8, "scale": torch.float32, "mean": torch.float32}
    again, own = draft_of(load_stage(tmp_path / "stage")), draft_of(made.stage)
    assert again is not None and own is not None
    assert torch.equal(again.components(), own.components())
    saved["network.draft.basis"] = saved["network.draft.basis"].float()
    save_file(saved, tmp_path / "stage" / "weights.safetensors")
    with pytest.raises(CalotypeError, match=r"as 'F32'; expected one of \['I8'\]"):
        load_stage(tmp_path / "stage")


def test_eight_bits_of_a_basis_are_enough() -> None:
    components = torch.linalg.qr(torch.randn(4 * SIDE * SIDE, 20)).Q.T
    draft = Draft(DraftConfig(width=4, rank=20, resolution=SIDE), WIDTH)
    draft.set_basis(components, torch.zeros(4 * SIDE * SIDE))
    assert (draft.components() - components).square().sum(1).max() < 1e-4  # of rows of length 1


def test_a_basis_is_made_numbers_of_once_and_again_when_it_changes() -> None:
    draft = Draft(DraftConfig(width=4, rank=3, resolution=SIDE), WIDTH)
    first = torch.linalg.qr(torch.randn(4 * SIDE * SIDE, 3)).Q.T
    draft.set_basis(first, torch.zeros(4 * SIDE * SIDE))
    numbers = draft.components()
    assert torch.equal(numbers, draft.basis * draft.scale[:, None])
    assert draft.components() is numbers
    copied = copy.deepcopy(draft)
    assert copied._kept is None and torch.equal(copied.components(), numbers)
    draft.set_basis(-first, torch.zeros(4 * SIDE * SIDE))
    assert torch.equal(draft.components(), -numbers)
    draft.load_state_dict(copied.state_dict())
    assert torch.equal(draft.components(), numbers)
    assert draft.double().components().dtype == torch.float64


def test_a_fold_never_sees_its_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = linear_source(), dict[int, set[int]]()
    names = [example.key for example in source.examples]
    drawn = DraftExamples.batch

    def watch(self, settings, rows, generator):  # type: ignore[no-untyped-def]
        seen.setdefault(len(seen) if rows is not watch.last else len(seen) - 1, set())
        watch.last = rows
        seen[len(seen) - 1] |= set(rows.tolist())
        return drawn(self, settings, rows, generator)

    watch.last = None  # type: ignore[attr-defined]
    monkeypatch.setattr(DraftExamples, "batch", watch)
    train = config(images=640, folds=3, fold_images=640)
    made = training(tmp_path, train, source=source)
    made.train_main()
    made.train_folds(new_folds(made.stage, train))
    assert seen[0] == set(range(COUNT))
    for fold in range(3):
        left_out = {row for row, name in enumerate(names) if fold_of(name, 3) == fold}
        assert left_out and seen[1 + fold] == set(range(COUNT)) - left_out


def test_folds_are_chosen_row_by_row(tmp_path: Path) -> None:
    train = config(images=640, folds=2, fold_images=640)
    made = training(tmp_path, train)
    made.train_main()
    folds = new_folds(made.stage, train)
    made.train_folds(folds)
    text = embed(["a", "b", "c"])
    mixed = folds(text, torch.tensor([-1, 0, 1]))
    for row, fold in enumerate((-1, 0, 1)):
        alone = folds(text, torch.full((3,), fold))
        torch.testing.assert_close(mixed[row], alone[row])
    own = draft_of(made.stage)
    assert own is not None
    pooled = made.stage.network.condition.text.pooling(text)  # type: ignore[union-attr]
    torch.testing.assert_close(mixed[0], own(pooled)[0])


@pytest.mark.parametrize("folds", [0, 3])
def test_the_spread_is_that_of_images_whose_captions_the_draft_never_saw(
    tmp_path: Path, folds: int
) -> None:
    train = config(images=6400, folds=folds, fold_images=6400, spread=True)
    made = training(tmp_path, train)
    made.train_main()
    own = draft_of(made.stage)
    assert own is not None and own.spread is not None and not bool(own.spread.any())
    drafts = new_folds(made.stage, train) if folds else None
    if drafts is not None:
        made.train_folds(drafts)
    made.measure_spread(drafts)
    squares = torch.zeros(WIDTH)
    for example in linear_source().examples:
        layers = layers_of(torch.from_numpy(example.image)[None])
        target = (layers - own.mean) @ own.components().T
        regression = own.regression
        if drafts is not None:
            regression = drafts.regressions[fold_of(example.key, folds)]  # type: ignore[assignment]
        found = regression(embedding(example.key))[:, :WIDTH]
        squares += (target - found)[0].detach().square() / COUNT
    torch.testing.assert_close(own.spread, squares)
    if drafts is not None:
        assert drafts.draft.spread is not None and torch.equal(drafts.draft.spread, own.spread)


def with_a_spread() -> Draft:
    """A draft in float64 whose images vary in 6 directions."""
    draft = Draft(DraftConfig(width=8, rank=6, resolution=SIDE, spread=True), WIDTH).double()
    draft.set_basis(torch.linalg.qr(torch.randn(4 * SIDE**2, 6)).Q.T, torch.rand(4 * SIDE**2) * 0.5)
    assert draft.spread is not None
    draft.spread.copy_(torch.tensor([9.0, 5.0, 3.0, 1.0, 0.5, 0.1]))
    return draft


def test_known_pixels_make_the_draft_the_mean_of_a_gaussian_given_them() -> None:
    """By the textbook: C_hk (C_kk + noise)^-1 (known - draft), with the covariance of pixels."""
    torch.manual_seed(0)
    draft, coefficients = with_a_spread(), torch.randn(2, 9).double()
    coefficients[:, 6:] *= SIDE
    image, mask = torch.rand(2, 3, SIDE, SIDE).double(), torch.rand(2, 1, SIDE, SIDE) > 0.6
    found = draft.image(coefficients, torch.cat((image * mask, mask), 1))
    layers = (draft.mean + coefficients[:, :6] @ draft.components()).view(2, 4, SIDE, SIDE)
    modes = draft.components().view(6, 4, -1)[:, :3].flatten(1)
    covariance = modes.T @ torch.diag(cast(Tensor, draft.spread)) @ modes
    for row in range(2):
        clear, chosen = layers[row, 3].clamp(0, 1), mask[row, 0]
        ground = coefficients[row, 6:, None, None] / SIDE
        residual = (image[row] - layers[row, :3] - clear * ground)[:, chosen]  # (3, K)
        ground = ground + ridge(residual, clear[chosen])[:, None, None]
        plain, where = layers[row, :3] + clear * ground, chosen.expand(3, -1, -1).flatten()
        distance = (image[row] - 1 - ground).square().mean(0, keepdim=True)
        noise = 0.35**2 * (1 + 5 * torch.exp(-distance / 0.02)).expand(3, -1, -1).flatten()[where]
        gain = torch.linalg.inv(covariance[where][:, where] + torch.diag(noise))
        change = covariance[:, where] @ gain @ (image[row] - plain).flatten()[where]
        expected = torch.where(chosen, image[row], plain + change.view(3, SIDE, SIDE))
        torch.testing.assert_close(found[row], expected, atol=1e-8, rtol=1e-8)


def ridge(residual: Tensor, clear: Tensor) -> Tensor:
    """The colour, (3,), that a ground needs more, seen through a transparency of (K,)."""
    rows = torch.cat((clear, torch.ones(1)))[:, None]  # and a colour of 0, seen once
    return torch.linalg.lstsq(rows, torch.cat((residual, torch.zeros(3, 1)), 1).T).solution[0]


def test_rows_of_which_nothing_is_known_keep_their_draft() -> None:
    torch.manual_seed(0)
    draft, coefficients = with_a_spread(), torch.randn(3, 9).double()
    image = torch.rand(3, 3, SIDE, SIDE).double()
    mask = torch.zeros(3, 1, SIDE, SIDE).double()
    mask[1, :, :, :3], mask[2] = 1, 1
    found = draft.image(coefficients, torch.cat((image * mask, mask), 1))
    plain = draft.image(coefficients)
    assert torch.equal(found[0], plain[0])
    assert not torch.allclose(found[1, :, :, 3:], plain[1, :, :, 3:], atol=1e-3)
    torch.testing.assert_close(found[2], image[2])


def test_is_a_function_of_the_seed_and_resumes_to_the_bit(tmp_path: Path) -> None:
    train = config(images=6400, folds=2, fold_images=6400, spread=True)

    def trained(folder: Path, progress: Callable[[str, int, int], None]) -> dict[str, Tensor]:
        made = training(folder, train, progress=progress)
        made.train_main()
        folds = new_folds(made.stage, train)
        made.train_folds(folds)
        made.measure_spread(folds)
        return {**made.stage.state_dict(), **folds.state_dict()}

    whole = trained(tmp_path / "whole", lambda *_: None)
    for name in ("main", "fold-1"):

        def stop(what: str, done: int, total: int, name: str = name) -> None:
            if what == name and done > total // 2:
                raise Stopped

        with pytest.raises(Stopped):
            trained(tmp_path / "cut", stop)
    again = trained(tmp_path / "cut", lambda *_: None)
    for key, tensor in whole.items():
        assert torch.equal(tensor, again[key]), key


def test_moves_nothing_but_the_draft(tmp_path: Path) -> None:
    made = training(tmp_path, config(images=640))
    before = {k: v.clone() for k, v in made.stage.state_dict().items()}
    made.train_main()
    changed = {k for k, v in made.stage.state_dict().items() if not torch.equal(before[k], v)}
    assert changed and all(name.startswith("network.draft.") for name in changed)


def test_other_data_are_refused(tmp_path: Path) -> None:
    training(tmp_path, config(images=640)).train_main()
    with pytest.raises(CalotypeError, match="of other data, settings or seed; expected those"):
        training(tmp_path, config(images=640), source=linear_source(40)).train_main()
    with pytest.raises(CalotypeError, match="of other data, settings or seed"):
        training(tmp_path, config(images=1280)).train_main()
    (tmp_path / "main.safetensors").write_bytes(b"nothing")
    with pytest.raises(CalotypeError, match=r"cannot read .*main.safetensors"):
        training(tmp_path, config(images=640)).train_main()


def test_a_folder_without_the_draft_it_began_with_is_told(tmp_path: Path) -> None:
    with pytest.raises(CalotypeError, match="no longer holds the draft"):
        training(tmp_path, config()).load_main()


def clear_and_opaque() -> np.ndarray:
    """An image whose grounds differ, though the image does not."""
    image = opaque(np.full((SIDE, SIDE, 3), 7.0))
    image[:4, :, 3] = 0
    return image


def examples(images: Sequence[np.ndarray], captions: tuple[Caption, ...]) -> ListSource:
    return ListSource([Example(str(n), image, captions) for n, image in enumerate(images)])


@pytest.mark.parametrize(
    ("source", "rank", "message"),
    [
        (linear_source(1), 6, "got 1 images for a draft of rank 6; expected at least 6 images"),
        (linear_source(20), 64, "got 20 images for a draft of rank 64; expected at least 64"),
        (
            examples([opaque(np.full((SIDE, SIDE, 3), 7.0))] * 9, (Caption("x"),)),
            6,
            "got 9 images that are all alike; expected different images",
        ),
        (
            examples([clear_and_opaque()] * 9, (Caption("x"),)),
            6,
            "got 9 images that are all alike; expected different images",
        ),
        (
            examples([e.image for e in linear_source(20).examples], ()),
            6,
            "got no captions to make drafts of; expected captions, or no draft",
        ),
    ],
)
def test_data_that_make_no_draft(
    tmp_path: Path, source: ListSource, rank: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        training(tmp_path, config(rank=rank), source=source).train_main()


def test_a_basis_of_another_resolution_is_refused() -> None:
    network = config().stage.network
    with pytest.raises(
        ConfigError, match=r"got draft=.*resolution=8.* in a stage of 16 pixels; expected"
    ):
        StageConfig(resolution=16, network=network)


def test_a_rank_above_the_numbers_of_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="got rank=257 for a draft of 8 pixels; expected 1 to"):
        DraftConfig(rank=4 * SIDE * SIDE + 1, resolution=SIDE)


@pytest.mark.parametrize("change", [{"folds": 1}, {"fold_fraction": 1.5}, {"text_dropout": -0.1}])
def test_settings_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        DraftTrainingConfig(**change)  # type: ignore[arg-type]


FAST = DraftTrainingConfig(images=64, batch_size=8, folds=2, fold_images=64)


def same_files(one: Path, other: Path) -> None:
    for path in one.rglob("*.safetensors"):
        assert (other / path.relative_to(one)).read_bytes() == path.read_bytes(), path


@pytest.mark.slow
def test_a_run_with_folds_resumes_to_the_bit(  # type: ignore[no-untyped-def]
    train, micro_recipe, tmp_path, monkeypatch
):
    recipe = micro_recipe(
        with_draft=True, draft=FAST, total_images=20, grid_images=0, validation_images=0
    )
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(recipe, whole) == 0

    def step(*arguments, **options):  # type: ignore[no-untyped-def]
        if arguments[0].images_seen == 12:
            raise KeyboardInterrupt
        return train_step(*arguments, **options)

    from calotype.training import trainer

    train_step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(recipe), out)
    monkeypatch.setattr(trainer, "train_step", train_step)
    assert train(recipe, out, resume=True) == 0
    same_files(whole / "checkpoints" / "20", out / "checkpoints" / "20")


def test_a_run_with_folds_goes_on_with_other_data_only_if_asked(  # type: ignore[no-untyped-def]
    train, micro_recipe, images, tmp_path
):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    recipe = micro_recipe(
        with_draft=True, draft=FAST, total_images=8, grid_images=0, validation_images=0
    )
    assert train(recipe, out, data=data) == 0
    trained = {path.name: path.read_bytes() for path in (out / "draft").iterdir()}
    (data / "red-left.png").unlink()
    options = {"data": data, "images": 16, "resume": True}
    with pytest.raises(CalotypeError, match=r"has changed since.*add --allow-inexact-resume"):
        train(recipe, out, **options)
    assert train(recipe, out, **options, allow_inexact_resume=True) == 0
    # Draft and folds are those that the run began with, and not of the new data.
    assert {path.name: path.read_bytes() for path in (out / "draft").iterdir()} == trained


def test_weights_with_a_basis_of_another_resolution_are_refused(  # type: ignore[no-untyped-def]
    train, micro_recipe, tmp_path
):
    recipe = micro_recipe(with_draft=True, draft=FAST, total_images=8, validation_images=0)
    assert train(recipe, tmp_path / "one") == 0
    saved = tmp_path / "one/checkpoints/latest/cascade/8/weights.safetensors"
    weights = load_file(saved)
    weights["network.draft.basis"] = torch.zeros(len(weights["network.draft.basis"]), 4 * 4 * 4)
    save_file(weights, tmp_path / "other.safetensors")
    message = r"got network.draft.basis of shape \(\d+, 64\); expected \(\d+, 256\)"
    with pytest.raises(CalotypeError, match=message):
        train(recipe, tmp_path / "two", init=tmp_path / "other.safetensors")


def test_only_the_draft_is_trained_anew(train, micro_recipe, tmp_path):  # type: ignore[no-untyped-def]
    """A swapped draft changes nothing but the draft's own tensors."""
    recipe = micro_recipe(with_draft=True, draft=FAST, total_images=8, validation_images=0)
    assert train(recipe, tmp_path / "one") == 0
    longer = micro_recipe(
        with_draft=True, draft=dataclasses.replace(FAST, images=128), validation_images=0
    )
    # Of another rank and width: what the rest sees is an image.
    network = dataclasses.replace(
        longer.stages[0].stage.network, draft=DraftConfig(width=24, rank=5, resolution=8)
    )
    stage = dataclasses.replace(longer.stages[0].stage, network=network)
    longer = dataclasses.replace(
        longer, stages=(dataclasses.replace(longer.stages[0], stage=stage),)
    )
    settings = {"init": tmp_path / "one", "only_draft": True}
    assert train(longer, tmp_path / "two", **settings) == 0
    place = "checkpoints/latest/cascade/8/weights.safetensors"
    before, after = load_file(tmp_path / "one" / place), load_file(tmp_path / "two" / place)
    assert after["network.draft.basis"].shape == (5, 4 * 8 * 8)
    for name, value in before.items():
        if not name.startswith("network.draft."):
            assert torch.equal(value, after[name]), name
    # Diffusion can follow, on the new draft.
    assert train(longer, tmp_path / "two", resume=True, images=4) == 0


def test_a_trained_draft_is_not_trained_again_in_its_place(train, micro_recipe, tmp_path):  # type: ignore[no-untyped-def]
    recipe = micro_recipe(with_draft=True, draft=FAST, validation_images=0)
    assert train(recipe, tmp_path / "run", only_draft=True) == 0
    with pytest.raises(UsageError, match="whose draft is trained; expected another --out"):
        train(recipe, tmp_path / "run", only_draft=True, resume=True)
    with pytest.raises(UsageError, match="is not empty; add --resume"):
        train(recipe, tmp_path / "run", only_draft=True)


def test_a_draft_in_training_is_not_overwritten_by_that_of_init(tmp_path: Path) -> None:
    training(tmp_path, config(images=640)).train_main()
    with pytest.raises(CalotypeError, match="draft in training; continue with --only draft"):
        training(tmp_path, config(images=640)).keep_main()


def test_drafts_that_would_not_fit_the_rest_are_refused(micro, train, tmp_path):  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="got draft for a network without one"):
        micro(draft=FAST)
    with pytest.raises(ConfigError, match=r"got data.crop or data.flip with a draft"):
        micro(with_draft=True, draft=FAST, data=DataConfig(flip=True))
    empty = Recipe(name="empty", stages=(micro(with_draft=True),))
    with pytest.raises(UsageError, match="draft=null, which leaves the draft empty"):
        train(empty, tmp_path / "run")
    lora = Recipe(name="lora", stages=(micro(with_draft=True, draft=FAST, lora=LoraConfig()),))
    with pytest.raises(UsageError, match="got --only draft with lora"):
        train(lora, tmp_path / "run", only_draft=True, init=tmp_path)


def test_only_the_draft_needs_a_recipe_that_has_one(train, micro_recipe, tmp_path):  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="got --only draft for micro, whose first stage trains no"):
        train(micro_recipe(), tmp_path / "run", only_draft=True)


def test_adapters_of_linear_layers_reach_the_draft() -> None:
    from calotype.networks import build_network
    from calotype.networks.lora import targeted_layers, train_adapters

    network = build_network(config().stage.network)
    lora = LoraConfig(rank=2, targets=("linear",))
    names = {name for name in targeted_layers(network, lora) if name.startswith("draft.")}
    assert names == {
        f"draft.regression.{part}" for part in ("gate", "hidden", "features", "mixture", "heads")
    }
    train_adapters(network, lora)
    text = embed(["a", "b"])
    network.make_draft(text).square().sum().backward()  # type: ignore[operator]
    moved = {n for n, p in network.named_parameters() if p.grad is not None}
    assert moved == {f"{name}.adapters.0.{part}" for name in names for part in ("down", "up")}


def test_rows_see_their_folds_in_training(micro) -> None:  # type: ignore[no-untyped-def]
    from calotype.tasks.random_numbers import step_numbers

    settings = micro(with_draft=True, draft=dataclasses.replace(FAST, fold_fraction=0.5))
    plain = micro(with_draft=True, draft=dataclasses.replace(FAST, folds=0))
    shape = torch.Size((64, 3, 8, 8))
    schedule = Stage(settings.stage).schedule
    with_folds = step_numbers(settings, schedule, 0, shape=shape)
    without = step_numbers(plain, schedule, 0, shape=shape)
    assert with_folds.folded is not None and without.folded is None
    assert 16 < int(with_folds.folded.sum()) < 48
    assert torch.equal(with_folds.eps, without.eps)
    assert torch.equal(with_folds.logsnr, without.logsnr)
