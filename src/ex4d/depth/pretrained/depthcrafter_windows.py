"""DepthCrafter's windows in latent space: each starts from the end of the last, and is faded into it.

Loads no torch before latents are sampled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", int, int], "Tensor"]
"""(noisy latents [1,t,C,h,w], first frame, stop frame) -> clean latents of the same shape and type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How a clip is cut.

    Attributes:
        size: frames seen at once, > overlap.
        overlap: frames that a window shares with the one before, >= 1.
    """

    size: int = 110
    overlap: int = 25

    def plan(self, num_frames: int) -> list[tuple[int, int]]:
        """(start, stop) of every window; each but the first begins with `overlap` frames of its predecessor."""
        if num_frames <= self.size:
            return [(0, num_frames)]
        starts = range(0, num_frames - self.overlap, self.size - self.overlap)
        return [(start, min(start + self.size, num_frames)) for start in starts]


def sample_windows(
    noise: "Tensor", denoise: Denoise, *, num_frames: int, windows: Windows, init_sigma: float, first_sigma: float
) -> "Iterator[Tensor]":
    """Clean latents of a clip, window by window, each frame once and in order.

    The same noise serves the whole clip: a frame that two windows share has the same noise in both, and new frames
    take that of the first window again. A shared frame starts from its clean latents plus this noise at the first
    sigma, and its result is faded linearly from the old window to the new one (weights 0 and 1 at the ends).

    Args:
        noise: [1,t,C,h,w], t = the smaller of ``windows.size`` and `num_frames`; standard normal times `init_sigma`.
        denoise: what removes it.
        num_frames: of the clip.
        windows: how it is cut.
        init_sigma: the scheduler's ``init_noise_sigma``.
        first_sigma: the scheduler's first sigma.

    Yields:
        [1,n,C,h,w], n frames that no later window changes.
    """
    import torch

    overlap = windows.overlap
    fade = torch.linspace(0, 1, overlap, device=noise.device).view(1, overlap, 1, 1, 1)
    tail: Tensor | None = None
    for start, stop in windows.plan(num_frames):
        latents = noise[:, : stop - start].clone()
        if tail is not None:
            latents[:, :overlap] = tail + latents[:, :overlap] / init_sigma * first_sigma
        latents = denoise(latents, start, stop)
        if tail is not None:
            latents[:, :overlap] = latents[:, :overlap] * fade + tail * (1 - fade)
        if stop == num_frames:
            yield latents
            return
        yield latents[:, :-overlap]
        tail = latents[:, -overlap:]
        noise = torch.cat([noise[:, -overlap:], noise[:, :-overlap]], dim=1)
