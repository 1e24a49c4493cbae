"""Windows of 32 frames over a clip of any length, and one disparity made of them; imports no torch.

The release's rules (video_depth_anything/video_depth.py): a later window shows again, in its first ten slots, the
slots 0, 12 and 24–31 of the window before, so that its own 22 frames follow on. Slot 0 is the clip's first frame in
every window. The scale and shift of a window come from least squares on its slots 0 and 1, whose disparity is known
from the windows before; its slots 2–9 are cross-faded with the last eight frames of the window before.

Unlike the release, no window is computed that brings no new frame: there, 49 frames take three windows, of which the
third sees the last frame 26 times and only pulls frames 46–48 towards itself. Nothing is held but one window.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ex4d.core.arrays import Float32
from ex4d.depth.pretrained.affine import fit_affine
from ex4d.depth.pretrained.pictures import check_output

WINDOW_FRAMES = 32
KEY_SLOTS = (0, 12, *range(24, 32))
"""Slots of a window that fill the first slots of the next."""
OVERLAP_FRAMES = len(KEY_SLOTS)
NUM_ALIGNED = 2
"""So many of them, the first, tell the scale and shift of the next window."""
BLEND_FRAMES = OVERLAP_FRAMES - NUM_ALIGNED
STEP_FRAMES = WINDOW_FRAMES - OVERLAP_FRAMES

_Slots = list[tuple[int, Any]]
"""(number of the frame, what the network made of it)."""


class WindowNetwork(Protocol):
    """A network that sees a window of frames, in two halves so that frames of several windows are looked at once."""

    def decode(self, window: Sequence[Any], wanted: int) -> Float32:
        """Disparity float32 [wanted,h,w] of the first frames of a window of 32 encoded frames."""
        ...


def stitch_windows(
    encoded: Iterator[Any], num_frames: int, network: WindowNetwork, *, on_misfit: Callable[[int], None], name: str
) -> Iterator[Float32]:
    """One disparity for a whole clip, up to one affine; memory does not grow with the clip.

    Args:
        encoded: what the network made of each of the clip's frames, in order.
        num_frames: of the clip, >= 1.
        network: makes disparity of a window.
        on_misfit: told the first new frame of each window that could not be fitted: a shift alone joins it.
        name: of the estimator, for messages.

    Yields:
        float32 [t,h,w] >= 0, in order, `num_frames` altogether.

    Raises:
        DepthError: NaN or infinities of the network; the frame is named.
    """
    numbered = enumerate(encoded)
    window = [next(numbered) for _ in range(min(num_frames, WINDOW_FRAMES))]
    current = np.maximum(_decode(network, window, name), 0)
    first = current[:1].copy()
    while (last := window[-1][0]) < num_frames - 1:
        yield current[:-BLEND_FRAMES]
        key = KEY_SLOTS[1] - WINDOW_FRAMES  # from the end: later windows come without their first two slots
        known, held = np.concatenate((first, current[key : key + 1])), current[-BLEND_FRAMES:]
        window = [window[slot] for slot in KEY_SLOTS]
        window += [next(numbered) for _ in range(min(num_frames - 1 - last, STEP_FRAMES))]
        found = _decode(network, window, name)
        fit = fit_affine(found[:NUM_ALIGNED], known)
        if fit is None:
            on_misfit(last + 1)
        scale, shift = fit or (1.0, _mean(known) - _mean(found[:NUM_ALIGNED]))
        current = np.maximum(found[NUM_ALIGNED:] * np.float32(scale) + np.float32(shift), 0)
        current[:BLEND_FRAMES] = cross_fade(held, current[:BLEND_FRAMES])
    yield current


def _decode(network: WindowNetwork, window: _Slots, name: str) -> Float32:
    """Disparity of the frames of a window; one that the clip does not fill shows its last frame again."""
    padded = window + [window[-1]] * (WINDOW_FRAMES - len(window))
    values = network.decode([slot for _, slot in padded], len(window))
    check_output(values, [number for number, _ in window], name)
    return values


def _mean(values: Float32) -> float:
    return float(values.mean(dtype=np.float64))


def cross_fade(before: Float32, after: Float32) -> Float32:
    """Linear from `before` [n,h,w] (its first frame as it is) to `after` (its last frame as it is)."""
    weight = np.linspace(0, 1, len(before), dtype=np.float32)[:, None, None]
    return np.asarray(before * (1 - weight) + after * weight, np.float32)
