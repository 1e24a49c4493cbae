"""Depth from a moving camera: flow to frames before and after, triangulated with known cameras. No weights.

A neighbour is first turned into the view's own direction (infinite homography K R K⁻¹), so that what is left is
parallax: a pixel x of inverse depth w goes to x + w K t, up to scale. w follows from the flow in closed form, and how
far the flow misses that line says what moves by itself. Hartley & Zisserman, Multiple View Geometry, 9.5 and 13.4.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.edge_aware import complete
from ex4d.depth.parallax_edges import sharpen
from ex4d.motion.flow import FlowEngine, follow, iter_gray, round_trip_px, work_size
from ex4d.motion.landmarks import Landmarks

REACH = 32
"""How many frames before and after are looked at."""
_TARGETS_PX = (8.0, 22.0)
"""Wanted parallax of the neighbours on each side: a near one that sees the same, a far one that tells depths apart."""
_MAX_TURN_RAD = np.radians(25)
_ROUND_TRIP_PX = 1.5
_OFF_LINE_PX = 1.5
_FLOW_ERROR_PX = 0.3
_MIN_RELATIVE_ERROR = 0.03
_SHARPENED_ERROR = 0.1
_AHEAD = 2
"""Frames looked at side by side, while the one before them is used; flow and array work hold no GIL."""
MOVING = 0.5
"""`ParallaxFrame.moving` from here on: not to be believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallaxFrame:
    """What parallax says about one frame, at working size.

    Attributes:
        disparity: float32 [h,w], 1/z in the unit of the cameras; 0 where nothing is known.
        error: float32 [h,w], expected standard deviation of `disparity` (flow good to 0.3 px); infinite where unknown.
        moving: float32 [h,w], 0 to 1: how many of the neighbours in view say that this moves by itself.
        gray: uint8 [h,w].
    """

    disparity: Float32
    error: Float32
    moving: Float32
    gray: UInt8

    @property
    def weight(self) -> Float32:
        """float32 [h,w]: 1 / (error as a share of the disparity, at least 3 %)²; 0 from 100 % on, and where moving."""
        usable = (self.error < self.disparity) & (self.moving < MOVING)
        share = self.error / np.maximum(self.disparity, np.float32(1e-9))
        return np.where(usable, 1 / np.maximum(share, np.float32(_MIN_RELATIVE_ERROR)) ** 2, 0).astype(np.float32)

    def completed(self) -> Float32:
        """float32 [h,w]: disparity everywhere, continued from what stands still."""
        return complete(self.disparity, self.weight, self.gray)


@dataclass(frozen=True, slots=True)
class _Neighbor:
    """A frame turned into the view's direction."""

    gray: UInt8
    inside: Bool
    shift: Float64  # K t, px: where the view's pixels go, times inverse depth


def measure_parallax(source: Clip[Video], path: CameraPath, landmarks: Landmarks) -> Iterator[ParallaxFrame]:
    """Parallax of every frame, in order; holds about 65 small frames, whatever the clip's length.

    Args:
        source: the clip.
        path: its cameras, one a frame.
        landmarks: say how far the scene is, so that neighbours of a useful distance are chosen.
    """
    size = work_size(source.height, source.width)
    scale = np.array([size[1] / path.width, size[0] / path.height, 1.0])
    cameras = _Cameras(K=path.K * scale[:, None], world_to_camera=path.world_to_camera, landmarks=landmarks)
    engines = threading.local()
    grays: deque[UInt8] = deque()
    frames = iter_gray(source, size)
    first = 0

    def look(held: dict[int, UInt8], index: int, chosen: Sequence[int], middle_depth: float) -> ParallaxFrame:
        if not hasattr(engines, "flow"):
            engines.flow = FlowEngine()
        neighbors = [_turn(cameras, held[other], index, other) for other in chosen]
        return _look(engines.flow, held[index], neighbors, middle_depth)

    pending: deque[Future[ParallaxFrame]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="ex4d-parallax") as pool:
        for index in range(source.num_frames):
            while first + len(grays) < min(index + REACH + 1, source.num_frames):
                grays.append(next(frames))
            while first < index - REACH:
                grays.popleft()
                first += 1
            held = {first + i: gray for i, gray in enumerate(grays)}
            chosen = cameras.choose(index, range(first, first + len(grays)))
            pending.append(pool.submit(look, held, index, chosen, cameras.last_depth))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@dataclass(slots=True, kw_only=True)
class _Cameras:
    """Cameras at working size, and how far the scene is."""

    K: Float64
    world_to_camera: Float64
    landmarks: Landmarks
    last_depth: float = 1.0

    def relative(self, index: int, other: int) -> tuple[Float64, Float64]:
        """Rotation [3,3] and translation [3] from a frame's camera to another's."""
        a, b = self.world_to_camera[index], self.world_to_camera[other]
        rotation = b[:3, :3] @ a[:3, :3].T
        return rotation, b[:3, 3] - rotation @ a[:3, 3]

    def middle_depth(self, index: int) -> float:
        """Median depth of the landmarks in a frame; that of the last frame where it sees none."""
        _, depth = self.landmarks.seen(index)
        if len(depth) >= 8:
            self.last_depth = float(np.median(depth))
        return self.last_depth

    def choose(self, index: int, num_frames: range) -> list[int]:
        """The neighbours: on each side, those whose parallax comes nearest to each target."""
        middle, chosen = self.middle_depth(index), set[int]()
        for side in (-1, 1):
            usable: dict[int, float] = {}
            for step in range(1, REACH + 1):
                other = index + side * step
                if other not in num_frames:
                    break
                rotation, translation = self.relative(index, other)
                if np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)) > _MAX_TURN_RAD:
                    break
                x, y, z = rotation.T @ translation
                usable[other] = float(self.K[index, 0, 0] / middle * np.hypot(np.hypot(x, y), 0.25 * z))
            for target in _TARGETS_PX:
                if usable:
                    chosen.add(min(usable, key=lambda other: abs(np.log(max(usable[other], 1e-3) / target))))
        return sorted(chosen)


