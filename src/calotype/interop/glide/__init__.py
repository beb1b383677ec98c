"""GLIDE's published weights: files come in, a cascade and a noised CLIP come out.

Reference: Nichol et al. 2021, arXiv:2112.10741.
"""

from calotype.interop.glide.load import convert_glide, is_glide, load_glide
from calotype.interop.glide.noised_clip import load_guide
from calotype.interop.glide.reference import ReferenceStage

__all__ = [
    "ReferenceStage",
    "convert_glide",
    "is_glide",
    "load_glide",
    "load_guide",
]
