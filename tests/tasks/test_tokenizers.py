"""Token ids on their way from stored captions to the text tower, and the tokenizer with its run."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer

from calotype.cascade import Cascade
from calotype.config.adm import AdmConfig, AdmLevel, TokensText
from calotype.config.clip import ClipConfig, ClipTraining, ImageTowerConfig, TextTowerConfig
from calotype.config.data import DataConfig
from calotype.config.diffusion import LowresEstimatesConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.sampling import SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import to_dict
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.data.shard import shard_data
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.networks import build_network
from calotype.tasks.assemble import assemble
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.tokenizers import build_tokenizer, tokenizer_of
from calotype.text.tokenizer_folder import tokenizer_sha256
from calotype.text.train_byte_pair import train_tokenizer
from calotype.training import progress
from calotype.vision.clip import load_clip

CONTEXT, VOCABULARY = 8, 280
CAPTIONS = {  # of images, by name; `one`: the formats that have but one each get the first
    "a": ["A red owl", "ein roter Käuz", "an owl that is red and looks at you for a long time"],
    "b": ["赤い 梟"],
    "c": ["Red CATS  and dogs"],
    "d": ["it's 2024, don't look", "🦉 and ½ 🐈"],
    "e": [],
}
EVERY = [text for texts in CAPTIONS.values() for text in texts]
STAGE = StageConfig(
    resolution=8,
    network=AdmConfig(
        levels=(AdmLevel(channels=8, blocks=1), AdmLevel(channels=8, blocks=1)),
        text_dim=1,
        text=TokensText(width=16, layers=2, heads=2, context=CONTEXT, vocabulary=VOCABULARY),
        head_dim=8,
        norm_groups=4,
    ),
    schedule=DiscreteScheduleConfig(steps=50),
    sampling=SamplingConfig(steps=2, threshold_percentile=None),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "tokenizer"
    train_tokenizer([*EVERY, "red left", "blue right"], folder, vocabulary=VOCABULARY)
    return folder


@pytest.fixture
def here(tokenizer, tmp_path, monkeypatch):
    """A working directory with the tokenizer that recipes name."""
    shutil.copytree(tokenizer, tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(micro):
    def make(**changes):
        # Four steps: the layers that begin at zero let no gradient through to the text at first.
        settings = {"batch_size": 2, "total_images": 8, "checkpoint_images": 4, **changes}
        return Recipe(
            name="words",
            stages=(micro(stage=STAGE, text_encoder="glide:tokenizer", grid_images=0, **settings),),
        )

    return make


def png(number):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (20 * number, 90, 200)).save(stream, "PNG")
    return stream.getvalue()


def store_texts(folder):
    for number, (name, texts) in enumerate(CAPTIONS.items()):
        (folder / f"{name}.png").write_bytes(png(number))
        if texts:
            (folder / f"{name}.txt").write_text(texts[0], encoding="utf-8")


def store_csv(folder):
    lines = ["file_name,text"]
    for number, (name, texts) in enumerate(CAPTIONS.items()):
        (folder / f"{name}.png").write_bytes(png(number))
        lines.append(f'{name}.png,"{texts[0] if texts else ""}"')
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")


def store_json(folder):
    rows = []
    for number, (name, texts) in enumerate(CAPTIONS.items()):
        (folder / f"{name}.png").write_bytes(png(number))
        rows.append(json.dumps({"file_name": f"{name}.png", "text": texts}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


def store_parquet(folder):
    pictures = [png(number) for number in range(len(CAPTIONS))]
    columns = {"image": pictures, "text": list(CAPTIONS.values()), "key": list(CAPTIONS)}
    pq.write_table(pa.table(columns), folder / "0.parquet")


def store_tar(folder):
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, (name, texts) in enumerate(CAPTIONS.items()):
            note = json.dumps({"caption": texts}).encode()
            for member, data in ((f"{name}.json", note), (f"{name}.png", png(number))):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def store_shards(folder):
    plain = folder.with_name(f"{folder.name}-plain")
    plain.mkdir()
    store_json(plain)
    shard_data(plain, folder, rows=3)


def expected_ids(tokenizer, caption):
    """As the package's own class for such files gives them; of captions that are too long, the
    first. None = padding."""
    files = (str(tokenizer / name) for name in ("encoder.json", "vocab.bpe"))
    ids = ByteLevelBPETokenizer(*files, lowercase=True).encode(caption).ids[:CONTEXT]
    return [*ids, *[None] * (CONTEXT - len(ids))]


def seen_by(tower):
    """What a text tower is called with from now on: ids of `CONTEXT` places, None = padding."""
    rows = []

    def note(module, inputs):
        text = inputs[0].padded(CONTEXT)
        for ids, mask in zip(text.ids[:, :CONTEXT], text.mask[:, :CONTEXT], strict=True):
            rows.append([n if real else None for n, real in zip(ids.tolist(), mask, strict=True)])

    tower.register_forward_pre_hook(note)
    return rows


@pytest.mark.parametrize(
    ("store", "settings", "ahead"),
    [
        (store_texts, {}, 0),
        (store_csv, {"cache_bytes": 0}, 3),
        (store_json, {}, 3),
        (store_json, {"cache_bytes": 0}, 0),
        (store_parquet, {}, 3),
        (store_tar, {}, 3),
        (store_shards, {"cache_bytes": 0}, 3),
    ],
)
def test_ids_at_the_text_tower_are_the_tokenizers(
    store, settings, ahead, tokenizer, tmp_path, micro
):
    """However captions are stored and images read: the same numbers, several captions an image."""
    store(tmp_path)
    config = micro(
        stage=STAGE, data=DataConfig(**settings), text_dropout=0.3, grid_captions=(), batch_size=8
    )
    text = build_tokenizer(f"glide:{tokenizer}", STAGE.token_tower)
    task = DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32), text)
    rows, captions = seen_by(task.model.network.text), []
    source = open_source(tmp_path, resolution=8, data=config.data)
    with closing(batches(source, task.batch_plan(), prefetch=ahead)) as made:
        for batch in islice(made, 8):
            numbers = task.random_numbers(batch, batch.position)
            task.losses(task.inputs(batch, numbers)).sum().backward()
            kept = zip(batch.captions, numbers.keep.tolist(), strict=True)
            captions += [caption if keep else "" for caption, keep in kept]
    assert rows == [expected_ids(tokenizer, caption) for caption in captions]
    several = store not in (store_texts, store_csv)
    assert {*captions} == {"", *(EVERY if several else [t[0] for t in CAPTIONS.values() if t])}
    assert rows.count([None] * CONTEXT) == captions.count("") > 8  # those without a caption, too


def test_the_empty_caption_is_all_padding_as_glide_has_it(tokenizer):
    """GLIDE fills up with the end mark, under a mask; what stands there decides nothing."""
    torch.manual_seed(0)
    tower = build_network(STAGE.network).text
    text = build_tokenizer(f"glide:{tokenizer}", STAGE.token_tower)(["a red owl", ""])
    padded = text.padded(CONTEXT)
    published = dataclasses.replace(
        padded, ids=torch.where(padded.mask, padded.ids, VOCABULARY - 1)
    )
    ours, theirs = tower(text), tower(published)
    assert torch.equal(ours.states, theirs.states) and torch.equal(ours.pooled, theirs.pooled)
    x = tower.norm(tower.layers(tower.padding[None]))
    torch.testing.assert_close(ours.states[1:], x)


def weights_of(run, name="weights"):
    return load_file(run / f"checkpoints/latest/{name}.safetensors")


def test_a_run_trains_the_tower_and_resumes_to_the_bit_elsewhere(
    here, recipe, train, images, monkeypatch
):
    """Killed after its first checkpoint, moved, and the tokenizer it was begun with is gone."""
    assert train(recipe(text_dropout=0.3), here / "whole") == 0
    before = dict(new_stage(recipe().stages[0], device="cpu", dtype=torch.float32).state_dict())
    whole, average = weights_of(here / "whole"), weights_of(here / "whole", "ema")
    for name in ("tokens.weight", "positions", "padding", "norm.weight", "to_embedding.weight"):
        name = f"network.text.{name}"
        assert not torch.equal(whole[name], before[name]), name
        assert not torch.equal(average[name], whole[name]), name

    def die(self, now, meter):
        if now == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.TrainingDisplay, "show", die)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(text_dropout=0.3), here / "run")
    monkeypatch.undo()
    shutil.copytree(here / "run", here / "else/where", symlinks=True)
    shutil.rmtree(here / "run")
    monkeypatch.chdir(here / "else")  # where there is no tokenizer
    assert train(recipe(text_dropout=0.3), Path("where"), resume=True) == 0
    for name in ("weights", "ema"):
        found = weights_of(Path("where"), name)
        assert all(torch.equal(found[k], t) for k, t in weights_of(here / "whole", name).items())


@pytest.fixture
def run(here, recipe, train):
    assert train(recipe(total_images=4, validation_images=0), here / "run") == 0
    return here / "run"


def other_tokenizer(folder):
    shutil.rmtree(folder, ignore_errors=True)
    train_tokenizer(["quite other words for everybody"] * 2, folder, vocabulary=VOCABULARY)
    return folder


def test_a_cascade_moves_with_its_tokenizer(run, here, tokenizer):
    """Joined or saved anew, too; its captions are encoded to the network's own length."""
    shutil.rmtree(here / "tokenizer")
    shutil.move(run, here / "moved")
    cascade = Cascade.load(here / "moved")
    assert cascade.text_encoder.max_tokens == CONTEXT
    joined = assemble([here / "moved"], here / "joined", name="joined", dtype=torch.float32)
    cascade.save(here / "saved")
    cascade.save(here / "saved")  # replaces itself
    for folder in (joined, here / "saved"):
        for name in ("encoder.json", "vocab.bpe"):
            assert (folder / "tokenizer" / name).read_bytes() == (tokenizer / name).read_bytes()
        assert json.loads((folder / "cascade.json").read_text())["text_encoder"] == (
            "glide:tokenizer"
        )
    images = [
        Cascade.load(folder).sample(["a red owl"], seeds=[1]).images[-1]
        for folder in (here / "moved", joined, here / "saved")
    ]
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


