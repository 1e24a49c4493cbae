"""Depth that a network found frame by frame, made steady: each frame in the mean of its neighbours' units.

Such a network gives every frame a scale (and, for disparity, a shift) of its own, which jumps a little from frame to
frame. Flow tells which pixels of two neighbouring frames show the same thing; from them comes the map of one frame's
values to the next one's. Chained, these maps say what a frame's values would be in the unit of each of its neighbours
up to 12 frames away, and the weighted mean of these is what is returned. Only 12 frames are held.

A reference that is carried along from frame to frame would be simpler, but it drifts with the length of the clip, and
it takes a steady approach of the camera for a change of scale. A mean over both directions does neither, except in
the first and last 12 frames, where one direction is short. Jumps of a moment go; a slow breathing of the network's
scale, over more than a second, stays. At a cut the chain ends.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.motion.flow import FlowEngine, follow, is_consistent

REACH_FRAMES = 12
_MIN_SHARE = 0.1
"""Of the pixels must be visible in both frames."""
_EVERY_PX = 2

_Link = tuple[float, float]
"""Scale > 0 and shift, from the unit of one frame to that of the next."""
_Links = dict[int, _Link | None]
"""Number of the later frame → its link; None: the frames do not correspond."""
Fit = Callable[[Float32, Float32], _Link | None]
"""(values before, values after) of the same things → link; see `affine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One frame: the picture that flow sees uint8 [h,w], the network's values float32 [H,W], sky bool [H,W] or None."""

    gray: UInt8
    values: Float32
    sky: Bool | None


def steady(looks: Iterator[Look], fit: Fit, on_cut: Callable[[int], None]) -> Iterator[tuple[Float32, Bool | None]]:
    """Steady values of every frame, in order, 12 frames behind what is read.

    Args:
        looks: the clip's frames.
        fit: what the network leaves open: scale and shift, or scale alone.
        on_cut: told of every frame that is unlike the one before.

    Yields:
        (values float32 [H,W], sky).
    """
    engine = FlowEngine()
    waiting: deque[Look] = deque()
    links: _Links = {}
    number = -1
    for number, look in enumerate(looks):
        if waiting:
            links[number] = _link(engine, waiting[-1], look, fit)
            if links[number] is None:
                on_cut(number)
        waiting.append(look)
        if len(waiting) > REACH_FRAMES:
            yield _in_mean_unit(waiting.popleft(), number - REACH_FRAMES, links)
            links.pop(number - 2 * REACH_FRAMES, None)
    for left, look in enumerate(waiting, number + 1 - len(waiting)):
        yield _in_mean_unit(look, left, links)


def _link(engine: FlowEngine, before: Look, after: Look, fit: Fit) -> _Link | None:
    """From the unit of one frame to that of the next."""
    to_before, to_after = engine.flow(after.gray, before.gray), engine.flow(before.gray, after.gray)
    size = after.gray.shape[::-1]
    small_before, small_after = (cv2.resize(one.values, size, interpolation=cv2.INTER_AREA) for one in (before, after))
    found = follow(to_before, np.asarray(small_before, np.float32))
    use = is_consistent(to_before, to_after) & np.isfinite(found)
    lattice = np.s_[::_EVERY_PX, ::_EVERY_PX]
    use, found, shown = use[lattice], found[lattice], np.asarray(small_after, np.float32)[lattice]
    if use.mean() < _MIN_SHARE:
        return None
    return fit(found[use], shown[use])


def _in_mean_unit(look: Look, number: int, links: _Links) -> tuple[Float32, Bool | None]:
    """A frame in the weighted mean of its neighbours' units."""
    total, scales, shifts = 1.0, 1.0, 0.0
    later = [links.get(number + step) for step in range(1, REACH_FRAMES + 1)]
    earlier = [_inverse(links.get(number + 1 - step)) for step in range(1, REACH_FRAMES + 1)]
    for chain in (later, earlier):
        scale, shift = 1.0, 0.0
        for step, link in enumerate(chain, 1):
            if link is None:
                break
            scale, shift = link[0] * scale, link[0] * shift + link[1]
            weight = np.cos(np.pi / 2 * step / (REACH_FRAMES + 1)) ** 2
            total, scales, shifts = total + weight, scales + weight * scale, shifts + weight * shift
    values = look.values * np.float32(scales / total) + np.float32(shifts / total)
    return np.maximum(values, 0), look.sky


def _inverse(link: _Link | None) -> _Link | None:
    return None if link is None else (1 / link[0], -link[1] / link[0])
