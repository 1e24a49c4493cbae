"""Depth in the npz files of Depth Anything 3 and MegaSaM, with their cameras."""

from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float32, Int64
from ex4d.errors import DepthError
from ex4d.io.cameras.estimated import DA3_KEYS, DA3_PATCH_PX, MEGASAM_KEYS, read_da3_cameras, read_megasam_cameras
from ex4d.io.depth.arrays import ArrayFrames
from ex4d.io.depth.found import FoundDepth, cameras_of_frames

MIN_CONFIDENCE = 1.05
"""Depth Anything 3's confidence is 1 + exp(x); below this its own point clouds leave a pixel out (export/glb.py)."""
ALWAYS_KEPT = 0.1
"""The share of a frame that is never called unknown, as in the same function of theirs."""
MEGASAM_NEAREST = 2e-3
"""MegaSaM writes 1e-3 (or 1e-6) where it has no depth; its nearest surface lies at about 0.5."""

_DA3_EXPORTS = ("exports/npz/results.npz", "exports/mini_npz/results.npz")


class ConfidentFrames:
    """Depth that is 0 (unknown) where another array's confidence is low; satisfies `DepthFrames`.

    Args:
        depth: the depth maps.
        confidence: as many maps of the same size.

    Raises:
        DepthError: another number or size of confidence maps.
    """

    def __init__(self, depth: ArrayFrames, confidence: ArrayFrames) -> None:
        self._depth, self._confidence = depth, confidence
        self.num_frames, self.height, self.width = depth.num_frames, depth.height, depth.width
        if (confidence.num_frames, confidence.height, confidence.width) != (self.num_frames, self.height, self.width):
            raise DepthError(
                f"confidence of the depth's shape {list(depth.shape)}", f"{list(confidence.shape)}", "export it again"
            )

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W]; 0 where the confidence is below `MIN_CONFIDENCE`, except for the best tenth of a frame."""
        depth, confidence = self._depth.read_frames(indices), self._confidence.read_frames(indices)
        best = np.quantile(confidence, 1 - ALWAYS_KEPT, axis=(1, 2), keepdims=True)
        return np.where(confidence >= np.minimum(best, MIN_CONFIDENCE), depth, np.float32(0))


class UncutFrames:
    """MegaSaM's maps at the size of the whole picture; satisfies `DepthFrames`.

    What it cut off on the right and below is 0 (unknown), and so is what it has no depth for.

    Args:
        depth: the stored maps.
        height: px of the whole picture, at least that of the maps.
        width: px of the whole picture.
    """

    def __init__(self, depth: ArrayFrames, *, height: int, width: int) -> None:
        self._depth = depth
        self.num_frames, self.height, self.width = depth.num_frames, height, width

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W]."""
        cut = self._depth.read_frames(indices)
        out = np.zeros((len(cut), self.height, self.width), np.float32)
        out[:, : cut.shape[1], : cut.shape[2]] = np.where(cut < MEGASAM_NEAREST, np.float32(0), cut)
        return out


def da3_export(folder: Path) -> Path | None:
    """The npz in a folder that Depth Anything 3 exported into, or None."""
    return next((folder / name for name in _DA3_EXPORTS if (folder / name).is_file()), None)


def find_npz_result(path: Path, members: dict[str, str]) -> FoundDepth | None:
    """Depth, K and cameras of either program's npz, or None where it is another npz.

    Depth Anything 3 (``export_to_npz``, ``export_to_mini_npz`` in utils/export/npz.py): depth [N,H,W], conf
    [N,H,W], world_to_camera and K. The file does not say whether its model was a metric one.
    MegaSaM (cvd_opt/cvd_opt.py, camera_tracking_scripts/test_*.py): depths [N,h,w], scaled so that the 98th
    percentile of 1/z over the clip is about 2, whatever the scene: relative.

    Args:
        path: the archive.
        members: its arrays by name.

    Raises:
        DepthError: damaged, or another number of cameras than of depth maps.
        CameraPathError: cameras that are not usable.
    """
    if set(members) >= MEGASAM_KEYS:
        return _open_megasam(path, members)
    if set(members) >= DA3_KEYS or {"depth", "conf"} <= set(members):
        return _open_da3(path, members)
    return None


def _open_da3(path: Path, members: dict[str, str]) -> FoundDepth:
    depth = ArrayFrames(path, members["depth"])
    name = f"Depth Anything 3's {path.name}"
    notices = [f"{name}: its scale is unknown (--depth-scale 1 if a metric model wrote it)"]
    frames: ArrayFrames | ConfidentFrames = depth
    if "conf" in members:
        frames = ConfidentFrames(depth, ArrayFrames(path, members["conf"]))
        notices.append(f"{name}: pixels of a confidence below {MIN_CONFIDENCE} are unknown")
    if not set(members) >= DA3_KEYS:
        return FoundDepth(
            frames=frames,
            name=name,
            kind="depth",
            scale="relative",
            notices=tuple(notices),
            squeeze_px=DA3_PATCH_PX,
        )
    cameras, more = cameras_of_frames(read_da3_cameras(path), frames, path.name)
    return FoundDepth(
        frames=frames,
        name=name,
        kind="depth",
        scale="relative",
        K=cameras.K[0].copy(),
        path=cameras,
        notices=(*notices, *more),
        squeeze_px=DA3_PATCH_PX,
    )


def _open_megasam(path: Path, members: dict[str, str]) -> FoundDepth:
    depth = ArrayFrames(path, members["depths"])
    raw = read_megasam_cameras(path)
    height, width = raw.sizes[0]
    frames = UncutFrames(depth, height=height, width=width)
    cameras, more = cameras_of_frames(raw, frames, path.name)
    name = f"MegaSaM's {path.name}"
    notices = [f"{name}: its scale is unknown"]
    if (height, width) != (depth.height, depth.width):
        cut = f"{width - depth.width} px on the right and {height - depth.height} px below"
        notices.append(f"{name}: MegaSaM cut off {cut} of {width}x{height}; depth is unknown there")
    return FoundDepth(
        frames=frames,
        name=name,
        kind="depth",
        scale="relative",
        K=cameras.K[0].copy(),
        path=cameras,
        notices=(*notices, *more),
    )
