"""Text encoder of CLIP models (Radford et al. 2021): the penultimate layer's states.

The last layer serves the contrastive loss and is poorer in detail, hence the one before it, as
in DALL-E 2's and later open models. Its states are taken as they are, without the final
LayerNorm: the networks normalise text themselves.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from calotype.text.pretrained import PretrainedTextEncoder


class CLIPTextEncoder(PretrainedTextEncoder):
    """Frozen CLIP text model: captions to penultimate states (B, L, D) float32.

    Start and end marks are tokens too. Of a folder with a whole CLIP, the text model is read.
    """

    kind = "clip"
    fewest_tokens = 3
    has_positions = True
    model_types = MappingProxyType({"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"})

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        # Attention is causal and padding comes last: what pads does not matter, if it is legal.
        found = self._loaded.run(ids, mask, output_hidden_states=True)
        states: Tensor = found.hidden_states[-2]
        return states
