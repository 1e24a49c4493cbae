"""Sizes of the networks of the Depth Anything family: a DINOv2 transformer and a DPT head on four of its layers."""

from dataclasses import dataclass

PATCH_PX = 14
"""Side of DINOv2's patches: pictures have sides of a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSizes:
    """Layers and channels; the fields' defaults are ViT-S, as Depth Anything V2 and Video Depth Anything use it.

    Attributes:
        channels: of the transformer.
        layers: of the transformer.
        heads: of its attention.
        taps: the four layers that the head looks at, counted from 1.
        neck: channels of the four maps made of them, finest first.
        fusion: channels of the maps that are fused.
        grid: patches along a side of the stored (square) position embedding.
    """

    channels: int = 384
    layers: int = 12
    heads: int = 6
    taps: tuple[int, int, int, int] = (3, 6, 9, 12)
    neck: tuple[int, int, int, int] = (48, 96, 192, 384)
    fusion: int = 64
    grid: int = 37


VIT_SMALL = NetworkSizes()
VIT_LARGE = NetworkSizes(
    channels=1024, layers=24, heads=16, taps=(5, 12, 18, 24), neck=(256, 512, 1024, 1024), fusion=256
)
"""As Depth Anything 3 uses it."""
