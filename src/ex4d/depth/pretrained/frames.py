"""Estimates of networks that see one frame at a time; imports no torch."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.estimator import iter_pictures
from ex4d.depth.pretrained.pictures import check_output, name_frames
from ex4d.depth.pretrained.steady import Fit, Look, steady
from ex4d.motion.flow import gray_frame, work_size


class FrameNetwork(Protocol):
    """A network on its device, from NumPy to NumPy."""

    def run(self, pictures: Float32) -> tuple[Float32, Bool | None]:
        """Values float32 [n,h,w] and sky bool [n,h,w] (None: not known) of pictures [n,3,h,w]."""
        ...


def steady_frames(
    source: Clip[Video], request: EstimateRequest, network: FrameNetwork, depth: SequentialDepth, *, fit: Fit, name: str
) -> Iterator[tuple[Float32, Bool | None]]:
    """What `depth.chunks` yields: every frame's values, made steady; see `steady`.

    Raises:
        DepthError: NaN or infinities of the network; the frame is named.
    """
    cuts: list[int] = []
    for values, sky in steady(_looks(source, (depth.height, depth.width), network, name), fit, cuts.append):
        request.advance(1)
        yield values[None], None if sky is None else sky[None]
    if cuts:
        text = f"no scale is carried over into frame {name_frames(cuts)}, unlike the one before (a cut?)"
        depth.notices += (f"{name}: {text}",)


def _looks(source: Clip[Video], size: tuple[int, int], network: FrameNetwork, name: str) -> Iterator[Look]:
    small = work_size(source.height, source.width)
    for start, pictures, chunk in iter_pictures(source, size):
        values, skies = network.run(pictures)
        check_output(values, list(range(start, start + len(values))), name)
        for index, frame in enumerate(chunk.frames):
            sky = None if skies is None else skies[index].astype(np.bool_)
            yield Look(gray=gray_frame(frame, small), values=values[index], sky=sky)