def test_a_swapped_tokenizer_is_refused_by_the_cascade(run):
    folder = run / "checkpoints/latest/cascade"
    other_tokenizer(folder / "tokenizer")
    with pytest.raises(CalotypeError, match=r"got the tokenizer .*; expected .*: copy the whole"):
        Cascade.load(run)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(CalotypeError, match=r"none of encoder\.json"):
        Cascade.load(run)


def test_a_changed_tokenizer_is_refused_by_the_run_and_its_heirs(run, here, recipe, train):
    other_tokenizer(here / "tokenizer")
    said = r"got the tokenizer tokenizer .*; expected .* that of {}.*: move tokenizer away"
    with pytest.raises(UsageError, match=said.format("this run")):
        train(recipe(), run, resume=True, images=8)
    stage = run / "checkpoints/latest/cascade/8"
    for init in (run, stage, stage / "weights.safetensors"):
        with pytest.raises(UsageError, match=said.format("--init")):
            train(recipe(), here / "new", init=init)
        assert not (here / "new").exists()


@pytest.mark.slow
def test_the_tokenizer_of_the_weights_is_taken_where_there_is_no_other(run, here, recipe, train):
    shutil.rmtree(here / "tokenizer")
    assert train(recipe(total_images=4), here / "new", init=run) == 0
    assert tokenizer_sha256(tokenizer_of(here / "new")) == tokenizer_sha256(tokenizer_of(run))


