"""Text encoders of the T5 family: t5, t5-v1_1, flan-t5, mT5, umT5 and byT5, of any size.

Imagen's own encoder is T5-XXL, frozen (Saharia et al. 2022, section 2.1).
"""

from __future__ import annotations

from types import MappingProxyType

from calotype.text.pretrained import PretrainedTextEncoder


class T5TextEncoder(PretrainedTextEncoder):
    """Frozen T5 encoder: captions to the last layer's states (B, L, D) float32.

    Positions are relative, so that captions may have any length up to `max_tokens` (the paper
    uses 128). Of a folder with encoder and decoder, the encoder is read. float16 is refused:
    T5's states leave its range.
    """

    kind = "t5"
    default_tokens = 256
    model_types = MappingProxyType(
        {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
    )
