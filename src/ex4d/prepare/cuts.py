"""Where a clip cuts to another shot. Looks at one frame after the other and needs no flow."""

from collections import deque

import cv2
import numpy as np

from ex4d.core.arrays import Float32, UInt8

# Measured on nine real clips of 49 to 70 frames and all 72 cuts between two of them: the distance of colours is at
# most 0.22 inside a shot (a robot's fast nod; everything else below 0.12) and at least 0.24 across a cut; the middle
# of the picture is found again with a correlation of at least 0.7 inside a shot, and of at most 0.7 across 71 cuts.
_SIZE = (36, 64)
_BINS = 16
_SAME_PLACE = 0.7
_SURE = 2.5
"""This many times the threshold is a cut whatever the middle of the picture says."""
_SUDDEN = 2.5
"""A cut is this many times farther than the frames before it are from each other: fast motion is not sudden."""
_MEMORY_FRAMES = 8


class CutDetector:
    """Tells for each frame whether it begins a new shot; hard cuts only, dissolves are not found.

    Args:
        threshold: distance of colours from which on two frames may be a cut, 0–1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._recent: deque[float] = deque(maxlen=_MEMORY_FRAMES)
        self._last: tuple[Float32, UInt8] | None = None

    def push(self, frame: UInt8) -> bool:
        """Whether `frame` [H,W,3], the next one, begins a new shot; the first one does not."""
        small = np.asarray(cv2.resize(frame, _SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        colors, last = _colors(small), self._last
        self._last = colors, gray
        if last is None:
            return False
        distance = float(np.abs(colors - last[0]).sum(axis=1).mean() / 2)
        usual = float(np.mean(self._recent)) if self._recent else 0.0
        is_cut = distance > max(self._threshold, _SUDDEN * usual) and (
            distance > _SURE * self._threshold or _found_again(last[1], gray) < _SAME_PLACE
        )
        if is_cut:
            self._recent.clear()
        else:
            self._recent.append(distance)
        return is_cut


def _colors(small: UInt8) -> Float32:
    """float32 [12,16]: a histogram for each channel of each quarter of the picture, smoothed over neighbouring bins."""
    half_y, half_x = _SIZE[0] // 2, _SIZE[1] // 2
    rows: list[np.ndarray] = []
    for y in (0, half_y):
        for x in (0, half_x):
            part = small[y : y + half_y, x : x + half_x].reshape(-1, 3) >> 4
            rows += [np.bincount(part[:, channel], minlength=_BINS) / len(part) for channel in range(3)]
    padded = np.pad(np.stack(rows), ((0, 0), (1, 1)), mode="edge")
    return (0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]).astype(np.float32)


def _found_again(first: UInt8, second: UInt8) -> float:
    """Best correlation, −1 to 1, of one picture's middle anywhere in the other: motion of the camera keeps it high."""
    y, x = _SIZE[0] // 4, _SIZE[1] // 4
    found = [
        cv2.matchTemplate(other, one[y:-y, x:-x], cv2.TM_CCOEFF_NORMED).max()
        for one, other in ((first, second), (second, first))
    ]
    return float(max(found))
