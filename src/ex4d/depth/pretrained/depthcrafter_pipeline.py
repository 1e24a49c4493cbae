"""DepthCrafter over a clip of any length: frames encoded, latents sampled window by window, disparity decoded."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from ex4d.core.arrays import Float32, UInt8
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.pretrained.depthcrafter_networks import CHUNK_FRAMES, NUM_STEPS, DepthCrafter, memory_errors
from ex4d.depth.pretrained.depthcrafter_windows import Windows, sample_windows

_NOISE_FRAMES = 14 * CHUNK_FRAMES
"""Frames whose noise is drawn at once: no fewer than a window, and whole chunks."""


def estimate_disparity(
    model: DepthCrafter,
    source: Clip[Video],
    *,
    size: tuple[int, int],
    seed: int,
    advance: Callable[[int], None],
    windows: Windows | None = None,
) -> Iterator[tuple[Float32, None]]:
    """Disparity of a clip, a few frames at a time, each once and in order.

    Held for the whole clip are the latents and embeddings (about 75 KiB a frame at 1024×576), never its frames.

    Args:
        model: the networks.
        source: the clip, any size.
        size: (height, width) that the networks see, multiples of 64.
        seed: of the noise. One generator gives first the noise on the frames, then that of the latents: on a CPU, and
            up to 112 frames on one and the same GPU, the numbers that the release draws with this seed.
        advance: told how many frames were finished.
        windows: default: the release's.

    Yields:
        (float32 [t,height,width], None).

    Raises:
        DepthError: NaN or infinity; the frame is named.
        OutOfMemoryError: the GPU is too small for this size.
    """
    windows = windows or Windows()
    generator = torch.Generator(model.device).manual_seed(seed)
    with memory_errors(f"depthcrafter at {size[1]}x{size[0]}"):
        video, embeddings = _encode_clip(model, source, size=size, generator=generator)
        model.scheduler.set_timesteps(NUM_STEPS, device=model.device)
        first_sigma, init_sigma = float(model.scheduler.sigmas[0]), float(model.scheduler.init_noise_sigma)
        shape = (1, min(windows.size, len(video)), *video.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=model.dtype, device=model.device) * init_sigma

        def denoise(latents: Tensor, start: int, stop: int) -> Tensor:
            told = video[start:stop].to(model.device), embeddings[start:stop].to(model.device)
            return model.denoise(latents, *told)

        done, ready = 0, video[:0].to(model.device)
        for latents in sample_windows(
            noise, denoise, num_frames=len(video), windows=windows, init_sigma=init_sigma, first_sigma=first_sigma
        ):
            ready = torch.cat([ready, latents[0]])
            while len(ready) >= CHUNK_FRAMES or (len(ready) and done + len(ready) == len(video)):
                values = model.decode(ready[:CHUNK_FRAMES], done)
                ready = ready[CHUNK_FRAMES:]
                done += len(values)
                advance(len(values))
                yield values, None


def _encode_clip(
    model: DepthCrafter, source: Clip[Video], *, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Latents [T,4,h,w] and embeddings [T,C] of a whole clip, on the CPU."""
    height, width = size
    upcast = model.dtype == torch.float16 and bool(model.vae.config["force_upcast"])
    if upcast:
        model.vae.to(dtype=torch.float32)
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, source.num_frames, _NOISE_FRAMES):
        stop = min(start + _NOISE_FRAMES, source.num_frames)
        shape = (stop - start, 3, height, width)
        noise = torch.randn(shape, generator=generator, dtype=model.dtype, device=model.device)
        for first in range(start, stop, CHUNK_FRAMES):
            chunk = source.read(first, min(first + CHUNK_FRAMES, stop))
            frames = np.stack([_resize(frame, size) for frame in chunk.frames])
            latents, embeddings = model.encode(frames, noise[first - start :][: len(frames)])
            parts.append((latents.cpu(), embeddings.cpu()))
    if upcast:
        model.vae.to(dtype=model.dtype)
    return torch.cat([latents for latents, _ in parts]), torch.cat([embeddings for _, embeddings in parts])


def _resize(frame: UInt8, size: tuple[int, int]) -> UInt8:
    """Bilinear without antialiasing, as the EX-4D release does."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)
