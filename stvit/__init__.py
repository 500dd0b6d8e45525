"""Semantic-token vision transformers (STViT, CVPR 2023, arXiv 2303.08685) and the methods they are compared with.

Importing the package registers every model with timm. Shape legend, valid everywhere in it:

    B batch, C channels, h heads, N image tokens, M semantic tokens, nW windows, T tokens of a window,
    w window side, m semantic tokens per window side, H and W rows and columns of a token map
"""

from stvit.measure.macs import count_macs

from . import export, sparsify
from .factory import create_model
from .trace import LayerTrace, TokenTrace

__all__ = ["LayerTrace", "TokenTrace", "count_macs", "create_model", "export", "sparsify"]
