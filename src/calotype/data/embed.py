"""Compute the caption embeddings of a data set ahead, by many processes or on Ray.

Work goes by chunks of examples: whoever has one embeds its captions that the store lacks. What
was killed is run again: captions that are stored are not embedded twice, save those of the shard
in hand and those that two chunks met at the same time; merging leaves one of each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from calotype.data.columns import Selection
from calotype.data.embed_images import PaintedImages, painted_images
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import parts
from calotype.data.work import Chunk, Chunks, Work, open_for_work, source_of, usable_cores
from calotype.errors import CalotypeError, UsageError
from calotype.text import TextEncoder, build_text_encoder
from calotype.text.encoder import check_encoder
from calotype.text.layout import StoreCard, StoreLayout, store_cards
from calotype.text.merge import merge_shards
from calotype.text.shard import Precision
from calotype.text.store import embed_captions
from calotype.vision.clip import ClipModel, load_clip
from calotype.vision.store import KIND

LARGEST_CHUNK = 4096
SMALLEST_CHUNK = 64
_CHUNKS_OF_A_PROCESS = 4


@dataclass(frozen=True)
class EmbedJob:
    """What every process has to know.

    Args:
        encoder: as `build_text_encoder` takes it, or clip-image:FOLDER of a CLIP.
        store: folder of the store, absolute.
        precision: of the store.
        threads: torch threads of each process; None leaves them as they are.
        gpus: of each actor on Ray, a fraction allowed; 0 = none.
    """

    encoder: str
    store: Path
    precision: Precision = "float16"
    threads: int | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class EmbedCounts:
    """Of one chunk: its examples, their distinct captions, and how many of those were missing."""

    examples: int
    captions: int
    embedded: int


@dataclass(frozen=True)
class EmbedReport(EmbedCounts):
    """Of all chunks; captions that several chunks share count in each. `folder` has the shards."""

    folder: Path
    shards: int


class CaptionWorker:
    """Holds the encoder and embeds the captions of chunks."""

    def __init__(self, job: EmbedJob) -> None:
        """Load the encoder; raises `UsageError` where there is nothing to load."""
        if job.threads is not None:
            import torch

            torch.set_num_threads(job.threads)
        self.job = job
        device = "cuda" if job.gpus > 0 else "cpu"
        self._clip: ClipModel | None = None
        if job.encoder.startswith(KIND):
            self._clip = load_clip(job.encoder.removeprefix(KIND) or None)
            self._clip.network.to(device)
            self.encoder: TextEncoder = PaintedImages(self._clip, None, {})
        else:
            self.encoder = check_encoder(
                build_text_encoder(job.encoder, device=device), job.encoder
            )

    def __call__(self, chunk: Chunk) -> EmbedCounts:
        """Embed what the store lacks of a chunk's captions, or of its images."""
        source, encoder, embedded = source_of(chunk.data), self.encoder, 0
        wanted: Mapping[str, object]
        if self._clip is not None:
            encoder, wanted = painted_images(self._clip, chunk)
        else:
            with source.report.apart():
                wanted = {
                    caption.text: None
                    for index in range(chunk.start, chunk.stop)
                    for caption in source.captions(index)[: chunk.data.selection.variants]
                }

        def count(done: int, total: int) -> None:
            nonlocal embedded
            embedded = done

        layout = StoreLayout(precision=self.job.precision)
        embed_captions(encoder, wanted, folder=self.job.store, progress=count, layout=layout)
        return EmbedCounts(chunk.stop - chunk.start, len(wanted), embedded)


def embed_data(
    path: Path,
    job: EmbedJob,
    *,
    variants: int = 16,
    grammar: CaptionGrammar | None = None,
    work: Work | None = None,
) -> EmbedReport:
    """Embed every caption of the data at `path`, of all parts and splits.

    Args:
        path: anything that `open_source` takes.
        job: encoder and store.
        variants: captions of each image made of caption parts; as in the recipe.
        grammar: as `open_source` takes it.
        work: who does it (on Ray, so many actors), and hears of the `EmbedCounts` of each chunk.

    Raises:
        UsageError: the arguments do not fit, or the data cannot be read.
        CalotypeError: the encoder is missing, or the store cannot be written.
    """
    work = work or Work()
    if variants < 1:
        raise UsageError(f"got variants={variants}; expected at least 1")
    job = replace(job, store=job.store.resolve())
    if job.gpus > 0 and work.ray is None:
        raise UsageError(f"got gpus={job.gpus} without Ray, which shares them out; give --ray")
    # Here first: a wrong encoder is found before any process starts.
    fingerprint = _worker(replace(job, gpus=0.0)).encoder.fingerprint
    if work.processes > 1 and job.threads is None:
        job = replace(job, threads=max(1, usable_cores() // work.processes))
    counts = [0, 0, 0]
    # Part by part: images in two sizes have the same captions.
    for part in parts(path):
        data = open_for_work(path, part, Selection(None, None, variants, grammar))
        work.on_open(source_of(data).report)
        size = -(-data.length // (work.processes * _CHUNKS_OF_A_PROCESS))
        chunks = Chunks(data, max(SMALLEST_CHUNK, min(LARGEST_CHUNK, size)))
        for result in _embed_chunks(chunks, job, work):
            counts = [a + b for a, b in zip(counts, astuple(result), strict=True)]
    _worker.cache_clear()  # the encoder may be large
    card = _card(job, fingerprint)
    examples, captions, embedded = counts
    return EmbedReport(examples, captions, embedded, card.folder, merge_shards(card.folder))


def embed_chunk(chunk: Chunk, job: EmbedJob) -> EmbedCounts:
    """Embed a chunk's captions by this process's own worker."""
    return _worker(job)(chunk)


def _embed_chunks(chunks: Chunks, job: EmbedJob, work: Work) -> Iterator[EmbedCounts]:
    if work.ray is None:
        yield from work.over(chunks, functools.partial(embed_chunk, job=job))
        return
    from calotype.data.ray_jobs import ray_actor_map

    make, actors = functools.partial(CaptionWorker, job), work.processes
    for result in ray_actor_map(chunks, make, address=work.ray, workers=actors, gpus=job.gpus):
        work.on_result(result)
        yield result


@functools.lru_cache(maxsize=1)
def _worker(job: EmbedJob) -> CaptionWorker:
    return CaptionWorker(job)


def _card(job: EmbedJob, fingerprint: str) -> StoreCard:
    wanted = (fingerprint, job.precision)
    for card in store_cards(job.store):
        if (card.fingerprint, card.precision) == wanted:
            return card
    raise CalotypeError(f"got no captions to embed for {job.store}; check the data")
