"""Clips whose surfaces move in a known way, and how many changes of a mask that motion accounts for."""

from dataclasses import dataclass, field

import numpy as np
from depth_data import _moved

from ex4d.core.arrays import Bool, Float32, Float64, Int32
from ex4d.core.camera import Camera, CameraPath
from ex4d.core.depth import DepthVideo
from ex4d.core.geometry import pixel_centers, project, unproject
from ex4d.core.video import Video
from ex4d.scene.clip import SceneClip
from ex4d.scene.render import render_scene

Surfaces = tuple[Float32, Bool, Int32 | None]
"""Depth [H,W], where it is known, and whose surface it is (procedural)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthClip:
    """A clip with depth that is no guess.

    Attributes:
        name: of the clip.
        video: all frames.
        depth: frame for frame with it, metres.
        path: the cameras.
        scene: where it is procedural; else nothing in it moves.
        surfaces: of its own frames, as far as they have been asked for.
    """

    name: str
    video: Video
    depth: DepthVideo
    path: CameraPath
    scene: SceneClip | None = None
    surfaces: dict[int, Surfaces] = field(default_factory=lambda: dict[int, Surfaces]())


def explained_changes(clip: TruthClip, kept: Bool, path: CameraPath) -> Float64:
    """Changes of masks that the motion of surfaces accounts for.

    Args:
        clip: what is filmed.
        kept: bool [T,H,W], masks over the pictures that `path` sees.
        path: the clip's own cameras, or others (procedural clips only).

    Returns:
        float64 [2]: pixels that differ from the frame before and have the value that their surface had there, and all
        pixels that differ and whose surface was in the picture.
    """
    counts = np.zeros(2)
    for t in range(1, len(kept)):
        row, column = np.nonzero(kept[t] != kept[t - 1])
        if not len(row):
            continue
        before, known = _before(clip, t, path, row, column)
        height, width = kept.shape[1:]
        x, y = np.floor(before).astype(np.int64).T
        inside = known & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        had = kept[t - 1][y[inside], x[inside]]
        counts += (np.count_nonzero(had == kept[t][row[inside], column[inside]]), np.count_nonzero(inside))
    return counts


def _before(clip: TruthClip, t: int, path: CameraPath, row: np.ndarray, column: np.ndarray) -> tuple[Float64, Bool]:
    """Where the surfaces at pixels of frame t were in frame t − 1: px float64 [N,2], and bool [N] where known."""
    camera = path[t]
    depth, known, owner = _surfaces(clip, t, camera, is_own=path is clip.path)
    centers = pixel_centers(*depth.shape)[row, column]
    points = unproject(camera, centers, np.where(known, depth, 1)[row, column].astype(np.float64))
    if clip.scene is not None and owner is not None:
        times = clip.scene.timestamps_s
        owners = owner[row, column]
        for which in np.unique(owners):
            mine = owners == which
            points[mine] = _moved(clip.scene.scene, int(which), points[mine], float(times[t]), float(times[t - 1]))
    pixels, distance = project(path[t - 1], points)
    seen = known[row, column] & (distance > 0)
    return np.where(seen[:, None], pixels, -1), seen


def _surfaces(clip: TruthClip, t: int, camera: Camera, *, is_own: bool) -> Surfaces:
    if clip.scene is None:
        assert is_own, "measured depth is known from the clip's own cameras only"
        return clip.depth.depth[t], clip.depth.valid[t], None
    if is_own and t in clip.surfaces:
        return clip.surfaces[t]
    view = render_scene(clip.scene.scene, camera, float(clip.scene.timestamps_s[t]))
    found = (view.depth, np.ones_like(view.sky), view.object_id)
    if is_own:
        clip.surfaces[t] = found
    return found
