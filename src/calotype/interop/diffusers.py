"""The call people know from diffusers, sampling with a whole cascade.

`CalotypePipeline` takes the arguments of diffusers' text-to-image pipelines that mean something
here and refuses the others. diffusers itself is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from calotype.cascade.cascade import Cascade
from calotype.cascade.pixels import to_pixels
from calotype.cascade.plan import SampleOptions
from calotype.cascade.results import CascadeSample, Preview, drain
from calotype.config.sampling import SamplingConfig
from calotype.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

StepCallback = Callable[["CalotypePipeline", int, Tensor, dict[str, Tensor]], Mapping[str, Any]]
"""`(pipeline, step, timestep, {"latents": ...}) -> dict`, called after every step of a stage."""

_OUTPUT_TYPES = ("pil", "np", "pt")
_CALLBACK_TENSORS = ("latents", "images")
T = TypeVar("T")


@dataclass(frozen=True)
class PipelineOutput:
    """What a call returns.

    Args:
        images: a list of PIL images; an array (B, H, W, 3) in [0, 1]; or a tensor (B, 3, H, W)
            in [0, 1].
    """

    images: list[Image] | np.ndarray | Tensor

    def __getitem__(self, index: int) -> Any:
        return (self.images,)[index]  # `output[0]` is `output.images`, as in diffusers


class CalotypePipeline:
    """Text to images through all stages of a cascade, called as a diffusers pipeline is."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        torch_dtype: torch.dtype | None = None,
        use_safetensors: bool | None = True,
        local_files_only: bool = True,
    ) -> CalotypePipeline:
        """Load a cascade: None or "default" is the embedded one; see `Cascade.load`.

        Args:
            pretrained_model_name_or_path: a cascade folder or a training run.
            torch_dtype: number type of the networks' calls; weights stay float32. None = float32.
            use_safetensors: there are no other files; False is refused.
            local_files_only: nothing is ever downloaded; False is refused.

        Raises:
            UsageError: nothing usable is there, or an argument asks for what is not done here.
        """
        if use_safetensors is False or not local_files_only:
            raise UsageError(
                "got use_safetensors=False or local_files_only=False; expected True: cascades are "
                "safetensors in a local folder"
            )
        pipeline = cls(Cascade.load(pretrained_model_name_or_path))
        return pipeline if torch_dtype is None else pipeline.to(torch_dtype)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        safe_serialization: bool = True,
        variant: Literal["fp16"] | None = None,
    ) -> None:
        """Write a cascade folder, in half the size with variant "fp16"; see `Cascade.save`."""
        if not safe_serialization or variant not in (None, "fp16"):
            raise UsageError(
                f"got safe_serialization={safe_serialization}, variant={variant!r}; expected True, "
                "and None or 'fp16'"
            )
        self.cascade.save(save_directory, dtype=torch.float32 if variant is None else torch.float16)

    @property
    def device(self) -> torch.device:
        """Where the first stage is."""
        return self.cascade.stages[0].device

    def to(self, target: str | torch.device | torch.dtype) -> CalotypePipeline:
        """Move the stages to a device, or let their networks compute in a number type."""
        for stage in self.cascade.stages:
            if isinstance(target, torch.dtype):
                stage.compute_dtype = target
            else:
                stage.to(target)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> PipelineOutput | tuple[Any]:
        """Make images.

        Args:
            prompt: one caption or several.
            negative_prompt: what to guide away from; one for all, or one a prompt.
            num_inference_steps: steps of the base stage, or one number a stage; None = as trained.
            guidance_scale: guidance weight of the base stage, or one a stage; 1 = off, as in
                diffusers. None = the cascade's own.
            num_images_per_prompt: images a prompt, next to each other in the result.
            height: of the last stage's images, in pixels; with `width` or not at all.
            width: see `height`.
            generator: seeds come from it, one an image; or one generator an image. None
                takes torch's global generator. The numbers differ from diffusers'.
            output_type: see `PipelineOutput`.
            return_dict: False returns a tuple instead of a `PipelineOutput`.
            callback_on_step_end: called after each step of each stage, for each chunk of a batch
                sampled at once; it returns the tensors it was given; an exception cancels.
            callback_on_step_end_tensor_inputs: which it gets: "latents" (noisy images),
                "images" (what they look like so far).

        Raises:
            UsageError: something does not fit; nothing has been computed then.
        """
        _check_choice("output_type", output_type, _OUTPUT_TYPES)
        for name in callback_on_step_end_tensor_inputs:
            _check_choice("callback_on_step_end_tensor_inputs", name, _CALLBACK_TENSORS)
        options: SampleOptions = {"sampling": self._sampling(num_inference_steps, guidance_scale)}
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        captions = _repeated(prompts, num_images_per_prompt)
        if negative_prompt is not None:
            negatives = _one_each("negative_prompt", negative_prompt, len(prompts))
            options["negative_captions"] = _repeated(negatives, num_images_per_prompt)
        if height is not None or width is not None:
            options["size"] = _size(height, width)
        watch = None
        if callback_on_step_end is not None:
            watch = _watch(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        images = _images(self._sample(captions, generator, options, watch), output_type)
        return PipelineOutput(images) if return_dict else (images,)

    def _sample(
        self,
        captions: Sequence[str],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        options: SampleOptions,
        watch: Callable[[Preview], None] | None,
    ) -> CascadeSample:
        # Errors come before numbers are taken from the generator.
        self.cascade.plan(captions, seeds=[0] * len(captions), **options)
        steps = self.cascade.steps(captions, seeds=_seeds(generator, len(captions)), **options)
        return drain(steps) if watch is None else drain(steps, watch)

    def _sampling(
        self, steps: int | Sequence[int] | None, guidance: float | Sequence[float] | None
    ) -> list[SamplingConfig]:
        """How each stage samples: its own settings, changed where the caller says so."""
        own = [stage.config.sampling for stage in self.cascade.stages]
        counts = _per_stage("num_inference_steps", steps, len(own))
        weights = _per_stage("guidance_scale", guidance, len(own))
        for place, (count, weight) in enumerate(zip(counts, weights, strict=True)):
            if count is not None:
                own[place] = replace(own[place], steps=count, timesteps=None)
            if weight is not None:
                own[place] = replace(own[place], guidance_weight=float(weight))
        return own


def _watch(
    pipeline: CalotypePipeline, callback: StepCallback, names: Sequence[str]
) -> Callable[[Preview], None]:
    """A function that calls back after every step; it sees a preview before each."""
    timestep = torch.tensor(0.0)

    def see(preview: Preview) -> None:
        nonlocal timestep
        state = preview.state
        if state.index > 0:
            found = {"latents": state.z, "images": state.estimate.x_hat}
            given = {name: found[name] for name in names}
            result = callback(pipeline, state.index - 1, timestep, dict(given))
            for name, tensor in dict({} if result is None else result).items():
                if tensor is not given.get(name):
                    raise UsageError(
                        f"the callback returned another tensor as {name!r}; expected its own: "
                        "change images with a calotype.cascade.StageEdit instead"
                    )
        schedule = pipeline.cascade.stages[preview.stage].schedule
        timestep = (schedule.time(state.logsnr) * 999).float()

    return see


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    if generator is not None and not isinstance(generator, torch.Generator):
        generators = list(generator)
        if len(generators) != count:
            raise UsageError(
                f"got {len(generators)} generators for {count} images; expected one each"
            )
        return [_seeds(one, 1)[0] for one in generators]
    device = "cpu" if generator is None else generator.device
    seeds: list[int] = torch.randint(
        2**63 - 1, (count,), generator=generator, device=device
    ).tolist()
    return seeds


def _images(sample: CascadeSample, output_type: str) -> list[Image] | np.ndarray | Tensor:
    if output_type == "pil":
        from PIL import Image

        return [Image.fromarray(pixels) for pixels in to_pixels(sample.images[-1])]
    images = (sample.images[-1].clamp(-1, 1) + 1) / 2
    return images if output_type == "pt" else images.permute(0, 2, 3, 1).numpy()


def _per_stage(what: str, given: T | Sequence[T] | None, stages: int) -> list[T | None]:
    """A single value is the base's; the other stages keep their own."""
    if not isinstance(given, Sequence):
        return [given] + [None] * (stages - 1)
    if len(given) != stages:
        raise UsageError(f"got {len(given)} of {what} for {stages} stages; expected one each")
    return list(given)


def _one_each(what: str, given: str | Sequence[str], count: int) -> list[str]:
    texts = [given] * count if isinstance(given, str) else list(given)
    if len(texts) != count:
        raise UsageError(f"got {len(texts)} of {what} for {count} prompts; expected one each")
    return texts


def _size(height: int | None, width: int | None) -> tuple[int, int]:
    if height is None or width is None:
        raise UsageError(f"got height={height}, width={width}; expected both or neither")
    return height, width


def _repeated(texts: Sequence[str], times: int) -> list[str]:
    if times < 1:
        raise UsageError(f"got num_images_per_prompt={times}; expected 1 or more")
    return [text for text in texts for _ in range(times)]


def _check_choice(what: str, given: str, expected: Sequence[str]) -> None:
    if given not in expected:
        raise UsageError(f"got {what}={given!r}; expected one of {', '.join(expected)}")
