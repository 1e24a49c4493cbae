"""One clip to samples: what runs in the process that may be ended (`jobs.child`)."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ex4d.core.arrays import Bool
from ex4d.core.clip import ArrayClip
from ex4d.core.seeding import make_rng
from ex4d.errors import CameraPathError, DepthError, InputError, MediaError, OutOfMemoryError
from ex4d.io.atomic import output_error
from ex4d.masking.simulate import simulate_masks
from ex4d.prepare.clock import Seconds, StageClock
from ex4d.prepare.config import FILES, PrepareConfig
from ex4d.prepare.encode import SampleFiles, encode_files
from ex4d.prepare.gates import black_share, measure, perceptual_hash, refusal
from ex4d.prepare.geometry import SegmentGeometry, all_frames, depth_beside, find_geometry
from ex4d.prepare.items import Item, open_item
from ex4d.prepare.refused import Left, Refused
from ex4d.prepare.segments import Segment, SegmentReader

_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSettings:
    """What a worker is told once.

    Attributes:
        config: of the dataset.
        depth: name of the estimator that ``auto`` stands for, or `FILES`.
        root: what paths of items are relative to.
        scratch: folder for files while they are made.
    """

    config: PrepareConfig
    depth: str
    root: Path
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What became of a clip.

    Attributes:
        samples: in order of time.
        left: what is not among them, and why.
        seconds: spent, by stage.
    """

    samples: tuple[SampleFiles, ...]
    left: tuple[Left, ...]
    seconds: Seconds


def make_handler(settings: ItemSettings) -> "ItemWorker":
    """For `jobs.child.ChildSpec`."""
    cv2.setNumThreads(1)  # as many workers run as there are processors
    return ItemWorker(settings)


