"""Simulated masks of a clip: what a training pair hides. Pure functions of clip, depth, cameras, settings and seed.

EX-4D (arXiv 2506.05554) trains on ordinary video: the clip is the target, and the model sees clip × survived. Its code
for masks was never released; `rendering` and `tracking` say what is done here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from ex4d.core.arrays import Bool, UInt8, check_array
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.seeding import make_rng
from ex4d.core.video import Video
from ex4d.errors import CameraPathError, DepthError, InputError
from ex4d.masking.config import MaskConfig
from ex4d.masking.morphology import reshape
from ex4d.masking.paths import MaskPath, draw_path
from ex4d.masking.rendering import RoundTrip, rendering_survived
from ex4d.masking.tracker import Tracker, make_tracker
from ex4d.masking.tracking import LEAST_TEXTURED, Places, carry_labels, find_places
from ex4d.motion.flow import work_size

MaskKind = Literal["rendering", "tracking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMasks:
    """What of a clip survives.

    Attributes:
        survived: bool [T,H,W], True where the model may see the clip's pixel.
        kind: ``rendering`` (a camera that moves away from the clip's), ``tracking`` (regions that follow the content).
        description: JSON types: how it was made (``kind``, ``seed``, ``style``, ``cam``, ``pivot``, ``pivot_depth``,
            ``erode_px``, ``dilate_px``; of tracking masks ``keyframe``, ``moment``, ``tracker``, ``licence``), and
            ``notices``, a list of what people should know.
    """

    survived: Bool
    kind: MaskKind
    description: dict[str, Any]

    def __post_init__(self) -> None:
        check_array("SimulatedMasks.survived", self.survived, np.bool_, (None, None, None))


def simulate_masks(
    source: Clip[Video],
    depth: Clip[DepthVideo],
    source_path: CameraPath,
    *,
    config: MaskConfig,
    seed: int,
    tracker: Tracker | None = None,
    num_threads: int = 1,
) -> SimulatedMasks:
    """Draw a mask for a clip. Equal arguments give equal bytes, in any process and on any number of threads.

    Args:
        source: the clip, at least 2 frames.
        depth: frame for frame with it, of the same size; every frame with a valid pixel.
        source_path: its cameras in the unit of the depth, one a frame.
        config: what is drawn from; its `rendering_share` decides the kind.
        seed: of the mask; another one for each mask of a clip.
        tracker: what follows points; default: the one that `config` names, made for tracking masks only.
        num_threads: that frames are rendered on.

    Raises:
        InputError: fewer than 2 frames.
        DepthError: a depth of another size or length, or a frame without a valid pixel.
        CameraPathError: cameras of another number or size, or no valid depth where the pivot looks.
        MissingDependencyError, WeightsError: an optional tracker is not ready.
    """
    _check(source, depth, source_path)
    first = depth.read(0, 1)
    path = draw_path(first.depth[0], first.valid[0], source_path, config=config, seed=seed)
    kind = draw_kind(config, seed)
    if kind == "rendering":
        survived = rendering_survived(
            source, depth, source_path, path.cameras, geometry=config.geometry, num_threads=num_threads
        )
        made: dict[str, Any] = {"notices": []}
    else:
        tracker = make_tracker(config.tracker) if tracker is None else tracker
        survived, made = _tracking(source, depth, source_path, path, config, seed, tracker)
    survived, sizes = reshape(survived, config=config, seed=seed)
    description = {"kind": kind, "seed": seed, **path.describe(), **sizes, **made}
    return SimulatedMasks(survived=survived, kind=kind, description=description)


def mask_seed(seed: int, *names: str | float) -> int:
    """The seed of one mask of many: from that of a run and the names of clip and mask."""
    return int(make_rng(seed, "masks", "of", *map(str, names)).integers(2**62))


def draw_kind(config: MaskConfig, seed: int) -> MaskKind:
    """The kind of mask that a seed has."""
    return "rendering" if make_rng(seed, "masks", "kind").random() < config.rendering_share else "tracking"


def _check(source: Clip[Video], depth: Clip[DepthVideo], source_path: CameraPath) -> None:
    if source.num_frames < 2:
        raise InputError("a clip of at least 2 frames to simulate masks on", "1 frame", "choose a longer part of it")
    shape = (source.num_frames, source.height, source.width)
    of_depth = (depth.num_frames, depth.height, depth.width)
    if of_depth != shape:
        raise DepthError(f"depth of {_size(shape)}, as the clip", _size(of_depth), "use the clip's own depth")
    of_path = (len(source_path), source_path.height, source_path.width)
    if of_path != shape:
        raise CameraPathError(f"source cameras of {_size(shape)}, one a frame", _size(of_path), "use the clip's own")


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[2]}x{shape[1]}"


def _tracking(
    source: Clip[Video],
    depth: Clip[DepthVideo],
    source_path: CameraPath,
    path: MaskPath,
    config: MaskConfig,
    seed: int,
    tracker: Tracker,
) -> tuple[Bool, dict[str, Any]]:
    """Labels of a rendering mask at a random moment of the path, set in a keyframe and carried through the clip.

    Moment and keyframe are drawn apart: the labels are spread as the frames of rendering masks are, wherever they are
    set.
    """
    rng = make_rng(seed, "masks", "keyframe")
    moment, drawn = (int(rng.integers(source.num_frames)) for _ in range(2))
    keyframe = 0 if config.keyframe == "first" else drawn
    frame, maps = source.read(keyframe, keyframe + 1).frames[0], depth.read(keyframe, keyframe + 1)
    # the move of that moment, taken from the keyframe's own camera
    camera = source_path[keyframe]
    move = path.cameras[moment].world_to_camera @ source_path[moment].camera_to_world
    other = replace(camera, world_to_camera=move @ camera.world_to_camera)
    labels = RoundTrip(config.geometry).survived(frame, maps.depth[0], maps.valid[0], camera=camera, other=other)
    places = find_places(
        small_frames(source, config.track_side_px),
        tracker,
        keyframe=keyframe,
        restart_frames=config.restart_frames,
        grid_step_px=config.grid_step_px,
    )
    made = {"keyframe": keyframe, "moment": moment, "tracker": tracker.name, "licence": tracker.licence}
    return carry_labels(labels, maps.valid[0], places), {**made, "notices": _notices(places, tracker)}


def _notices(places: Places, tracker: Tracker) -> list[str]:
    notices = [] if tracker.name == "dis" else [f"tracker {tracker.name}: licence {tracker.licence}"]
    if places.textured < LEAST_TEXTURED:
        notices.append("the clip has no texture to follow: its tracking masks stand still")
    if places.lost:
        shown = ", ".join(map(str, places.lost[:8])) + (", …" if len(places.lost) > 8 else "")
        notices.append(f"nothing could be followed into frames {shown} (a cut?): the mask stays where it was there")
    return notices


def small_frames(source: Clip[Video], side_px: int) -> UInt8:
    """uint8 [T,h,w,3]: a whole clip with its longer side at most `side_px`."""
    height, width = work_size(source.height, source.width, side_px)
    frames = np.empty((source.num_frames, height, width, 3), np.uint8)
    for start, chunk in iter_chunks(source):
        for slot, frame in enumerate(chunk.frames, start):
            frames[slot] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return frames
