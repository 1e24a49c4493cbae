"""Which depth a run uses: the given one, an estimator's, or the layout preview; checked before long work starts."""

from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.core.camera import CameraPath, rebase
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.depth.cache import cached_estimate
from ex4d.depth.estimator import DepthEstimator
from ex4d.depth.layout import LayoutEstimator
from ex4d.depth.mapping import MappedDepthClip, measure_disparity
from ex4d.depth.result import DepthConfig, DepthResult, Selection
from ex4d.errors import DepthError, WeightsError
from ex4d.io.depth.clip import CheckedDepthClip, ResampledDepthClip, check_depth_clip, resize_path
from ex4d.io.depth.files import open_depth
from ex4d.io.depth.raw import RawDepthSource
from ex4d.io.intrinsics import same_aspect, scale_intrinsics
from ex4d.io.rgbd.folder import RgbdInput, is_rgbd_folder, open_rgbd
from ex4d.io.rgbd.poses import select_path

ESTIMATORS: tuple[DepthEstimator, ...] = (LayoutEstimator(),)
"""Built-in estimators, best first; ``auto`` takes the first that is ready, previews last."""


def resolve_depth(
    source: Clip[Video],
    config: DepthConfig,
    *,
    selection: Selection | None = None,
    rgbd: RgbdInput | None = None,
    content_key: str | None = None,
) -> DepthResult:
    """Find, check and map the depth of a clip.

    Args:
        source: the working clip (selected frames, working size).
        config: see `DepthConfig`.
        selection: what `source` is of the whole input; None: all of it.
        rgbd: the recording that `source` comes from, where it is one: its depth counts as given.
        content_key: hash of the working frames if it is known already (saves a pass; see `cached_estimate`).

    Raises:
        DepthError: depth missing, of another count or shape, NaN, infinite, negative, or all invalid.
        WeightsError: the estimator asked for is not ready.
        MissingDependencyError, MediaError, InputError: from the reader of the format.
    """
    whole = selection or Selection(
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        frame_index=np.arange(source.num_frames, dtype=np.int64),
    )
    names = [estimator.name for estimator in ESTIMATORS]
    if config.depth == "auto" and rgbd is not None:
        return _use_rgbd(rgbd, source, whole)
    if config.depth == "auto" or config.depth in names:
        return _use_estimator(_pick_estimator(config.depth), source, config, content_key)
    if not Path(config.depth).exists():
        raise DepthError(
            f"--depth auto, {', '.join(names)}, or a file or folder", f"{config.depth!r}", "check the spelling"
        )
    return _use_file(Path(config.depth), source, config, whole)


def _pick_estimator(option: str) -> DepthEstimator:
    if option == "auto":
        ordered = sorted(ESTIMATORS, key=lambda estimator: estimator.is_preview)
        return next(estimator for estimator in ordered if estimator.ready().ready)
    chosen = next(estimator for estimator in ESTIMATORS if estimator.name == option)
    state = chosen.ready()
    if not state.ready:
        raise WeightsError(f"the depth estimator {option} to be ready", state.reason, state.fix)
    return chosen


def _use_estimator(
    estimator: DepthEstimator, source: Clip[Video], config: DepthConfig, content_key: str | None
) -> DepthResult:
    raw, notices = cached_estimate(estimator, source, enabled=config.cache, content_key=content_key)
    clip, more = _map_raw(raw, config)
    return _fit_to_source(
        raw, clip, source, name=estimator.name, is_preview=estimator.is_preview, notices=(*notices, *more)
    )


def _use_file(path: Path, source: Clip[Video], config: DepthConfig, whole: Selection) -> DepthResult:
    if is_rgbd_folder(path):
        return _use_rgbd(open_rgbd(path), source, whole)
    raw = open_depth(path, kind=config.kind, scale=config.scale)
    index = _match_frames(raw.num_frames, source.num_frames, whole, path.name)
    _check_aspect((raw.height, raw.width), source, whole, path.name)
    chosen = raw.select(index, source.timestamps_s)
    clip, notices = _map_raw(chosen, config)
    return _fit_to_source(chosen, clip, source, name="file", is_preview=False, notices=notices)


