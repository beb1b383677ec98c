"""Compute the caption embeddings of a data set ahead, by many processes or on Ray.

Work goes by chunks of examples: whoever has one embeds its captions that the store lacks. What
was killed is run again: captions that are stored are not embedded twice, save those of the shard
in hand and those that two chunks met at the same time; merging leaves one of each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calotype.data.columns import Selection
from calotype.data.embed_images import PaintedImages, painted_images
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import parts
from calotype.data.source import SourceReport
from calotype.data.work import Chunk, chunks_of, open_for_work, source_of, usable_cores, work_over
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
class EmbedReport:
    """Of all chunks; captions that several chunks share count in each. `folder` has the shards."""

    folder: Path
    examples: int
    captions: int
    embedded: int
    shards: int


class CaptionWorker:
    """Holds the encoder and embeds the captions of chunks."""

    def __init__(self, job: EmbedJob) -> None:
        """Load the encoder.

        Raises:
            UsageError: there is nothing to load.
        """
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
    processes: int = 1,
    ray: str | None = None,
    on_open: Callable[[SourceReport], None] | None = None,
    on_chunk: Callable[[EmbedCounts], None] | None = None,
) -> EmbedReport:
    """Embed every caption of the data at `path`, of all parts and splits.

    Args:
        path: anything that `open_source` takes.
        job: encoder and store.
        variants: captions of each image made of caption parts; as in the recipe.
        grammar: as `open_source` takes it.
        processes: local processes; on Ray, the actors.
        ray: address of a Ray cluster that does the work instead; see `ray_jobs.connected`.
        on_open: called with what was found of each part when it was opened.
        on_chunk: called with each chunk's counts, for progress.

    Raises:
        UsageError: the arguments do not fit, or the data cannot be read.
        CalotypeError: the encoder is missing, or the store cannot be written.
    """
    if processes < 1:
        raise UsageError(f"got processes={processes}; expected at least 1")
    if variants < 1:
        raise UsageError(f"got variants={variants}; expected at least 1")
    job = replace(job, store=job.store.resolve())
    if job.gpus > 0 and ray is None:
        raise UsageError(f"got gpus={job.gpus} without Ray, which shares them out; give --ray")
    # Here first: a wrong encoder is found before any process starts.
    fingerprint = _worker(replace(job, gpus=0.0)).encoder.fingerprint
    if processes > 1 and job.threads is None:
        job = replace(job, threads=max(1, usable_cores() // processes))
    examples = captions = embedded = 0
    # Part by part: images in two sizes have the same captions.
    for part in parts(path):
        data = open_for_work(path, part, Selection(None, None, variants, grammar))
        if on_open is not None:
            on_open(source_of(data).report)
        share = -(-data.length // (processes * _CHUNKS_OF_A_PROCESS))
        size = max(SMALLEST_CHUNK, min(LARGEST_CHUNK, share))
        for result in _work(chunks_of(data, size=size), job, processes, ray):
            examples += result.examples
            captions += result.captions
            embedded += result.embedded
            if on_chunk is not None:
                on_chunk(result)
    _worker.cache_clear()  # the encoder may be large
    card = _card(job, fingerprint)
    return EmbedReport(card.folder, examples, captions, embedded, merge_shards(card.folder))


def embed_chunk(chunk: Chunk, job: EmbedJob) -> EmbedCounts:
    """Embed a chunk's captions by this process's own worker."""
    return _worker(job)(chunk)


def _work(
    chunks: Sequence[Chunk], job: EmbedJob, processes: int, ray: str | None
) -> Iterator[EmbedCounts]:
    if ray is None:
        return work_over(chunks, functools.partial(embed_chunk, job=job), processes=processes)
    from calotype.data.ray_jobs import ray_actor_map

    make = functools.partial(CaptionWorker, job)
    return ray_actor_map(chunks, make, address=ray, workers=processes, gpus=job.gpus)


@functools.lru_cache(maxsize=1)
def _worker(job: EmbedJob) -> CaptionWorker:
    return CaptionWorker(job)


def _card(job: EmbedJob, fingerprint: str) -> StoreCard:
    wanted = (fingerprint, job.precision)
    for card in store_cards(job.store):
        if (card.fingerprint, card.precision) == wanted:
            return card
    raise CalotypeError(f"got no captions to embed for {job.store}; check the data")