def _look(engine: FlowEngine, gray: UInt8, neighbors: Sequence[_Neighbor], middle_depth: float) -> ParallaxFrame:
    measured = [_measure(engine, gray, neighbor, 1 / middle_depth) for neighbor in neighbors]
    if not measured:
        nothing = np.zeros(gray.shape, np.float32)
        return ParallaxFrame(disparity=nothing, error=nothing + np.inf, moving=nothing, gray=gray)
    disparity = np.stack([m.disparity for m in measured])
    weight = np.stack([m.weight for m in measured])
    fused = weighted_median(disparity, weight)
    total = weight.sum(axis=0)
    known = total > 0
    in_view = np.sum([m.followed for m in measured], axis=0)
    off = np.sum([m.off_line for m in measured], axis=0)
    with np.errstate(divide="ignore"):
        error = np.where(known, _FLOW_ERROR_PX / np.sqrt(total), np.inf)
    frame = ParallaxFrame(
        disparity=np.where(known, fused, 0).astype(np.float32),
        error=error.astype(np.float32),
        moving=(off / np.maximum(in_view, 1)).astype(np.float32),
        gray=gray,
    )
    return _sharpen(frame, [(neighbor.gray, neighbor.shift) for neighbor in neighbors])


def _sharpen(frame: ParallaxFrame, neighbors: list[tuple[UInt8, Float64]]) -> ParallaxFrame:
    """Put pixels near edges on the right side; those count as known."""
    full = frame.completed()
    sharp = sharpen(full, frame.gray, neighbors)
    changed = sharp != full
    error = np.minimum(frame.error, np.float32(_SHARPENED_ERROR) * sharp)
    return replace(
        frame,
        disparity=np.where(changed, sharp, frame.disparity).astype(np.float32),
        error=np.where(changed, error, frame.error).astype(np.float32),
    )


def _turn(cameras: _Cameras, gray: UInt8, index: int, other: int) -> _Neighbor:
    rotation, translation = cameras.relative(index, other)
    K = cameras.K[index]
    homography = cameras.K[other] @ rotation @ np.linalg.inv(K)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ homography @ half  # OpenCV counts from pixel centres
    size = gray.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpPerspective(gray, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpPerspective(np.ones_like(gray), matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return _Neighbor(np.asarray(turned, np.uint8), inside > 0, K @ rotation.T @ translation)


@dataclass(frozen=True, slots=True)
class _Measurement:
    disparity: Float32
    weight: Float32  # (px of motion a unit of disparity)²; 0 where not to be believed
    followed: Bool  # flow agrees there and back, inside of the neighbour
    off_line: Bool  # ... and leads away from where anything that stands still could be


def _measure(engine: FlowEngine, gray: UInt8, neighbor: _Neighbor, inverse_middle: float) -> _Measurement:
    """Inverse depth of each pixel from its flow to one neighbour."""
    forward, backward = engine.flow(gray, neighbor.gray), engine.flow(neighbor.gray, gray)
    height, width = gray.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    a, b, c = (np.float32(value) for value in neighbor.shift)
    u, v = forward[..., 0], forward[..., 1]
    # The pixel x' = x + flow lies on the line from x towards the epipole: x' ~ x + w (a, b, c).
    p, q = a - c * (x + u), b - c * (y + v)
    square = np.maximum(p * p + q * q, 1e-12)
    disparity = (u * p + v * q) / square
    off_px = np.abs(u * q - v * p) / np.sqrt(square)
    stretch = 1 + disparity * c
    followed = (round_trip_px(forward, backward) < _ROUND_TRIP_PX) & neighbor.inside
    followed &= np.nan_to_num(follow(forward, neighbor.inside.astype(np.float32))) > 0.9
    backwards_px = -disparity * np.sqrt(square)
    off_line = followed & ((off_px > 2 * _OFF_LINE_PX) | (backwards_px > 2 * _OFF_LINE_PX))
    good = followed & (off_px < _OFF_LINE_PX) & (disparity > -0.05 * inverse_middle) & (stretch > 0.1)
    weight = np.where(good, square / np.maximum(stretch, 0.1) ** 2, 0).astype(np.float32)
    return _Measurement(np.maximum(disparity, 0).astype(np.float32), weight, followed, off_line)


def weighted_median(values: Float32, weights: Float32) -> Float32:
    """float32 [h,w]: of values [n,h,w] with weights [n,h,w] >= 0; the smallest value where all weights are 0."""
    order = np.argsort(values, axis=0)
    total = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    below = (total < 0.5 * total[-1:]).sum(axis=0)
    chosen = np.take_along_axis(order, np.minimum(below, len(values) - 1)[None], axis=0)
    return np.take_along_axis(values, chosen, axis=0)[0]
