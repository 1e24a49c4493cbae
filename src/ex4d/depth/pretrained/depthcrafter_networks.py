"""DepthCrafter from diffusers' Stable Video Diffusion parts: the one difference is an image embedding for each frame.

Written from the paper (arXiv 2409.02095) and the behaviour of the released inference code, which is under another
licence and of which nothing is copied. tests/parity/test_depthcrafter.py holds the parts against plain diffusers.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ex4d.core.arrays import Float32, UInt8
from ex4d.errors import DepthError, OutOfMemoryError, WeightsError
from ex4d.weights.files import read_tensors
from ex4d.weights.headers import read_json
from ex4d.weights.strict import check_tensors

NUM_STEPS = 5
NOISE_AUGMENTATION = 0.02
ADDED_TIME_IDS = (7, 127, NOISE_AUGMENTATION)
"""Frames per second, motion bucket and noise that the network is told, as released."""

CHUNK_FRAMES = 8
"""Frames encoded or decoded at once; the decoder looks along time inside a chunk, so results depend on it."""

_CLIP_SIDE = 224
_CONSTANTS = "position_ids"
"""Older exports of CLIP store this list of numbers beside the weights."""


class PerFrameUNet:
    """SVD's UNet with one image embedding a frame instead of one a clip.

    diffusers repeats its one embedding over the frames before the first block; a hook on every block with
    cross-attention puts the embeddings of the frames in its place. For equal embeddings nothing changes, to the bit.
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel) -> None:
        self.unet: UNetSpatioTemporalConditionModel = unet
        self._embeddings: Tensor | None = None
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            if getattr(block, "has_cross_attention", False):
                block.register_forward_pre_hook(self._substitute, with_kwargs=True)

    def __call__(self, latents: Tensor, timestep: Tensor, embeddings: Tensor, added_time_ids: Tensor) -> Tensor:
        """Predict for latents [1,T,8,h,w] with embeddings [T,C] and added_time_ids [1,3]: [1,T,4,h,w]."""
        self._embeddings = embeddings[:, None]
        try:
            return self.unet(latents, timestep, embeddings[None, :1], added_time_ids, return_dict=False)[0]
        finally:
            self._embeddings = None

    def _substitute(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "encoder_hidden_states": self._embeddings}


