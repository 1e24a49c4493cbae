"""What of a segment is measured, and which segments are refused."""

import cv2
import numpy as np

from ex4d.core.arrays import Float32, UInt8
from ex4d.core.video import Video
from ex4d.motion.flow import FlowEngine, gray_frame, work_size
from ex4d.prepare.config import GateConfig

_SIDE_PX = 160
_NUM_FLOWS = 6
_STEP_S = 0.1
"""Flow is measured over about this time: shorter than most motion blur, long enough for slow motion."""
_STILL_LEVELS = 0.15
"""Mean difference below which a frame repeats the one before; grain of a camera that stands still is above."""
_HASH_SIDE = 8
_HASH_WORK = 32
_HASH_MOMENTS = (1 / 6, 1 / 2, 5 / 6)


def measure(video: Video) -> dict[str, float]:
    """Numbers that the gates judge: ``motion`` (per cent of the width a second), ``still``, ``black`` need a config.

    Args:
        video: a whole segment, at least 2 frames.

    Returns:
        ``motion`` as above; ``still``: share of frames that repeat the one before; ``luma``: mean, 0–255;
        ``contrast``: standard deviation of luma in the middle frame, 0–255.
    """
    grays = np.stack([gray_frame(frame, work_size(video.height, video.width, _SIDE_PX)) for frame in video.frames])
    steps = np.abs(np.diff(grays.astype(np.int16), axis=0)).mean(axis=(1, 2))
    return {
        "motion": _motion(grays, video),
        "still": float((steps < _STILL_LEVELS).mean()),
        "luma": float(grays.mean()),
        "contrast": float(grays[len(grays) // 2].std()),
    }


def black_share(video: Video, level: float) -> float:
    """Share of frames whose mean luma is below `level` (0–255)."""
    small = [gray_frame(frame, work_size(video.height, video.width, _SIDE_PX)).mean() for frame in video.frames]
    return float((np.array(small) < level).mean())


def _motion(grays: UInt8, video: Video) -> float:
    """Mean length of the flow between a few pairs of frames, per cent of the width a second."""
    times, count = video.timestamps_s, len(grays)
    step = int(np.clip(np.searchsorted(times - times[0], _STEP_S), 1, count - 1))
    starts = np.unique(np.linspace(0, count - 1 - step, _NUM_FLOWS).round().astype(int))
    engine = FlowEngine()
    speeds = [
        np.hypot(*np.moveaxis(engine.flow(grays[i], grays[i + step]), -1, 0)).mean() / (times[i + step] - times[i])
        for i in starts
    ]
    return float(np.mean(speeds) * 100 / grays.shape[2])


def refusal(scores: dict[str, float], gates: GateConfig) -> tuple[str, str] | None:
    """(reason, text) of the first gate that scores of `measure` and `black_share` do not pass; None: they pass all."""
    for name, low, high, unit in (
        ("black", 0.0, gates.max_black, "of the frames are black"),
        ("contrast", gates.min_contrast, float("inf"), "is the contrast of the middle frame"),
        ("still", 0.0, gates.max_still, "of the frames repeat the one before"),
        ("motion", gates.min_motion, gates.max_motion, "per cent of the width a second is the mean motion"),
    ):
        value = scores[name]
        if not low <= value <= high:
            bound = f"at least {low:g}" if value < low else f"at most {high:g}"
            return name, f"{value:.3g} {unit}; allowed is {bound}"
    return None


def perceptual_hash(video: Video) -> str:
    """48 hex digits (192 bits): signs of the low frequencies of three frames against their median.

    After pHash (Zauner 2010): 8×8 coefficients of the cosine transform of a 32×32 gray picture, without the column
    of the mean.
    """
    bits: list[np.ndarray] = []
    for moment in _HASH_MOMENTS:
        gray = gray_frame(video.frames[int(moment * len(video))], (_HASH_WORK, _HASH_WORK)).astype(np.float32)
        low: Float32 = np.asarray(cv2.dct(gray), np.float32)[:_HASH_SIDE, 1 : _HASH_SIDE + 1]
        bits.append((low > np.median(low)).ravel())
    return np.packbits(np.concatenate(bits)).tobytes().hex()
