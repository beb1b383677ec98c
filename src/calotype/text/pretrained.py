"""Loading text models with transformers: local files only, one-line errors, fingerprints.

transformers is imported here and nowhere else in this room, and only when a model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError, ConfigError, MissingExtra
from calotype.storage.reading import check_regular
from calotype.text.encoder import (
    check_dtype,
    check_max_tokens,
    clean_captions,
    digest,
    embed_ids,
)

_NOT_DECIDING = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


@dataclass(frozen=True)
class PretrainedText:
    """A frozen text model and its tokenizer, as transformers loads them.

    Args:
        model: in eval mode, without gradients.
        tokenizer: slow or fast.
        dtype: number type of the weights.
    """

    model: Any
    tokenizer: Any
    dtype: torch.dtype

    def token_ids(self, captions: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Ids of each caption, cleaned, special tokens included, at most `max_tokens`.

        A caption without any ordinary token has no ids: it is the null caption.
        """
        texts = clean_captions(captions, max_tokens)
        rows = self.tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
        # By count and not by id: CLIP's mark of the end stands for unknown characters as well.
        markers = self.tokenizer.num_special_tokens_to_add()
        return [list(row) if len(row) > markers else [] for row in rows]

    @torch.no_grad()
    def run(self, ids: Tensor, mask: Tensor, **asked: bool) -> Any:
        """What the model answers to ids (N, L) with mask (N, L), True = token; `asked` as is."""
        device = self.model.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device).long(), **asked)

    def fingerprint(self, kind: str, max_tokens: int) -> str:
        """SHA-256 (hex) of weights, configuration, tokenizer, kind of encoder, length and dtype.

        The weights are hashed as loaded, so that file formats and shards make no difference.
        """
        config = self.model.config.to_diff_dict()
        for key in _NOT_DECIDING:
            config.pop(key, None)
        return digest(
            [
                kind,
                str(max_tokens),
                str(self.dtype),
                json.dumps(config, sort_keys=True, default=str),
                tokenizer_text(self.tokenizer),
                hash_state(self.model.state_dict()),
            ]
        )


