"""Finished windows of a generation on disk: a killed one goes on after the last of them."""

import contextlib
from collections.abc import Generator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ex4d.core.arrays import UInt8
from ex4d.errors import Ex4dError, InputError
from ex4d.io.atomic import atomic_path, output_error, write_json_atomic
from ex4d.io.encode import LosslessWriter
from ex4d.io.strict_json import read_json_object
from ex4d.io.video_lossless import VideoClip

if TYPE_CHECKING:
    from torch import Tensor

_FPS = Fraction(15)
"""Of the intermediates; real times are kept with the clip."""


class WindowStore:
    """A folder of windows of one generation; whose settings they belong to is the caller's to check.

    Args:
        folder: made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error

    def record(self, index: int) -> dict[str, Any] | None:
        """What was recorded with a finished window; None if it is not finished."""
        file = self._file(index, "json")
        with self._undamaged(index):
            return read_json_object(file) if file.is_file() else None

    def save(self, index: int, frames: UInt8, latents: "Tensor", record: Mapping[str, Any]) -> None:
        """Keep frames uint8 [T,H,W,3] and latents float32 [1,16,t,h,w]; the record is written last."""
        from safetensors.torch import save_file

        height, width = frames.shape[1:3]
        with LosslessWriter(self._file(index, "mkv"), "rgb", height=height, width=width, fps=_FPS) as writer:
            writer.write(frames, np.arange(len(frames)) / float(_FPS))
        with atomic_path(self._file(index, "safetensors")) as temporary:
            save_file({"latents": latents.cpu().contiguous()}, temporary)
        write_json_atomic(self._file(index, "json"), dict(record))

    def frames(self, index: int, start: int, stop: int) -> UInt8:
        """Frames start:stop of a finished window, uint8 [T,H,W,3]."""
        with self._undamaged(index), contextlib.closing(VideoClip(self._file(index, "mkv"))) as clip:
            return clip.read(start, stop).frames

    def latents(self, index: int) -> "Tensor":
        """Latents float32 [1,16,t,h,w] of a finished window."""
        from safetensors.torch import load_file

        with self._undamaged(index):
            return load_file(self._file(index, "safetensors"))["latents"]

    @contextlib.contextmanager
    def _undamaged(self, index: int) -> Generator[None, None, None]:
        from safetensors import SafetensorError

        try:
            yield
        except (Ex4dError, SafetensorError, OSError, KeyError) as error:
            what = f"the finished window {index} in {self._folder}"
            raise InputError(what, f"a damaged one ({error})", "start again with --overwrite") from error

    def _file(self, index: int, suffix: str) -> Path:
        return self._folder / f"window_{index:04d}.{suffix}"