def _use_rgbd(rgbd: RgbdInput, source: Clip[Video], whole: Selection) -> DepthResult:
    """Measured depth is used as it is; cameras are rebased on the first frame that was selected."""
    index = _match_frames(rgbd.depth.num_frames, source.num_frames, whole, rgbd.description)
    _check_aspect((rgbd.depth.height, rgbd.depth.width), source, whole, rgbd.description)
    depth = _resample(rgbd.depth, source, index)
    check_depth_clip(depth)
    K, path = _fit_cameras(rgbd.K, rgbd.path, (rgbd.video.height, rgbd.video.width), source, index)
    return DepthResult(
        depth=depth,
        K=K,
        path=path,
        world_to_camera=None if rgbd.world_to_camera is None else rebase(rgbd.world_to_camera[index]),
        name="rgbd",
        description=rgbd.description,
        notices=rgbd.notices,
    )


def _map_raw(raw: RawDepthSource, config: DepthConfig) -> tuple[Clip[DepthVideo], tuple[str, ...]]:
    """Depth as it is, disparity through the mapping; reads the whole clip once, so that bad frames are named now."""
    if raw.kind == "depth":
        checked = CheckedDepthClip(raw=raw, max_depth=config.max_depth)
        check_depth_clip(checked)
        return checked, ()
    statistics = measure_disparity(raw)
    mapped = MappedDepthClip(raw=raw, statistics=statistics, mapping=config.mapping, floor=config.floor)
    if config.mapping == "official":
        text = "disparity mapped to depth as the official release does (nearest 2.564, never metric)"
    else:
        far = 1 / config.floor
        text = f"disparity without an anchor: nearest set to 1, farthest to {far:.1f} (floor {config.floor:g})"
    return mapped, (text,)


def _fit_to_source(
    raw: RawDepthSource,
    clip: Clip[DepthVideo],
    source: Clip[Video],
    *,
    name: str,
    is_preview: bool,
    notices: tuple[str, ...],
) -> DepthResult:
    """Resize, and bring the cameras along."""
    index = np.arange(source.num_frames, dtype=np.int64)
    resized = (raw.height, raw.width) != (source.height, source.width)
    if resized:
        text = f"depth of {raw.width}x{raw.height} resampled (nearest) to {source.width}x{source.height}"
        notices = (*notices, text)
    K, path = _fit_cameras(raw.K, raw.path, (raw.height, raw.width), source, index)
    return DepthResult(
        depth=_resample(clip, source, index),
        K=K,
        path=path,
        name=name,
        description=raw.description,
        is_preview=is_preview,
        notices=(*raw.notices, *notices),
    )


def _fit_cameras(
    K: Float64 | None, path: CameraPath | None, size: tuple[int, int], source: Clip[Video], index: Int64
) -> tuple[Float64 | None, CameraPath | None]:
    """K and cameras of pictures of this (height, width) for the working clip: selected, rebased, scaled."""
    if path is not None:
        path = resize_path(select_path(path, index), source.height, source.width)
        return path.K[0].copy(), path
    if K is not None:
        K = scale_intrinsics(K, from_size=size, to_size=(source.height, source.width))
    return K, None


def _resample(clip: Clip[DepthVideo], source: Clip[Video], index: Int64) -> ResampledDepthClip:
    return ResampledDepthClip(
        clip=clip,
        frame_index=index,
        timestamps_s=source.timestamps_s,
        height=source.height,
        width=source.width,
    )


def _match_frames(num_depth: int, num_source: int, whole: Selection, what: str) -> Int64:
    """Which depth frame belongs to each working frame."""
    if num_depth == whole.num_frames:
        return whole.frame_index
    if num_depth == num_source:
        return np.arange(num_source, dtype=np.int64)
    counts = f"{whole.num_frames}" if whole.num_frames == num_source else f"{whole.num_frames} or {num_source}"
    raise DepthError(
        f"{counts} depth frames, one a video frame, in {what}",
        f"{num_depth}",
        "export one depth map a frame, or choose the frames that have depth with --frames A:B",
    )


def _check_aspect(size: tuple[int, int], source: Clip[Video], whole: Selection, what: str) -> None:
    if same_aspect(size, (whole.height, whole.width)) or same_aspect(size, (source.height, source.width)):
        return
    raise DepthError(
        f"depth of the video's shape ({whole.width}x{whole.height}, or smaller at the same aspect ratio) in {what}",
        f"{size[1]}x{size[0]}",
        "export the depth at the video's size, without cropping or padding",
    )
