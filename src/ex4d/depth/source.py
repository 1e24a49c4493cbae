"""Which depth a run uses: the given one or an estimator's; how it is mapped, anchored and fitted to the clip.

In two steps, because cameras may be looked for between them: `find_depth` opens or estimates, `finish_depth` maps.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.core.camera import CameraPath, rebase
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.depth.anchor import Anchor, AnchoredDepthClip, fit_anchor, landmark_anchor, metric_anchor
from ex4d.depth.cache import cached_estimate
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.mapping import DEFAULT_SKY_FACTOR, MappedDepthClip, measure_disparity
from ex4d.depth.registry import AUTO, AUTO_ANCHORS, ESTIMATORS, METRIC, find_estimator
from ex4d.depth.result import DepthConfig, DepthResult, Selection
from ex4d.depth.snap import SnappedDepthClip
from ex4d.errors import ConfigError, DepthError, WeightsError
from ex4d.io.depth.clip import CheckedDepthClip, ResampledDepthClip, check_depth_clip, resize_path
from ex4d.io.depth.files import open_depth
from ex4d.io.depth.raw import RawDepthSource
from ex4d.io.intrinsics import same_aspect, scale_intrinsics
from ex4d.io.rgbd.folder import RgbdInput, is_rgbd_folder, open_rgbd
from ex4d.io.rgbd.poses import select_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDepth:
    """Depth before it is mapped.

    Attributes:
        raw: as it was given or estimated, frame for frame with the clip; None for a recording.
        measured: of a recording, at the clip's size; None otherwise.
        K: see `DepthResult`.
        path: see `DepthResult`.
        world_to_camera: see `DepthResult`.
        name: ``"file"``, ``"rgbd"`` or the estimator's name.
        description: for people.
        is_preview: True for stand-ins.
        is_estimate: True where something looked at the pictures: blurred along outlines, at a size of its own.
        notices: what was assumed or substituted.
    """

    raw: RawDepthSource | None
    measured: Clip[DepthVideo] | None = None
    K: Float64 | None
    path: CameraPath | None
    world_to_camera: Float64 | None = None
    name: str
    description: str
    is_preview: bool = False
    is_estimate: bool = False
    notices: tuple[str, ...] = field(default=())

    @property
    def wants_anchor(self) -> bool:
        """Whether scale and shift are open."""
        return self.raw is not None and self.raw.kind == "disparity"


def pick_estimator(option: str, *, has_depth: bool = False) -> DepthEstimator | None:
    """The estimator behind ``--depth``; None where depth is given.

    Args:
        option: ``auto``, a name, or a path.
        has_depth: whether the input brings depth of its own, which ``auto`` takes.

    Raises:
        WeightsError: the estimator asked for is not ready.
        DepthError: neither a name nor a path of something that exists.
    """
    if option == "auto":
        return None if has_depth else next(e for e in map(find_estimator, AUTO) if e.ready().ready)
    names = [estimator.name for estimator in ESTIMATORS]
    if option not in names:
        if not Path(option).exists():
            raise DepthError(
                f"--depth auto, {', '.join(names)}, or a file or folder", f"{option!r}", "check the spelling"
            )
        return None
    chosen = find_estimator(option)
    check_estimator(chosen)
    return chosen


def check_estimator(estimator: DepthEstimator) -> None:
    """Raise `WeightsError` naming what an estimator lacks and the command that gets it; asks no network."""
    state = estimator.ready()
    if not state.ready:
        raise WeightsError(f"the depth estimator {estimator.name} to be ready", state.reason, state.fix)


def resolve_depth(
    source: Clip[Video],
    config: DepthConfig,
    *,
    selection: Selection | None = None,
    rgbd: RgbdInput | None = None,
    content_key: str | None = None,
    request: EstimateRequest | None = None,
    scratch: Path | None = None,
) -> DepthResult:
    """Find, check and map the depth of a clip whose cameras nobody looks for; see `find_depth`, `finish_depth`."""
    request = request or EstimateRequest()
    estimator = pick_estimator(config.depth, has_depth=rgbd is not None)
    found = find_depth(
        source, config, estimator, selection=selection, rgbd=rgbd, content_key=content_key, request=request,
        scratch=scratch or Path(),
    )  # fmt: skip
    return finish_depth(found, source, config, request=request)


def find_depth(
    source: Clip[Video],
    config: DepthConfig,
    estimator: DepthEstimator | None,
    *,
    request: EstimateRequest,
    scratch: Path,
    selection: Selection | None = None,
    rgbd: RgbdInput | None = None,
    content_key: str | None = None,
) -> FoundDepth:
    """Open given depth, or estimate it.

    Args:
        source: the working clip (selected frames, working size).
        config: see `DepthConfig`.
        estimator: from `pick_estimator`.
        request: what the estimator is told.
        scratch: folder for estimates that are not cached.
        selection: what `source` is of the whole input; None: all of it.
        rgbd: the recording that `source` comes from, where it is one: its depth counts as given.
        content_key: hash of the working frames if it is known already (saves a pass; see `cached_estimate`).

    Raises:
        DepthError: depth missing, of another count or shape, NaN, infinite, negative, or all invalid.
        WeightsError: weights are damaged or not the right ones.
        MissingDependencyError, MediaError, InputError: from the reader of the format.
    """
    whole = selection or Selection(
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        frame_index=np.arange(source.num_frames, dtype=np.int64),
    )
    if estimator is not None:
        raw, notices = cached_estimate(
            estimator, source, request, scratch=scratch, enabled=config.cache, content_key=content_key
        )
        return _found(
            raw, source, estimator.name, notices, is_preview=estimator.is_preview, is_estimate=not estimator.is_instant
        )
    if config.depth == "auto":
        assert rgbd is not None, "without an estimator, auto needs a recording"
        return _use_rgbd(rgbd, source, whole)
    path = Path(config.depth)
    if is_rgbd_folder(path):
        return _use_rgbd(open_rgbd(path), source, whole)
    raw = open_depth(path, kind=config.kind, scale=config.scale)
    index = _match_frames(raw.num_frames, source.num_frames, whole, path.name)
    _check_aspect((raw.height, raw.width), source, whole, path.name, step_px=raw.squeeze_px)
    return _found(raw.select(index, source.timestamps_s), source, "file", ())


def _found(
    raw: RawDepthSource,
    source: Clip[Video],
    name: str,
    notices: tuple[str, ...],
    *,
    is_preview: bool = False,
    is_estimate: bool = False,
) -> FoundDepth:
    """With K and cameras for the working clip."""
    index = np.arange(source.num_frames, dtype=np.int64)
    K, path = _fit_cameras(raw.K, raw.path, (raw.height, raw.width), source, index)
    return FoundDepth(
        raw=raw,
        K=K,
        path=path,
        name=name,
        description=raw.description,
        is_preview=is_preview,
        is_estimate=is_estimate,
        notices=(*raw.notices, *notices),
    )


def _use_rgbd(rgbd: RgbdInput, source: Clip[Video], whole: Selection) -> FoundDepth:
    """Measured depth is used as it is; cameras are rebased on the first frame that was selected."""
    index = _match_frames(rgbd.depth.num_frames, source.num_frames, whole, rgbd.description)
    _check_aspect((rgbd.depth.height, rgbd.depth.width), source, whole, rgbd.description)
    depth = _resample(rgbd.depth, source, index)
    check_depth_clip(depth)
    K, path = _fit_cameras(rgbd.K, rgbd.path, (rgbd.video.height, rgbd.video.width), source, index)
    return FoundDepth(
        raw=None,
        measured=depth,
        K=K,
        path=path,
        world_to_camera=None if rgbd.world_to_camera is None else rebase(rgbd.world_to_camera[index]),
        name="rgbd",
        description=rgbd.description,
        notices=rgbd.notices,
    )


def finish_depth(
    found: FoundDepth, source: Clip[Video], config: DepthConfig, *, request: EstimateRequest
) -> DepthResult:
    """Map disparity to depth, and fit depth to the clip.

    Args:
        found: from `find_depth`.
        source: the working clip.
        config: see `DepthConfig`.
        request: what is known of the clip by now: landmarks anchor disparity, and a metric estimator is told K.

    Raises:
        DepthError: NaN, infinite or negative depth, or disparity without any contrast; the frame is named.
        WeightsError: the anchor asked for is not ready.
    """
    raw, notices = found.raw, found.notices
    if raw is None:
        assert found.measured is not None
        depth = found.measured
    else:
        clip, more = _map_raw(raw, source, config, request)
        notices = (*notices, *more)
        same_size = (raw.height, raw.width) == (source.height, source.width)
        if found.is_estimate and config.snap:
            depth = SnappedDepthClip(
                clip=clip, timestamps_s=source.timestamps_s, height=source.height, width=source.width
            )
        else:
            depth = _resample(clip, source, np.arange(source.num_frames, dtype=np.int64))
            if not same_size:
                text = f"depth of {raw.width}x{raw.height} resampled (nearest) to {source.width}x{source.height}"
                notices = (*notices, text)
    return DepthResult(
        depth=depth,
        K=found.K,
        path=found.path,
        world_to_camera=found.world_to_camera,
        name=found.name,
        description=found.description,
        is_preview=found.is_preview,
        notices=notices,
    )


def _map_raw(
    raw: RawDepthSource, source: Clip[Video], config: DepthConfig, request: EstimateRequest
) -> tuple[Clip[DepthVideo], tuple[str, ...]]:
    """Depth as it is, disparity through the mapping; reads the whole clip once, so that bad frames are named now."""
    if raw.kind == "depth":
        checked = CheckedDepthClip(raw=raw, max_depth=config.max_depth, sky_depth=_sky_depth(raw))
        check_depth_clip(checked)
        return checked, ()
    statistics = measure_disparity(raw)
    refused: tuple[str, ...] = ()
    if config.mapping == "floor":
        anchor = find_anchor(source, config, request)
        fit = None if anchor is None else fit_anchor(raw, anchor, (source.height, source.width))
        if anchor is not None and fit is not None:
            unit = "metres" if anchor.scale == "metric" else "the unit of the cameras"
            text = f"disparity anchored to {anchor.name} ({len(anchor.depth)} points): one scale and shift, in {unit}"
            return AnchoredDepthClip(raw=raw, fit=fit, scale=anchor.scale), (text,)
        if anchor is not None:
            refused = (f"the anchor ({anchor.name}) does not fit the disparity and is not used",)
    mapped = MappedDepthClip(raw=raw, statistics=statistics, mapping=config.mapping, floor=config.floor)
    if config.mapping == "official":
        text = "disparity mapped to depth as the official release does (nearest 2.564, never metric)"
    else:
        far = 1 / config.floor
        text = f"disparity without an anchor: nearest set to 1, farthest to {far:.1f} (floor {config.floor:g})"
    return mapped, (*refused, text)


def _sky_depth(raw: RawDepthSource) -> float | None:
    """Where sky goes: beyond the farthest surface of the clip; None where the source does not know sky."""
    farthest = 0.0
    for _, chunk in iter_chunks(raw):
        if chunk.sky is None:
            return None
        surface = chunk.values[~chunk.sky & np.isfinite(chunk.values)]
        farthest = max(farthest, float(surface.max(initial=0.0)))
    return DEFAULT_SKY_FACTOR * farthest if farthest > 0 else None


def find_anchor(source: Clip[Video], config: DepthConfig, request: EstimateRequest) -> Anchor | None:
    """What ties disparity to depth, by ``config.anchor``.

    Raises:
        WeightsError: the estimator asked for is not ready.
        ConfigError: no estimator of that name knows metres.
    """
    if config.anchor == "none":
        return None
    if config.anchor not in ("auto", "landmarks"):
        if config.anchor not in METRIC:
            raise ConfigError(f"--depth-anchor auto, none, landmarks, {', '.join(METRIC)}", repr(config.anchor))
        estimator = find_estimator(config.anchor)
        check_estimator(estimator)
        return metric_anchor(estimator, source, request)
    if config.anchor == "auto":
        ready = next((e for e in map(find_estimator, AUTO_ANCHORS) if e.ready().ready), None)
        if ready is not None:
            return metric_anchor(ready, source, request)
    return None if request.landmarks is None else landmark_anchor(request.landmarks, source.num_frames)


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


def _check_aspect(size: tuple[int, int], source: Clip[Video], whole: Selection, what: str, *, step_px: int = 0) -> None:
    sizes = (whole.height, whole.width), (source.height, source.width)
    if any(same_aspect(size, other, step_px=step_px) for other in sizes):
        return
    raise DepthError(
        f"depth of the video's shape ({whole.width}x{whole.height}, or smaller at the same aspect ratio) in {what}",
        f"{size[1]}x{size[0]}",
        "export the depth at the video's size, without cropping or padding",
    )
