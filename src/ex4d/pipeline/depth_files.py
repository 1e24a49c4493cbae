"""What `ex4d depth` measures and shows: numbers a frame, flicker, and a preview with one colour scale a clip."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.depth_codes import encode_depth
from ex4d.core.video import Video
from ex4d.depth.measure import flicker_by_flow, lattice_step
from ex4d.io.depth.clip import nearest_index
from ex4d.io.depth.video import write_z_min
from ex4d.io.encode import LosslessWriter
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter
from ex4d.io.video_frames import resize, shrunk_size
from ex4d.motion.flow import FlowEngine, follow, gray_frame, is_consistent, work_size

PREVIEW_SIDE_PX = 640
"""Longer side of each half of the preview."""
_COLOR_PERCENTILES = (1, 99)
_MEASURES = ("min", "median", "max", "valid_share", "flicker")


def measure_depth(
    source: Clip[Video],
    depth: Clip[DepthVideo],
    writers: Sequence[Callable[[int, DepthVideo], None]],
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """One pass over a clip and its depth: what every frame holds, for ``stats.json``; and every chunk to the writers.

    Args:
        source: the clip.
        depth: frame for frame with it, of the same size.
        writers: each is given the number of a chunk's first frame, and the chunk.
        advance: told how many frames were finished.

    Returns:
        JSON types: ``frames``, a list of {``time_s``, ``min``, ``median``, ``max``: depth of the known pixels;
        ``valid_share``; ``flicker``: see `FlickerMeter`}, where what is not known is None; ``mean``: of each of these
        over the frames; ``nearest``, ``median`` and ``farthest`` of the clip; ``colors``: disparity of the two ends of
        the colour scale; ``scale``.
    """
    frames: list[dict[str, Any]] = []
    disparity: list[Float32] = []
    step = lattice_step(depth.num_frames, depth.height, depth.width)
    meter = FlickerMeter(depth.height, depth.width)
    scale = "relative"
    for start, chunk in iter_chunks(depth):
        video = source.read(start, start + len(chunk))
        for write in writers:
            write(start, chunk)
        scale = chunk.scale
        for slot in range(len(chunk)):
            z, valid = chunk.depth[slot], chunk.valid[slot]
            flicker = meter.next(video.frames[slot], z, valid)
            frames.append({"time_s": float(chunk.timestamps_s[slot]), **_describe(z, valid), "flicker": flicker})
            disparity.append(1 / z[::step, ::step][valid[::step, ::step]])
            advance(1)
    known = np.concatenate(disparity)
    colors = np.percentile(known, _COLOR_PERCENTILES).tolist() if len(known) else [0.0, 1.0]
    return {"scale": scale, **_summary(frames), "colors": colors, "frames": frames}


def _describe(z: Float32, valid: Bool) -> dict[str, float | None]:
    known = z[valid]
    share = len(known) / valid.size
    if not len(known):
        return {"min": None, "median": None, "max": None, "valid_share": share}
    low, middle, high = float(known.min()), float(np.median(known)), float(known.max())
    return {"min": low, "median": middle, "max": high, "valid_share": share}


def _summary(frames: list[dict[str, Any]]) -> dict[str, Any]:
    columns = {name: [frame[name] for frame in frames if frame[name] is not None] for name in _MEASURES}
    return {
        "nearest": min(columns["min"], default=None),
        "median": float(np.median(columns["median"])) if columns["median"] else None,
        "farthest": max(columns["max"], default=None),
        "mean": {name: float(np.mean(column)) if column else None for name, column in columns.items()},
    }


class FlickerMeter:
    """How much the depth of things changes from each frame to the next: `measure.flicker_by_flow` along DIS flow.

    Frames and depth are looked at shrunk to 384 px (depth: nearest sample).

    Args:
        height: px of the frames.
        width: px.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = work_size(height, width)
        self._rows, self._columns = nearest_index(height, self._size[0]), nearest_index(width, self._size[1])
        self._engine = FlowEngine()
        self._last: tuple[UInt8, Float32, Bool] | None = None

    def next(self, frame: UInt8, z: Float32, valid: Bool) -> float | None:
        """Flicker from the frame before to this one.

        Args:
            frame: uint8 [H,W,3].
            z: float32 [H,W], depth.
            valid: bool [H,W].

        Returns:
            Median |Δ log z|, 0.01 for 1 %; None for the first frame, and where no known point could be followed.
        """
        at = np.ix_(self._rows, self._columns)
        now = gray_frame(frame, self._size), z[at], valid[at]
        before, self._last = self._last, now
        if before is None:
            return None
        back, there = self._engine.flow(now[0], before[0]), self._engine.flow(before[0], now[0])
        was_known = follow(back, before[2].astype(np.float32)) > 0.99
        use = is_consistent(back, there) & now[2] & was_known
        flicker = flicker_by_flow(before[1], now[1], back, use)
        return None if math.isnan(flicker) else flicker


def color_disparity(z: Float32, valid: Bool, ends: Sequence[float]) -> UInt8:
    """uint8 [H,W,3]: 1 / z in OpenCV's TURBO from blue (far) to red (near); black where it is unknown.

    Args:
        z: float32 [H,W], depth.
        valid: bool [H,W].
        ends: disparity of both ends of the scale, the same for all frames of a clip.
    """
    low, high = ends
    disparity = 1 / np.where(valid, z, np.float32(1))
    share = (disparity - np.float32(low)) / np.float32(max(high - low, 1e-6 * high))
    codes = (255 * np.clip(share, 0, 1) + 0.5).astype(np.uint8)
    colors = cv2.applyColorMap(codes, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(valid[..., None], colors, np.uint8(0))


def write_preview(
    path: Path,
    source: Clip[Video],
    depth: Clip[DepthVideo],
    *,
    ends: Sequence[float],
    fps: Fraction,
    advance: Callable[[int], None],
) -> None:
    """The clip beside its depth in colours (see `color_disparity`), each at most 640 px on its longer side."""
    height, width = shrunk_size(source.height, source.width, PREVIEW_SIDE_PX)
    rows, columns = nearest_index(depth.height, height), nearest_index(depth.width, width)
    at = np.ix_(rows, columns)
    settings = DeliverySettings(crf=20, preset="veryfast")
    with DeliveryWriter(path, height=height, width=2 * width, fps=fps, settings=settings) as writer:
        for start, chunk in iter_chunks(depth):
            video = source.read(start, start + len(chunk))
            shown = [
                np.concatenate([resize(frame, height, width), color_disparity(z[at], valid[at], ends)], axis=1)
                for frame, z, valid in zip(video.frames, chunk.depth, chunk.valid, strict=True)
            ]
            writer.write(np.stack(shown), chunk.timestamps_s)
            advance(len(chunk))


def write_depth_video(
    path: Path, depth: Clip[DepthVideo], *, z_min: float, fps: Fraction, advance: Callable[[int], None]
) -> None:
    """FFV1 gray16 of `core.depth_codes`, and beside it the JSON that says so (`io.depth.video.write_z_min`)."""
    scale = "relative"
    with LosslessWriter(path, "gray16", height=depth.height, width=depth.width, fps=fps) as writer:
        for _, chunk in iter_chunks(depth):
            scale = chunk.scale
            writer.write(encode_depth(chunk.depth, chunk.valid, z_min), chunk.timestamps_s)
            advance(len(chunk))
    write_z_min(path, z_min, scale)