@pytest.mark.slow
def test_the_stage_before_reads_the_same_numbers(run, here, recipe, train, micro):
    network = dataclasses.replace(STAGE.network, lowres=True, aug_level=True)
    stage = dataclasses.replace(STAGE, network=network, resolution=16, lowres_resolution=8)
    settings = {"stage": stage, "text_encoder": "glide:tokenizer", "total_images": 4}
    estimates = LowresEstimatesConfig(model=str(run), steps=1)
    upper = micro(**settings, lowres_estimates=estimates, grid_images=0, validation_images=0)
    assert train(Recipe(name="upper", stages=(upper,)), here / "upper") == 0
    assemble([run, here / "upper"], here / "both", name="both", dtype=torch.float32)
    other_tokenizer(here / "tokenizer")
    with pytest.raises(UsageError, match=r"that of lowres_estimates\.model"):
        train(Recipe(name="upper", stages=(upper,)), here / "other")
    plain = Recipe(name="upper", stages=(dataclasses.replace(upper, lowres_estimates=None),))
    assert train(plain, here / "other") == 0
    with pytest.raises(UsageError, match=r"SHA-256 .* and .* SHA-256 .*; expected one encoder"):
        assemble([run, here / "other"], here / "mixed", name="mixed", dtype=torch.float32)