class DepthCrafter:
    """The loaded networks and what is done with them, on one device.

    Args:
        unet: DepthCrafter's weights in SVD's UNet.
        vae: SVD's.
        image_encoder: SVD's CLIP.
        scheduler: SVD's.
        pixel_mean: of CLIP's input, one a colour, of pixels in 0–1.
        pixel_std: the same.
    """

    def __init__(
        self,
        *,
        unet: UNetSpatioTemporalConditionModel,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        scheduler: EulerDiscreteScheduler,
        pixel_mean: list[float],
        pixel_std: list[float],
    ) -> None:
        self.device, self.dtype = unet.device, unet.dtype
        self.unet = PerFrameUNet(unet)
        self.vae: Any = vae  # diffusers' decorators hide its signatures
        self.image_encoder, self.scheduler = image_encoder, scheduler
        self._mean = torch.tensor(pixel_mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(pixel_std, device=self.device).view(1, 3, 1, 1)
        self._added_time_ids = torch.tensor([ADDED_TIME_IDS], dtype=self.dtype, device=self.device)

    @torch.no_grad()
    def encode(self, frames: UInt8, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What the UNet is told of some frames.

        Args:
            frames: uint8 [T,H,W,3] sRGB, sides multiples of 64.
            noise: [T,3,H,W], standard normal.

        Returns:
            Latents [T,4,H/8,W/8], not scaled, and embeddings [T,C].
        """
        pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 255
        video = pixels.to(self.dtype) * 2 - 1
        small = (_resize_with_antialiasing(video.float(), (_CLIP_SIDE, _CLIP_SIDE)) + 1) / 2
        small = ((small - self._mean) / self._std).to(self.dtype).contiguous()  # rounding depends on the layout
        embeddings = self.image_encoder(small).image_embeds
        noisy = video + NOISE_AUGMENTATION * noise
        latents = self.vae.encode(noisy.to(self.vae.dtype)).latent_dist.mode()
        return latents.to(self.dtype), embeddings

    @torch.no_grad()
    def denoise(self, latents: Tensor, video: Tensor, embeddings: Tensor) -> Tensor:
        """Remove the noise of one window in `NUM_STEPS` steps, without guidance.

        Args:
            latents: [1,T,4,h,w] at the scheduler's first sigma.
            video: [T,4,h,w], from `encode`.
            embeddings: [T,C], from `encode`.
        """
        self.scheduler.set_timesteps(NUM_STEPS, device=self.device)
        for timestep in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(latents, timestep)
            prediction = self.unet(torch.cat([scaled, video[None]], 2), timestep, embeddings, self._added_time_ids)
            latents = cast(Any, self.scheduler.step(prediction, timestep, latents)).prev_sample
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor, first_frame: int) -> Float32:
        """Disparity float32 [T,H,W] in 0–1 (affine in 1/z, larger = nearer): the mean of the decoded colours.

        Args:
            latents: [T,4,h,w], T at most `CHUNK_FRAMES`.
            first_frame: number of the first in the clip, for the message.

        Raises:
            DepthError: the network gave NaN or infinity.
        """
        scaled = 1 / self.vae.config["scaling_factor"] * latents
        color = self.vae.decode(scaled, num_frames=len(latents)).sample.float()
        finite = color.isfinite().flatten(1).all(1)
        if not finite.all():
            raise DepthError(
                f"finite disparity from depthcrafter in frame {first_frame + int((~finite).nonzero()[0, 0])}",
                "NaN or infinity",
                "check the weights (`ex4d weights verify depthcrafter`), or use another estimator",
            )
        return ((color * 0.5 + 0.5).clamp(0, 1).sum(1) / 3).cpu().numpy()


def load_depthcrafter(folder: Path, svd: Path, device: torch.device) -> DepthCrafter:
    """The networks from local folders: half precision on CUDA, as released, and float32 on a CPU.

    Args:
        folder: DepthCrafter's UNet: ``config.json`` and safetensors.
        svd: with ``vae``, ``image_encoder``, ``scheduler`` and ``feature_extractor`` of Stable Video Diffusion.
        device: where they run.

    Raises:
        WeightsError: a file is missing, cut off, of another model, or lacks tensors.
        OutOfMemoryError: the GPU is too small for the networks alone.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.float16

    def load(part: Path, make: Callable[[dict[str, Any]], Any]) -> Any:
        return _load(part, make, dtype).to(device).eval().requires_grad_(False)

    pixels = read_json(svd / "feature_extractor" / "preprocessor_config.json")
    schedule = read_json(svd / "scheduler" / "scheduler_config.json")
    try:
        mean, std = ([float(value) for value in pixels[key]] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"image_mean and image_std in {svd}", repr(error), "pull svd again") from error
    with memory_errors("the networks of depthcrafter"):
        return DepthCrafter(
            unet=load(folder, UNetSpatioTemporalConditionModel.from_config),
            vae=load(svd / "vae", AutoencoderKLTemporalDecoder.from_config),
            image_encoder=load(
                svd / "image_encoder", lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
            ),
            scheduler=cast(EulerDiscreteScheduler, EulerDiscreteScheduler.from_config(schedule)),
            pixel_mean=mean,
            pixel_std=std,
        )


def _load(folder: Path, make: Callable[[dict[str, Any]], Any], dtype: torch.dtype) -> nn.Module:
    """A network filled strictly: libraries' own loaders replace what is missing by random numbers."""
    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    try:
        with init_empty_weights(include_buffers=False):
            module = cast(nn.Module, make(config))
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AttributeError) as error:
        raise WeightsError(f"a config of the network in {folder}", str(error), "pull the weights again") from error
    tensors = {name: value for name, value in read_tensors(folder).items() if not name.endswith(_CONSTANTS)}
    check_tensors(_shapes(tensors), _shapes(module.state_dict()), what=str(folder))
    module.load_state_dict({name: value.to(dtype) for name, value in tensors.items()}, assign=True)
    return module


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@contextlib.contextmanager
def memory_errors(what: str) -> Generator[None, None, None]:
    """Turn torch's report of a full GPU into `OutOfMemoryError`; `what` did not fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"enough GPU memory for {what}",
            str(error).splitlines()[0],
            "choose a smaller size for the depth network, or another estimator such as vda-small",
        ) from error
