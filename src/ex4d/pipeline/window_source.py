"""What generation reads: frames of a target view, resized, eroded, padded; from a prior or from two videos."""

from pathlib import Path
from typing import Protocol

import numpy as np

from ex4d.core.arrays import Bool, Float64, UInt8
from ex4d.core.clip import Clip
from ex4d.core.view import RenderedView
from ex4d.errors import InputError
from ex4d.io.video import VideoReader, VideoSelection, probe_video
from ex4d.model.config import GenerateConfig
from ex4d.model.windows import Window
from ex4d.pipeline.ingest import STILL_FPS


class ViewSource(Protocol):
    """Colour and mask of a target view."""

    @property
    def num_frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def timestamps_s(self) -> Float64: ...

    def read(self, start: int, stop: int) -> tuple[UInt8, UInt8]:
        """rgb uint8 [T,H,W,3] and mask uint8 [T,H,W] or [T,H,W,3] (255 = observed) of frames start:stop."""
        ...


class PriorSource:
    """The view of a `GeometryPrior`."""

    def __init__(self, view: Clip[RenderedView]) -> None:
        self._view = view
        self.num_frames, self.height, self.width = view.num_frames, view.height, view.width
        self.timestamps_s = view.timestamps_s

    def read(self, start: int, stop: int) -> tuple[UInt8, UInt8]:
        """See `ViewSource`."""
        chunk = self._view.read(start, stop)
        return chunk.rgb, chunk.observed.astype(np.uint8) * np.uint8(255)


class VideoPairSource:
    """A colour video and a mask video, as the release's command takes them; lossy ones are thresholded later.

    Args:
        color: video file.
        mask: video file of the same size and number of frames, white = observed.

    Attributes:
        notices: what was changed or ignored on reading.

    Raises:
        InputError: files that cannot be read, or do not fit each other.
    """

    def __init__(self, color: Path, mask: Path) -> None:
        self._files = (color, mask)
        self.notices: list[str] = []
        infos = [probe_video(file) for file in self._files]
        sizes = [(info.height, info.width) for info in infos]
        if sizes[0] != sizes[1]:
            raise InputError("colour and mask videos of one size", f"{sizes[0]} and {sizes[1]}", "render both again")
        times = [self._times(file) for file in self._files]
        if len(times[0]) != len(times[1]):
            counts = f"{len(times[0])} and {len(times[1])}"
            raise InputError("colour and mask videos of as many frames", counts, "render both again")
        (self.height, self.width), self.timestamps_s, self.num_frames = sizes[0], times[0], len(times[0])
        self.fps = infos[0].fps or STILL_FPS
        self.has_audio = infos[0].has_audio

    def _times(self, file: Path) -> Float64:
        with VideoReader(file, on_notice=lambda notice: self.notices.append(f"{file.name}: {notice}")) as reader:
            return np.concatenate([chunk.timestamps_s for chunk in reader])

    def read(self, start: int, stop: int) -> tuple[UInt8, UInt8]:
        """See `ViewSource`; reading backward decodes from the start again."""
        rgb, mask = (self._frames(file, start, stop) for file in self._files)
        return rgb, mask

    @staticmethod
    def _frames(file: Path, start: int, stop: int) -> UInt8:
        with VideoReader(file, selection=VideoSelection(frames=(start, stop))) as reader:
            return np.concatenate([chunk.frames for chunk in reader])


def read_window(
    source: ViewSource, window: Window, config: GenerateConfig, *, size: tuple[int, int], seed: int
) -> tuple[UInt8, Bool]:
    """A window as `EX4DPipeline.encode_prior` takes it.

    Args:
        source: the target view.
        window: which frames; past the end of the clip its last frame is repeated.
        config: erosion and how to resize.
        size: (height, width) of the model, px.
        seed: of the release's random erosion.

    Returns:
        rgb uint8 [T,H,W,3], observed bool [T,H,W] or [T,H,W,3].
    """
    from ex4d.model.preprocess import erode_mask, resize_view, threshold_mask

    stop = min(window.stop, source.num_frames)
    rgb, mask = source.read(window.start, stop)
    rgb, mask = resize_view(rgb, mask, height=size[0], width=size[1], official=config.square)
    mask = erode_mask(mask, config.erode_px, seed=seed, first_index=window.start)
    return _padded(rgb, window.num_frames), threshold_mask(_padded(mask, window.num_frames))


def _padded(frames: UInt8, num_frames: int) -> UInt8:
    return np.concatenate([frames, np.repeat(frames[-1:], num_frames - len(frames), axis=0)])