class ItemWorker:
    """Makes samples of one clip after the other."""

    def __init__(self, settings: ItemSettings) -> None:
        self._settings = settings

    def __call__(self, item: Item) -> ItemResult:
        """Samples of a clip. What is wrong with the clip is in the result, nothing else is.

        Raises:
            OutputError, WeightsError, MissingDependencyError, ConfigError: no other clip would fare better.
            MemoryError: it needs more than there is.
        """
        clock = StageClock()
        samples: list[SampleFiles] = []
        left: list[Left] = []
        try:
            self._check_scores(item)
            with open_item(self._settings.root, item, self._settings.scratch) as path:
                self._segments(item, path, clock, samples, left)
            if not samples and not left:
                lengths = sorted({size[0] for size in self._settings.config.buckets.sizes()})
                raise Refused("short", f"no shot of at least {lengths[0]} frames")
        except Exception as error:  # noqa: BLE001 - sorted by `_reason`, which raises what is not the clip's fault
            # what was readable before the damage is not worth a dataset that depends on how far a decoder got
            samples.clear()
            left.append(Left(item=item.name, segment=None, reason=self._reason(error), text=_words(error)))
        return ItemResult(samples=tuple(samples), left=tuple(left), seconds=clock.seconds)

    def _check_scores(self, item: Item) -> None:
        for name, floor in self._settings.config.gates.score_floors().items():
            value = item.scores.get(name)
            if value is None or value < floor:
                raise Refused("score", f"{name} is {'not given' if value is None else f'{value:g}'}, wanted {floor:g}")

    def _segments(
        self, item: Item, path: Path, clock: StageClock, samples: list[SampleFiles], left: list[Left]
    ) -> None:
        config = self._settings.config
        with SegmentReader(path, item, config.buckets, cut_threshold=config.gates.cut_threshold, timed=clock) as reader:
            for segment in reader:
                try:
                    samples.append(self._sample(item, reader, segment, clock))
                except Exception as error:  # noqa: BLE001 - as above
                    reason = self._reason(error)
                    left.append(Left(item=item.name, segment=segment.number, reason=reason, text=_words(error)))

    def _sample(self, item: Item, reader: SegmentReader, segment: Segment, clock: StageClock) -> SampleFiles:
        config, key = self._settings.config, item.key(segment.number)
        with clock("gates"):
            scores, phash = self._judge(segment)
        with clock("depth"):
            geometry = self._geometry(item, reader, segment)
        with clock("masks"):
            masks, described = self._masks(geometry, key)
        video = geometry.video
        bucket = (len(video), video.height, video.width)
        scores = {
            **{f"given_{name}" if name in scores else name: value for name, value in item.scores.items()},
            **scores,
        }
        info = {
            "key": key,
            "caption": item.caption,
            "item": item.name,
            "segment": segment.number,
            "start_s": item.start_s + segment.start_s,
            "fps": reader.fps,
            "bucket": bucket,
            "scores": scores,
            "phash": phash,
            "geometry": geometry.info,
            "masks": described,
        }
        with clock("encode"):
            files = encode_files(
                video, masks, info, fps=reader.fps, crf=config.sample.crf, scratch=self._settings.scratch
            )
        return SampleFiles(key=key, bucket=bucket, caption=item.caption, scores=scores, phash=phash, files=files)

    def _judge(self, segment: Segment) -> tuple[dict[str, float], str]:
        """Scores and hash of a segment that passes every gate."""
        gates = self._settings.config.gates
        video = segment.fit.crop_video(segment.video)
        scores = {**measure(video), "black": black_share(video, gates.black_level)}
        refused = refusal(scores, gates)
        if refused is not None:
            raise Refused(*refused)
        return {name: round(value, 6) for name, value in scores.items()}, perceptual_hash(video)

    def _geometry(self, item: Item, reader: SegmentReader, segment: Segment) -> SegmentGeometry:
        count, index = len(segment.video), all_frames(len(segment.video))
        depth = self._settings.depth
        if depth == FILES:
            depth, count = depth_beside(self._settings.root, item)
            found = reader.frame_index(segment)
            if found is None:
                raise Refused("depth", "the clip's rate varies: its frames cannot be matched with those of its depth")
            if int(found[-1]) >= count:
                raise Refused("depth", f"depth of {count} frames for a clip of at least {int(found[-1]) + 1}")
            index = found
        return find_geometry(
            segment,
            depth,
            config=self._settings.config,
            num_frames=count,
            frame_index=index,
            scratch=self._settings.scratch,
        )

    def _masks(self, geometry: SegmentGeometry, key: str) -> tuple[list[Bool], list[dict[str, Any]]]:
        config = self._settings.config
        masks: list[Bool] = []
        described: list[dict[str, Any]] = []
        for which in range(config.sample.num_masks):
            seed = int(make_rng(config.seed, "prepare", key, which).integers(2**63))
            try:
                made = simulate_masks(
                    ArrayClip(geometry.video),
                    ArrayClip(geometry.depth),
                    geometry.path,
                    config=config.sample.masks,
                    seed=seed,
                )
            except (InputError, CameraPathError) as error:
                raise Refused("masks", str(error)) from error
            masks.append(made.survived)
            described.append(made.description)
        return masks, described

    def _reason(self, error: Exception) -> str:
        """The word for what is wrong with a clip; raises what is wrong with something else."""
        if isinstance(error, Refused):
            return error.reason
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise output_error(self._settings.scratch, error) from error
        if isinstance(error, MemoryError) or "insufficient memory" in str(error).lower():  # so OpenCV says it
            raise MemoryError(str(error)) from error
        for kind, reason in (
            (DepthError, "depth"),
            (MediaError, "media"),
            (InputError, "missing"),
            (CameraPathError, "depth"),
            (OutOfMemoryError, "memory"),
        ):
            if isinstance(error, kind):
                return reason
        if type(error).__module__ == "ex4d.errors":
            raise error
        return "fault"


def _words(error: Exception) -> str:
    if isinstance(error, Refused) or type(error).__module__ == "ex4d.errors":
        return str(error)
    return f"{type(error).__name__}: {error}"
