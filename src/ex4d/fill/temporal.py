"""Unobserved pixels from other frames of the clip, seen from the same target camera, where the scene agrees."""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh
from ex4d.fill import temporal_kernels as kernels
from ex4d.fill.config import FillConfig
from ex4d.render.rasterizer import Rasterizer, RenderedFrame

WINDOW_CELLS = (5, 17, 65)
"""Windows around a hole in which frames are compared, in cells of `kernels.CELL_PX`; wider ones count only
where narrower ones hold little."""
WIDER_WEIGHT = 0.05
"""How much a pixel of the next wider window counts."""
FAR_WINDOW_CELLS = 9
"""Only pixels that are among the farthest within such a window are compared: the hole continues those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Pixels that other frames supplied.

    Attributes:
        color: float32 [H,W,3], levels; 0 where not found.
        disparity: float32 [H,W], 1/z in the target camera; 0 where not found.
        found: bool [H,W].
    """

    color: Float32
    disparity: Float32
    found: Bool


def search_neighbors(
    view: RenderedFrame,
    surface: Float32,
    neighbors: list[DepthMesh],
    target: Camera,
    *,
    config: FillConfig,
    rasterizer: Rasterizer,
) -> Found:
    """Look for the unobserved pixels of a target frame in other source frames.

    Args:
        view: the target frame, as rendered from its own source frame.
        surface: float32 [H,W], 1/z of the nearest face in view, torn ones too: nothing in front of it can
            be there, for the source camera saw that space to be empty.
        neighbors: meshes of other source frames.
        target: the target camera.
        config: tolerances.
        rasterizer: private to the calling thread.
    """
    far = _far_limit(view.observed, surface)
    renders: list[RenderedFrame] = []
    offers: list[Float32] = []
    for mesh in neighbors:
        render = rasterizer.render(mesh, target)
        if not (render.observed & ~view.observed).any():
            continue
        offer = _agreement(view, surface, render, far, config)
        if offer[..., 0].any():
            renders.append(render)
            offers.append(offer)
    shape = view.observed.shape
    color = np.zeros((*shape, 3), np.float32)
    disparity = np.zeros(shape, np.float32)
    if renders:
        kernels.combine(
            np.stack([r.rgb for r in renders]),
            np.stack([r.depth for r in renders]),
            np.stack(offers),
            (view.observed, surface),
            np.float32(config.depth_tolerance),
            (color, disparity),
        )
    return Found(color=color, disparity=disparity, found=disparity > 0)


def _far_limit(observed: Bool, surface: Float32) -> Float32:
    """float32 [h,w] a cell: largest 1/z that still counts as background around it."""
    farthest = kernels.farthest_in_cells(observed, surface)
    kernel = np.ones((FAR_WINDOW_CELLS,) * 2, np.uint8)
    far = cv2.erode(farthest, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=np.inf)
    return cast(Float32, far * np.float32(1.25))


def _agreement(
    view: RenderedFrame, surface: Float32, render: RenderedFrame, far: Float32, config: FillConfig
) -> Float32:
    """float32 [h,w,4] a cell: trust 0–1 and the mean colour difference view − render (levels)."""
    sums = kernels.compare(
        (view.rgb, view.observed, surface), (render.rgb, render.depth), far, np.float32(2 * config.depth_tolerance)
    )
    spread, weight = np.zeros_like(sums), np.float32(1)
    for cells in WINDOW_CELLS:
        spread += weight * cv2.boxFilter(sums, -1, (cells, cells), normalize=False, borderType=cv2.BORDER_CONSTANT)
        weight *= np.float32(WIDER_WEIGHT)
    return kernels.judge(spread, np.float32(config.color_tolerance))