def test_without_a_tokenizer_the_command_is_told(here, recipe, train):
    shutil.rmtree(here / "tokenizer")
    with pytest.raises(
        UsageError, match=rf"calotype data tokenizer .* --vocabulary {VOCABULARY} -o tokenizer"
    ):
        train(recipe(), here / "run")
    train_tokenizer(EVERY, here / "tokenizer", vocabulary=VOCABULARY + 1)
    with pytest.raises(ConfigError, match=r"tokenizer of 281 tokens, for a network of 280"):
        train(recipe(), here / "run")
    assert not (here / "run").exists()


def test_a_clip_of_ids_takes_its_tokenizer_along(here, images, train):
    towers = ClipConfig(
        image=ImageTowerConfig(resolution=8, patch=4, width=16, layers=1, heads=2),
        text=TextTowerConfig(width=16, layers=1, heads=2, context=CONTEXT, vocabulary=VOCABULARY),
        embed_dim=8,
    )
    config = ClipTraining(
        clip=towers,
        text_encoder="glide:tokenizer",
        optimizer=OptimizerConfig(warmup_images=4),
        batch_size=4,
        total_images=4,
        checkpoint_images=4,
        validation_images=0,
        grid_images=0,
    )
    recipe = Recipe(name="clip", stages=(config,))
    assert train(recipe, here / "run") == 0
    other_tokenizer(here / "tokenizer")
    with pytest.raises(UsageError, match="that of --init"):
        train(recipe, here / "new", init=here / "run")
    shutil.rmtree(here / "tokenizer")
    shutil.move(here / "run", here / "moved")
    clip = load_clip(here / "moved")
    assert clip.encoder.max_tokens == CONTEXT
    assert clip.embed_texts(["a red owl", ""]).shape == (2, 8)
    other_tokenizer(here / "moved/checkpoints/latest/clip/tokenizer")
    with pytest.raises(CalotypeError, match="copy the whole folder again"):
        load_clip(here / "moved")


@pytest.mark.slow
def test_two_processes_in_shards_have_the_losses_of_one(here, recipe, train, images):
    """The text tower's layers are units of FSDP2; both processes read the run's own copy."""
    whole = recipe(validation_images=0, total_images=12)
    assert train(whole, here / "whole") == 0
    (here / "recipe.json").write_text(json.dumps(to_dict(whole)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "calotype", "train", "recipe.json", "--data", str(images), "--out", "both"]
    command += ["--parallel", "sharded", "--dtype", "float32", "--device", "cpu", "--quiet"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [
        [json.loads(line)["loss"] for line in (here / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "both")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    assert Cascade.load(here / "both").text_encoder.vocabulary_size == VOCABULARY
