"""Windows over long clips: how many frames the model sees at a time, and how windows share frames.

Wan's VAE turns 4k+1 frames into k+1 latent frames: the first alone, then four at a time. Windows therefore
have 4k+1 frames and start 4m frames apart, so that the latent frames of two windows fall on the same times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ex4d.errors import ConfigError

TEMPORAL_STRIDE = 4
"""Frames a latent frame stands for, the first one aside."""


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive frames that are generated together.

    Attributes:
        start: first frame, a multiple of 4.
        num_frames: 4k+1; may reach past the end of the clip, whose last frame is then repeated.
        num_shared: frames shared with the window before, 4v+1, or 0 for the first window.
    """

    start: int
    num_frames: int
    num_shared: int

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.start + self.num_frames

    @property
    def num_latent_frames(self) -> int:
        """k+1."""
        return latent_frames(self.num_frames)

    @property
    def num_shared_latents(self) -> int:
        """Latent frames that fall on the same times in both windows: v; latent frame 0 is alone in its kind."""
        return (self.num_shared - 1) // TEMPORAL_STRIDE if self.num_shared else 0


def latent_frames(num_frames: int) -> int:
    """Latent frames of 4k+1 frames."""
    if num_frames % TEMPORAL_STRIDE != 1:
        raise ValueError(f"4k+1 frames wanted, got {num_frames}")
    return (num_frames - 1) // TEMPORAL_STRIDE + 1


def round_up(num_frames: int) -> int:
    """The smallest 4k+1 that is not smaller; at least 5."""
    return max(-(-(num_frames - 1) // TEMPORAL_STRIDE), 1) * TEMPORAL_STRIDE + 1


def plan_windows(num_frames: int, *, window_frames: int, overlap_frames: int) -> Sequence[Window]:
    """Windows of one length that cover a clip, as few as possible and then as short as possible.

    Args:
        num_frames: of the clip, >= 1.
        window_frames: most frames a window may have, 4k+1.
        overlap_frames: frames two windows share, 4v+1, fewer than `window_frames`.

    Raises:
        ConfigError: lengths that do not fit the VAE or each other.
    """
    for name, value in (("--window-frames", window_frames), ("--overlap-frames", overlap_frames)):
        if value < 5 or value % TEMPORAL_STRIDE != 1:
            raise ConfigError(f"{name} of 4k+1 frames, at least 5", str(value), "e.g. 49, 81 and an overlap of 9")
    if overlap_frames >= window_frames:
        raise ConfigError("--overlap-frames below --window-frames", f"{overlap_frames} and {window_frames}")
    if num_frames <= window_frames:
        return (Window(0, round_up(num_frames), 0),)
    count = -(-(num_frames - overlap_frames) // (window_frames - overlap_frames))
    length = round_up(-(-(num_frames + (count - 1) * overlap_frames) // count))
    step = length - overlap_frames
    return tuple(Window(i * step, length, overlap_frames if i else 0) for i in range(count))


def fade_weights(num_shared_latents: int) -> Sequence[float]:
    """How much of the later window each shared latent frame takes, rising from the first to the last."""
    return tuple((i + 1) / (num_shared_latents + 1) for i in range(num_shared_latents))
