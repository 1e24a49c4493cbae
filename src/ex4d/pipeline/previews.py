"""`--preview-every`: what the model takes the result for, while it is still denoising."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ex4d.core.arrays import UInt8
from ex4d.io.atomic import atomic_path
from ex4d.pipeline.generation_job import EngineSettings

_NUM_SHOWN = 4


class PreviewWriter:
    """A PNG a preview: four frames of the window side by side, first and last included.

    Args:
        folder: where to; made when missing.
        every: steps between previews, >= 1.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every

    @property
    def names(self) -> Sequence[str]:
        """Of the files there, those of an interrupted run included."""
        return sorted(path.name for path in self._folder.glob("window_*.png"))

    def settings(self, base: EngineSettings) -> EngineSettings:
        """`base` with this writer."""
        return EngineSettings(context=base.context, preview_every=self._every, on_preview=self._write)

    def _write(self, window: int, step: int, frames: UInt8) -> None:
        shown = np.linspace(0, len(frames) - 1, min(_NUM_SHOWN, len(frames))).astype(int)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"window_{window:02d}_step_{step:03d}.png"
        with atomic_path(self._folder / name) as temporary:
            Image.fromarray(np.concatenate([frames[i] for i in shown], axis=1)).save(temporary, format="PNG")
