"""The classes of Kinetics-400, in the order of every published Video Swin checkpoint."""

from __future__ import annotations

from torchvision.models.video import Swin3D_T_Weights

#: 400 names, alphabetical. They are torchvision's, of its port of the weights; the authors' own list
#: (``demo/label_map_k400.txt`` in SwinTransformer/Video-Swin-Transformer) has the same names in the same order.
KINETICS400_CLASSES: tuple[str, ...] = tuple(Swin3D_T_Weights.KINETICS400_V1.meta["categories"])