class PretrainedTextEncoder:
    """A frozen text model of transformers as a `TextEncoder`, captions to states (B, L, D) float32.

    Args:
        kind: as recipes name it, before the colon.
        model_types: as `load_pretrained` takes them.
        fewest_tokens: least `max_tokens` that leaves room for one beside the special ones.
        default_tokens: `max_tokens` if not given; None = all that the model can.
        has_positions: whether the model has so many positions, and no more.
        in_pipeline: model and tokenizer lie in folders of their own, as in a folder of diffusers.
    """

    kind: ClassVar[str]
    model_types: ClassVar[Mapping[str, str]]
    fewest_tokens: ClassVar[int] = 2
    default_tokens: ClassVar[int | None] = None
    has_positions: ClassVar[bool] = False
    in_pipeline: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        max_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        allow_download: bool = False,
    ) -> None:
        """Load from the folder `name`, or from the hub cache.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: another kind of model; `max_tokens` out of range; `dtype` neither float32
                nor bfloat16.
            CalotypeError: files are missing or damaged.
        """
        check_dtype(dtype, self.kind)
        wanted = self.default_tokens if max_tokens is None else max_tokens
        if wanted is not None and not self.has_positions:
            check_max_tokens(wanted, lowest=self.fewest_tokens, highest=None, encoder=self.kind)
        self.spec = f"{self.kind}:{name}"
        places = (str(Path(name, "text_encoder")), str(Path(name, "tokenizer")))
        folder, tokenizer = places if self.in_pipeline else (name, None)
        self._loaded = load_pretrained(
            folder,
            self.model_types,
            dtype=dtype,
            allow_download=allow_download,
            tokenizer_name=tokenizer,
        )
        self._loaded.model.to(device)
        config = self._loaded.model.config
        self.embed_dim = int(config.hidden_size)
        longest = int(config.max_position_embeddings) if self.has_positions else None
        self.max_tokens = check_max_tokens(
            wanted or longest or 0, lowest=self.fewest_tokens, highest=longest, encoder=self.kind
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype; reads all weights once."""
        return self._loaded.fingerprint(f"{self.kind} 1", self.max_tokens)

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        ids = self._loaded.token_ids(captions, self.max_tokens)
        return embed_ids(ids, self.embed_dim, self._states)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States (N, L, D) of ids (N, L) with mask (N, L), True = token: the last layer's."""
        states: Tensor = self._loaded.run(ids, mask).last_hidden_state
        return states


def load_pretrained(
    name: str,
    model_types: Mapping[str, str],
    *,
    dtype: torch.dtype,
    allow_download: bool,
    tokenizer_name: str | None = None,
) -> PretrainedText:
    """Load a model and its tokenizer from a folder or the hub cache.

    Args:
        name: folder, or name of a model on the hub.
        model_types: `model_type` of the configuration to the class of transformers to use.
        dtype: of the weights.
        allow_download: whether the hub may be asked; otherwise only files that are here are used.
        tokenizer_name: folder of the tokenizer where it is another; weights must be safetensors
            then, and may be a fp16 variant, as in folders of diffusers.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: the model is of another kind.
        CalotypeError: files are missing or damaged.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("interop", "transformers") from error
    # Nothing in a file is code: without this transformers asks at the terminal, and runs it on a y.
    where: dict[str, Any] = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        _check_files(name, tokenizer_name)
        config = transformers.AutoConfig.from_pretrained(name, **where)
    except Exception as error:  # transformers raises many kinds
        raise _cannot_load(name, "configuration", error) from error
    if config.model_type not in model_types:
        raise ConfigError(
            f"text encoder {name!r}: got a model of type {config.model_type!r}, expected one of "
            f"{sorted(model_types)}; choose another model or encoder"
        )
    tokenizer = load_tokenizer(tokenizer_name or name, allow_download=allow_download)
    where |= {"use_safetensors": True}  # other weights are pickles
    if tokenizer_name is not None:
        where |= _variant(Path(name))
    model = _load_model(getattr(transformers, model_types[config.model_type]), name, dtype, where)
    return PretrainedText(model.eval().requires_grad_(False), tokenizer, dtype)


def load_tokenizer(name: str, *, allow_download: bool = False) -> Any:
    """Load a tokenizer alone from a folder or the hub cache; raises as `load_pretrained`."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("interop", "transformers") from error
    try:
        _check_files(name)
        return transformers.AutoTokenizer.from_pretrained(
            name, local_files_only=not allow_download, trust_remote_code=False
        )
    except Exception as error:
        raise _cannot_load(name, "tokenizer", error) from error


def _check_files(*folders: str | None) -> None:
    """Refuse what is no regular file: transformers opens whatever has the names it looks for.

    Raises:
        OSError: it names the file.
    """
    for folder in (Path(folder) for folder in folders if folder is not None):
        for path in folder.iterdir() if folder.is_dir() else ():
            if not path.is_dir():
                check_regular(path)


def _variant(folder: Path) -> dict[str, str]:
    """Ask for half precision files where there are no others."""
    plain = ("model.safetensors", "model.safetensors.index.json")
    half = ("model.fp16.safetensors", "model.safetensors.index.fp16.json")
    if any((folder / name).is_file() for name in plain):
        return {}
    return {"variant": "fp16"} if any((folder / name).is_file() for name in half) else {}


def _load_model(kind: Any, name: str, dtype: torch.dtype, where: dict[str, Any]) -> Any:
    from transformers.utils import logging

    # It lists the decoder's weights as unexpected: they are, and it does not matter here.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model, found = kind.from_pretrained(name, dtype=dtype, output_loading_info=True, **where)
    except Exception as error:
        raise _cannot_load(name, "weights", error) from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(found["missing_keys"]) + sorted(found["mismatched_keys"])
    if missing:  # transformers would go on with random numbers
        raise CalotypeError(
            f"text encoder {name!r}: got {len(missing)} weights missing or of the wrong shape "
            f"(first {missing[0]}), expected all; fetch the model again"
        )
    return model


def _cannot_load(name: str, part: str, error: Exception) -> CalotypeError:
    if Path(name).is_dir():  # its own words say which file is damaged, but also link to the hub
        reason = " ".join(str(error).split()).partition("http")[0]
        return CalotypeError(
            f"text encoder {name!r}: cannot read its {part}: copy the folder again "
            f"({textwrap.shorten(reason, 200, placeholder=' ...')})"
        )
    return CalotypeError(
        f"text encoder {name!r}: no {part} in a folder or the hub cache of that name; give the "
        f"path of a model folder, or fetch it with `hf download {name}`"
    )


def tokenizer_text(tokenizer: Any) -> str:
    """What decides the ids, without the cutting and padding that the last call has set."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return type(tokenizer).__name__ + json.dumps(tokenizer.get_vocab(), sort_keys=True)
    data = json.loads(backend.to_str())
    for key in ("truncation", "padding"):
        data.pop(key, None)
    return json.dumps(data, sort_keys=True)


def hash_state(state: dict[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors: names, dtypes, shapes, bytes."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
