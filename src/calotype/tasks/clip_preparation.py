"""What has to be ready before a CLIP is trained: captions, towers, pools to validate on."""

from __future__ import annotations

from dataclasses import replace

from calotype.config.clip import ClipTraining
from calotype.data.batch import BatchPlan
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import TrainingData
from calotype.data.source import ExampleSource, evenly_spaced
from calotype.errors import ConfigError
from calotype.runtime import DTYPES
from calotype.storage.weights import load_tensors
from calotype.tasks.captions import WantedCaptions, embedded_captions
from calotype.tasks.clip import ClipTask, new_clip
from calotype.tasks.clip_retrieval import Pools, make_pools, read_shown
from calotype.tasks.tokenizers import run_tokenizer
from calotype.text.encoder import Tokenizer
from calotype.training.preparation import Job, Preparation
from calotype.training.shards import copy_weights
from calotype.training.task import TaskStart
from calotype.vision.clip import WEIGHTS_FILE, clip_tokenizer, find_clip

_TRAINED = 1000  # training examples that validation looks through, a fifth of them for
_UNSEEN = 2000


def prepare_clip(
    preparation: Preparation,
    config: ClipTraining,
    start: TaskStart,
    grammar: CaptionGrammar | None,
) -> Job:
    """Open the data, embed its captions, and make the towers; see `TaskFactory.prepare`."""
    data = TrainingData(
        preparation.data, resolution=config.resolution, data=config.data, grammar=grammar
    )
    source, held_out = data.training, data.held_out
    preparation.report_data(source, captioned=True)
    _check_concepts(source)
    own, tower = None, config.clip.text
    if tower.vocabulary is not None:
        trained = {"--init": None if start.init is None else clip_tokenizer(find_clip(start.init))}
        own = run_tokenizer(preparation, config.text_encoder, tower, trained=trained)
    sources, spec = [source, *held_out.values()], own or config.text_encoder
    wanted = WantedCaptions(sources, config.data, spec, tower.states or tower)
    text = embedded_captions(preparation, wanted)
    read = text if isinstance(text, Tokenizer) else preparation.stores[spec]
    runtime = preparation.runtime
    model = new_clip(config, device=runtime.device)
    if start.init is not None:
        copy_weights(model, load_tensors(find_clip(start.init) / WEIGHTS_FILE, model.state_dict()))
    dtype = DTYPES[runtime.dtype]
    task = ClipTask(config, model, text, read.fingerprint, dtype, tokenizer=own)
    if preparation.group.is_rank_zero and config.validation_images > 0:
        task.pools = retrieval_pools(data, task.batch_plan())
    return Job(task, source)


def _check_concepts(source: ExampleSource) -> None:
    """Refuse data in which nothing differs from anything.

    Raises:
        ConfigError: all examples show one concept.
    """
    every = (source.captions(index) for index in range(len(source)))
    concepts = (shown[0].concept or shown[0].text if shown else "" for shown in every)
    first = next(concepts, None)
    if all(concept == first for concept in concepts):
        raise ConfigError(
            f"got data of one concept alone, {first!r:.80}; expected several: CLIP learns by what "
            "tells them apart"
        )


def retrieval_pools(data: TrainingData, plan: BatchPlan) -> dict[str, Pools]:
    """What retrieval is measured on: each held-out split, and some examples that are trained on."""
    plan = replace(plan, batch_size=64)
    trained = read_shown(evenly_spaced(data.training, _TRAINED), plan, most=_TRAINED)
    unseen = {name: read_shown(part, plan, most=_UNSEEN) for name, part in data.held_out.items()}
    shown = {**unseen, "trained": trained[::5]}
    return {name: make_pools(part, trained) for name, part in shown.items() if part}
