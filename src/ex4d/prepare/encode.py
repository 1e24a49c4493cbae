"""Samples to bytes: the files of one sample, equal for equal content."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Bool
from ex4d.core.video import Video
from ex4d.dataset.layout import INFO_SUFFIX, VIDEO_SUFFIX, Bucket, mask_suffix
from ex4d.io.encode import LosslessWriter
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFiles:
    """One sample as it goes into a shard.

    Attributes:
        key: its name.
        bucket: (num_frames, height, width).
        caption: may be empty.
        scores: measured and given numbers.
        phash: see `gates.perceptual_hash`.
        files: (suffix, content) in the order they are written.
    """

    key: str
    bucket: Bucket
    caption: str
    scores: Mapping[str, float]
    phash: str
    files: tuple[tuple[str, bytes], ...]


def encode_files(
    video: Video, masks: list[Bool], info: Mapping[str, Any], *, fps: float, crf: int, scratch: Path
) -> tuple[tuple[str, bytes], ...]:
    """``json``, ``mp4`` and one ``mask-K.mkv`` a mask.

    Args:
        video: the target.
        masks: bool [T,H,W] each, True where the pixel survives.
        info: what KEY.json says.
        fps: average rate.
        crf: of the H.264.
        scratch: folder for the files while they are written.

    Raises:
        OutputError: no room in `scratch`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    size = {"height": video.height, "width": video.width, "fps": rate}
    text = json.dumps(info, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    files = [(INFO_SUFFIX, text.encode())]
    path = scratch / f"video.{VIDEO_SUFFIX}"
    with DeliveryWriter(path, **size, settings=DeliverySettings(crf=crf)) as writer:
        writer.write(video.frames, video.timestamps_s)
    files.append((VIDEO_SUFFIX, _taken(path)))
    for which, survived in enumerate(masks):
        path = scratch / mask_suffix(which)
        with LosslessWriter(path, "gray", **size) as writer:
            writer.write(np.where(survived, np.uint8(255), np.uint8(0)), video.timestamps_s)
        files.append((mask_suffix(which), _taken(path)))
    return tuple(files)


def _taken(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data
