"""What is to be generated: size and windows, decided before anything is loaded. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ex4d.core.arrays import UInt8
from ex4d.core.seeding import make_rng
from ex4d.model.config import TINY, GenerateConfig
from ex4d.model.sizes import PIXEL_BUDGET, choose_size
from ex4d.model.windows import Window, plan_windows
from ex4d.pipeline.window_source import ViewSource

if TYPE_CHECKING:
    from ex4d.model.parallel import ParallelContext

TINY_PIXEL_BUDGET = 128 * 128


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What changes no byte of the result.

    Attributes:
        context: this process among others; None = alone.
        preview_every: show the current guess every so many steps; 0 = never.
        on_preview: called with window, step and the guess uint8 [T,H,W,3].
    """

    context: "ParallelContext | None" = None
    preview_every: int = 0
    on_preview: Callable[[int, int, UInt8], None] | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.context is None or self.context.rank == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationJob:
    """What is generated, decided before anything is loaded.

    Attributes:
        source: the target view.
        config: settings.
        seed: of noise and of the release's random erosion.
        height, width: of the model's frames, px.
        windows: over the clip.
    """

    source: ViewSource
    config: GenerateConfig
    seed: int
    height: int
    width: int
    windows: Sequence[Window]

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the result, px."""
        if self.config.output_size == "source":
            return self.source.height, self.source.width
        return self.height, self.width

    def window_seed(self, index: int) -> int:
        """Seed of a window's noise; the first window has the clip's own, as the release."""
        return self.seed if index == 0 else int(make_rng(self.seed, "window noise", index).integers(2**63))


def plan_job(source: ViewSource, config: GenerateConfig, *, seed: int) -> GenerationJob:
    """Size and windows for a target view.

    Raises:
        ConfigError: lengths or sizes that do not work.
    """
    budget = TINY_PIXEL_BUDGET if config.weights == TINY else PIXEL_BUDGET
    if config.size_px is not None:
        height, width = config.size_px
    elif config.square:
        height = width = round(budget**0.5)
    else:
        height, width = choose_size(source.height, source.width, budget=budget)
    windows = plan_windows(source.num_frames, window_frames=config.window_frames, overlap_frames=config.overlap_frames)
    return GenerationJob(source=source, config=config, seed=seed, height=height, width=width, windows=windows)
