"""The cascade: a base samples small images of captions, each further stage enlarges them.

The loop over stages exists once, as a generator of previews; `sample` drains it. Progress is
looking at the previews, cancelling is closing the generator.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from calotype.cascade.find import CascadeFolder, open_cascade
from calotype.cascade.finite import check_finite
from calotype.cascade.inversion import count_steps, inverted_first, source_captions
from calotype.cascade.io import load_stage
from calotype.cascade.io import save_cascade as save_to
from calotype.cascade.pixels import Images, as_images
from calotype.cascade.plan import SampleOptions, SamplePlan, StagePlan, plan_sample, plan_upscale
from calotype.cascade.prior import Prior, load_prior, with_image, without_image
from calotype.cascade.results import CascadeSample, Preview, drain, without_gradients
from calotype.cascade.stage import Stage
from calotype.cascade.told import refuse_captions, told
from calotype.conditioning import Text, TextEmbedding, TokenIds, token_states
from calotype.config.stage import CascadeConfig
from calotype.diffusion import PerSampleNoise
from calotype.errors import CalotypeError, UsageError
from calotype.text import TextEncoder, Tokenizer, build_text_encoder, encodes_empty
from calotype.text.encoder import encode_recent, misfit


class Cascade:
    """Stages from coarse to fine, with the text encoder they were trained with.

    Args:
        text_encoder: an encoder, or the specification of one, built when a caption first needs
            it; None or "none" for an unconditional cascade.
        stages: from the base to the finest, or super-resolution stages alone.
        name: what the cascade is called.
        prior: samples the image embedding that conditions an unCLIP base.
        weights: SHA-256 of each stage's weights file, by resolution, if they came from files.

    Raises:
        ConfigError: a stage does not enlarge what the one before samples.
    """

    def __init__(
        self,
        text_encoder: TextEncoder | Tokenizer | str | None,
        stages: Sequence[Stage],
        *,
        name: str = "cascade",
        prior: Prior | None = None,
        weights: dict[int, str] | None = None,
    ) -> None:
        self.prior = None if prior is None else prior.eval()
        self.stages = tuple(stage.eval() for stage in stages)
        self._encoder = None if isinstance(text_encoder, str) else text_encoder
        self._recent: dict[str, Text] = {}
        spec = "none" if text_encoder is None else getattr(text_encoder, "spec", "custom")
        self.text_encoder_spec = text_encoder if isinstance(text_encoder, str) else str(spec)
        self.name = name
        self.weights = {} if weights is None else dict(weights)
        configs = tuple(stage.config for stage in self.stages)
        self.config = CascadeConfig(stages=configs, text_encoder=self.text_encoder_spec, name=name)

    @classmethod
    def load(
        cls, path_or_name: str | Path | CascadeFolder | None = None, *, stop_at: int | None = None
    ) -> Cascade:
        """Load a cascade.

        Args:
            path_or_name: None or "default" for the embedded cascade; a cascade folder, or what
                `open_cascade` read of it; a training run, whose newest checkpoint is taken.
            stop_at: resolution of the last stage needed; finer ones are not read.

        Raises:
            UsageError: nothing usable is there.
            CalotypeError: files are missing, damaged or do not belong together.
        """
        opened = path_or_name
        opened = opened if isinstance(opened, CascadeFolder) else open_cascade(opened)
        folder, file, config = opened.path, opened.file, opened.config
        resolutions = [stage.resolution for stage in config.stages]
        if stop_at is not None and stop_at not in resolutions:
            raise UsageError(f"got stop_at={stop_at}; expected one of {resolutions}")
        count = len(resolutions) if stop_at is None else resolutions.index(stop_at) + 1
        entries = file.stages[:count]
        stages: list[Stage] = []
        for entry, before in zip(entries, (None, *entries), strict=False):
            if entry == before:  # of `CascadeFolder.repeated`: one network, held once
                stages.append(stages[-1].again())
            else:
                stages.append(load_stage(folder / entry.folder, sha256=entry.sha256))
        hashes = {r: opened.weights[r] for r in resolutions[:count]}
        prior = None
        if file.prior is not None:
            prior = load_prior(folder / file.prior.folder, sha256=file.prior.sha256)
        return cls(config.text_encoder, stages, name=config.name, prior=prior, weights=hashes)

    @classmethod
    def outline(cls, opened: CascadeFolder, *, stop_at: int) -> Cascade:
        """The cascade without its weights: enough to plan with, and to name what is made."""
        config = opened.config
        with torch.device("meta"):
            stages = [Stage(one) for one in config.stages if one.resolution <= stop_at]
        return cls(config.text_encoder, stages, name=config.name, weights=opened.weights)

    def save(self, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the cascade into `folder`; an older cascade there is replaced all at once.

        Raises:
            UsageError: `folder` holds something else, or the encoder cannot be named in a file.
            CalotypeError: the disk is full or cannot be written to.
        """
        if self.text_encoder_spec == "custom":
            raise UsageError(
                "got a text encoder without a specification; make the cascade with a string such "
                "as 'minilm' to save it"
            )
        save_to(
            Path(folder),
            stages=self.stages,
            text_encoder=self.text_encoder_spec,
            name=self.name,
            dtype=dtype,
            prior=self.prior,
        )

    @property
    def text_encoder(self) -> TextEncoder | Tokenizer | None:
        """The encoder, built on first use; None for an unconditional cascade."""
        if self._encoder is None and self.text_encoder_spec != "none":
            most = self.config.token_context
            self._encoder = build_text_encoder(self.text_encoder_spec, max_tokens=most)
        return self._encoder

    def sample(
        self, captions: Sequence[str], *, seeds: Sequence[int], **options: Unpack[SampleOptions]
    ) -> CascadeSample:
        """Sample an image of each caption.

        Args:
            captions: "" samples without a caption.
            seeds: one an image, 0 to 2^63-1; the same seed makes the same image alone and in
                any batch, to rounding.
            **options: see `SampleOptions`: negative_captions, classes, sampling, stop_at, size,
                edits, max_batch.

        Returns:
            The images of every stage that sampled.

        Raises:
            UsageError: something does not fit; nothing has been computed then.
        """
        return drain(self.steps(captions, seeds=seeds, **options))

    def steps(
        self, captions: Sequence[str], *, seeds: Sequence[int], **options: Unpack[SampleOptions]
    ) -> Generator[Preview, None, CascadeSample]:
        """Sample as `sample` does, one preview a step; the generator returns the `CascadeSample`.

        Arguments are checked at once, not at the first step. Closing the generator cancels.
        """
        return self.generate(self.plan(captions, seeds=seeds, **options))

    def plan(
        self, captions: Sequence[str], *, seeds: Sequence[int], **options: Unpack[SampleOptions]
    ) -> SamplePlan:
        """What `sample` would make, checked; nothing is computed."""
        self._check_options(captions, options)
        return plan_sample(self.stages, captions, seeds, options)

    def plan_upscale(
        self,
        lowres: Images,
        captions: Sequence[str],
        *,
        seeds: Sequence[int],
        **options: Unpack[SampleOptions],
    ) -> SamplePlan:
        """What `upscale` would make, checked; nothing is computed."""
        self._check_options(captions, options)
        images = as_images(lowres, "images")
        return plan_upscale(self.stages, images, captions, seeds=seeds, options=options)

    def upscale(
        self,
        lowres: Images,
        captions: Sequence[str],
        *,
        seeds: Sequence[int],
        **options: Unpack[SampleOptions],
    ) -> CascadeSample:
        """Enlarge images with the super-resolution stages made for about their size.

        Args:
            lowres: of any size; a tensor (B, 3, h, w), arrays, images of Pillow's or paths: see
                `as_images`.
            captions: what they show; "" if nobody knows.
            seeds: one an image.
            **options: see `SampleOptions`, without `size`.

        Raises:
            UsageError: something does not fit; nothing has been computed then.
        """
        return drain(self.generate(self.plan_upscale(lowres, captions, seeds=seeds, **options)))

    def _check_options(self, captions: Sequence[str], options: SampleOptions) -> None:
        unknown = sorted(set(options) - set(SampleOptions.__annotations__))
        if unknown:
            raise TypeError(
                f"got an unknown option {unknown[0]!r}; expected some of "
                f"{sorted(SampleOptions.__annotations__)}"
            )
        if self.text_encoder_spec == "none":
            refuse_captions(captions, self.config)

    def generate(self, plan: SamplePlan) -> Generator[Preview, None, CascadeSample]:
        """Make what was planned, here or by `edit`, one preview a step; closing it cancels."""
        return without_gradients(self._generate(plan))

    def _generate(self, plan: SamplePlan) -> Generator[Preview, None, CascadeSample]:
        text, negative = self._embed(plan.captions), None
        sources = {c: self._embed(c) for c in {source_captions(s.edit) for s in plan.stages} if c}
        guided = any(stage.sampling.guidance_weight != 1 for stage in plan.stages)
        if (guided or self.prior is not None) and text is not None:
            negative = self._embed(plan.negatives or ("",) * len(plan.captions))
        if self.prior is not None and text is not None and negative is not None:
            null = token_states(negative)
            text = with_image(self.prior, text, null, plan.seeds)
            sources = {k: with_image(self.prior, s, null, plan.seeds) for k, s in sources.items()}
            negative = without_image(null)
        images = []
        for stage in plan.stages:
            parts = []
            for start in range(0, len(plan.seeds), stage.batch):
                rows = slice(start, min(start + stage.batch, len(plan.seeds)))
                whole_texts = (text, negative, sources.get(source_captions(stage.edit)))
                texts = [None if one is None else one[rows] for one in whole_texts]
                parts.append((yield from self._sample_part(plan, stage, texts, rows=rows)))
            whole = torch.cat(parts)
            plan = replace(plan, lowres=whole)
            images.append(whole[..., : stage.shown[0], : stage.shown[1]])
        return CascadeSample(tuple(images), plan.seeds)

    def _sample_part(
        self, plan: SamplePlan, how: StagePlan, texts: Sequence[Text | None], *, rows: slice
    ) -> Generator[Preview, None, Tensor]:
        """The images of one forward pass, of their captions, negative ones and their sources'."""
        stage = self.stages[how.index].in_tiles(how.tiling, plan.on_tile)
        sampling, size = how.sampling, how.size
        edit = plan.edit_of(how, rows)
        noise, same = (PerSampleNoise(plan.seeds[rows], stream=how.index) for _ in range(2))
        classes = None if plan.classes is None else plan.classes[rows]
        parts = told(stage.config, texts, classes, stage.device)
        cond, source = parts.cond, parts.source
        if stage.config.lowres_resolution is not None:
            assert plan.lowres is not None
            cond = parts.enlarging(stage, plan.lowres[rows], how, noise)
        uncond = parts.uncond(cond, sampling)
        steps, resolution = count_steps(stage, edit, sampling), stage.config.resolution
        sample = partial(stage.steps, cond, uncond, noise, size=size, sampling=sampling)
        for state in inverted_first(stage, edit, source, same, sampling=sampling, sample=sample):
            yield Preview(how.index, resolution, rows, steps, state)
            if state.index == steps:
                z = state.z
            del state  # images may be large: the sampler keeps what it needs
        check_finite(z, f"the {resolution} stage sampled", stage)
        return z.clamp(-1, 1).float().cpu().contiguous()

    def _embed(self, captions: Sequence[str]) -> Text | None:
        """Token states of each caption; the null caption needs no encoder."""
        width = max(stage.config.network.text_dim for stage in self.stages)
        ids = any(stage.config.takes_ids for stage in self.stages)
        if width == 0:
            return None
        known = self.text_encoder_spec if self._encoder is None else self._encoder
        if not any(map(str.strip, captions)) and not encodes_empty(known):
            count = len(captions)
            return TokenIds.null(count) if ids else TextEmbedding.null(count, width)
        encoder = self.text_encoder
        problem = misfit(encoder, width, ids=ids)
        if encoder is None or problem is not None:
            raise CalotypeError(f"{problem}: use the encoder that the stages were trained with")
        text = encode_recent(encoder, captions, self._recent)
        if isinstance(text, TextEmbedding):
            check_finite(text.tokens, f"the text encoder {self.text_encoder_spec!r} made", encoder)
        return text


load = Cascade.load
