"""A small video depth network, its loss and its training; what it is for is said in depth_network.py.

Loss: error of disparity after one affine fit a clip, relative to the truth; its gradient on four scales (Ranftl et al.,
MiDaS, 2020); order at object borders.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from depth_network_data import stored_clips
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ex4d.core.arrays import Float32

NUM_CHANNELS = 14
WIDTHS = (24, 48, 96, 160)
_CONFIDENCE = 6  # channel of `stack`
_MAX_LOG = 2.0
_MARGIN = float(np.log(1.1))
_CLIPS_A_STEP, _FRAMES_A_CLIP = 3, 4
_SETTLED = 0.99
_RATE = 1.2e-3
_REPORT_STEPS = 50
_MIXED_UP = 0.15


class _Block(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.around = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        self.norm_first, self.norm_second = nn.GroupNorm(8, channels_out), nn.GroupNorm(8, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm_first(self.first(x)))
        return functional.silu(self.around(x) + self.norm_second(self.second(y)))


class DepthNetwork(nn.Module):
    """A U-Net from `stack` [N,14,h,w] to the correction [N,h,w] of log disparity; it starts at 0.

    Where parallax is sure the correction is scaled down to nothing: what was measured stays.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(NUM_CHANNELS, widths[0], 5, stride=2, padding=2)
        self.down = nn.ModuleList()
        for index, width in enumerate(widths):
            shrink = [] if index == 0 else [nn.Conv2d(widths[index - 1], width, 3, stride=2, padding=1)]
            self.down.append(nn.Sequential(*shrink, *(_Block(width, width) for _ in range(1 if index == 0 else 2))))
        self.up = nn.ModuleList(
            _Block(below + width, width) for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.detail = nn.Conv2d(NUM_CHANNELS + widths[0] // 4, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias if self.head.bias is not None else self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        y, kept = self.stem(x), []
        for stage in self.down:
            y = stage(y)
            kept.append(y)
        for stage, beside in zip(self.up, kept[-2::-1], strict=True):
            larger = functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = stage(torch.cat([larger, beside], dim=1))
        y = torch.cat([x, functional.pixel_shuffle(y, 2)], dim=1)
        y = self.head(functional.silu(self.detail(y)))[:, 0]
        return (1 - x[:, _CONFIDENCE]) * _MAX_LOG * torch.tanh(y / _MAX_LOG)


def stack(rgb: Tensor, before: Tensor, after: Tensor, maps: Tensor) -> Tensor:
    """float32 [N,14,h,w]: what the network sees.

    Args:
        rgb: float32 [N,3,h,w], 0 to 1.
        before: the picture 0.2 s earlier (the clip's first where there is none).
        after: 0.2 s later.
        maps: float32 [N,6,h,w] of `NetworkInput`.
    """
    num, _, height, width = rgb.shape
    y = torch.linspace(-1, 1, height).to(rgb)[None, None, :, None].expand(num, 1, height, width)
    x = torch.linspace(-1, 1, width).to(rgb)[None, None, None, :].expand(num, 1, height, width)
    measured = (maps[:, 1:2].flatten(1).amax(dim=1) > 0).float()[:, None, None, None].expand(num, 1, height, width)
    gray = [picture.mean(dim=1, keepdim=True) - 0.5 for picture in (before, after)]
    return torch.cat([2 * rgb - 1, *gray, maps, x, y, measured], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B clips of T frames; float32 unless said.

    Attributes:
        rgb: [3,B,T,3,h,w], the picture, the one before and the one after.
        maps: [B,T,6,h,w].
        inverse: [B,T,h,w], true 1/z over its mean in the clip.
        known: bool [B,T,h,w].
        pairs: int64 [B,T,2,P], flat indices of nearer and farther pixels; both 0 where there are none.
    """

    rgb: Tensor
    maps: Tensor
    inverse: Tensor
    known: Tensor
    pairs: Tensor


def load_batch(files: Sequence[Path], rng: np.random.Generator, frames_a_clip: int, device: str) -> Batch:
    """Random frames of some clips, mirrored and coloured at random, some without parallax."""
    parts = [_load(file, rng, frames_a_clip) for file in files]
    rgb, maps, inverse, known, pairs = (
        torch.from_numpy(np.stack(part)).to(device) for part in zip(*parts, strict=True)
    )
    return Batch(rgb=rgb.transpose(0, 1), maps=maps, inverse=inverse, known=known, pairs=pairs.long())


def _load(file: Path, rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    with np.load(file) as stored:
        data = {name: stored[name] for name in stored.files}
    num, gap = len(data["rgb"]), int(data["gap"])
    chosen = np.sort(rng.choice(num, size=min(count, num), replace=False)).tolist()
    pictures = [data["rgb"][np.clip(np.array(chosen) + step, 0, num - 1)] for step in (0, -gap, gap)]
    rgb = _f32(np.stack(pictures).transpose(0, 1, 4, 2, 3) / np.float32(255))
    maps, depth, known = data["maps"][chosen].astype(np.float32), data["depth"][chosen], data["known"][chosen]
    pairs = data["pairs"][chosen]
    if rng.random() < 0.1:
        maps[:, :3] = 0
    if rng.random() < 0.5:
        rgb, maps, depth, known = rgb[..., ::-1], maps[..., ::-1], depth[..., ::-1], known[..., ::-1]
        width = depth.shape[-1]
        has = (pairs > 0).any(axis=(1, 2), keepdims=True)
        pairs = np.where(has, pairs // width * width + (width - 1 - pairs % width), 0)
    inverse = 1 / depth
    inverse = inverse / inverse[known].mean()
    arrays = (_recolor(rgb, rng), maps, inverse, known, pairs)
    return tuple(np.ascontiguousarray(values) for values in arrays)


def _recolor(rgb: Float32, rng: np.random.Generator) -> Float32:
    """Another camera, light and paint: desaturation, channel mix, gamma, exposure, blur, noise; float32, 0 to 1."""
    if rng.random() < _MIXED_UP:
        mix = rng.dirichlet(np.ones(3), size=3)
        rgb = _f32(np.einsum("ij,abjhw->abihw", mix, rgb))
    if rng.random() < 0.5:
        rgb = _f32(rgb + rng.uniform(0.3, 1) * (rgb.mean(axis=2, keepdims=True) - rgb))
    tint = rng.uniform(0.8, 1.2, (1, 1, 3, 1, 1)) ** rng.integers(2)
    rgb = _f32(np.clip(rgb * tint, 0, 1) ** np.exp(rng.normal(0, 0.3)) * rng.uniform(0.6, 1.3))
    rgb = _f32(rgb * rng.normal(1, 0.02, (1, rgb.shape[1], 1, 1, 1)))
    if rng.random() < 0.4:
        flat, sigma = rgb.reshape(-1, *rgb.shape[-2:]), float(rng.uniform(0.4, 1.5))
        rgb = _f32([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in flat]).reshape(rgb.shape)
    return _f32(np.clip(rgb + rng.uniform(0, 0.05) * rng.standard_normal(rgb.shape, dtype=np.float32), 0, 1))


def _f32(values: object) -> Float32:
    return np.asarray(values, np.float32)


def predict(network: nn.Module, batch: Batch) -> Tensor:
    """Disparity [B,T,h,w], of an unknown unit."""
    rgb, before, after = (picture.flatten(0, 1) for picture in batch.rgb)
    correction = network(stack(rgb, before, after, batch.maps.flatten(0, 1)))
    return torch.exp(batch.maps[:, :, 3] + correction.unflatten(0, batch.maps.shape[:2]))


def loss_of(disparity: Tensor, batch: Batch) -> Tensor:
    """Relative error, gradients and order at borders, after one affine fit a clip."""
    fitted, known = _fit(disparity, batch), batch.known
    relative = (fitted - batch.inverse).abs() / (batch.inverse + 0.1)
    error = (relative * known).sum() / known.sum()
    residual, gradient = fitted - batch.inverse, fitted.new_zeros(())
    for step in (1, 2, 4, 8):
        r, k = residual[..., ::step, ::step], known[..., ::step, ::step]
        for d, both in (
            ((r[..., 1:] - r[..., :-1]).abs(), k[..., 1:] & k[..., :-1]),
            ((r[..., 1:, :] - r[..., :-1, :]).abs(), k[..., 1:, :] & k[..., :-1, :]),
        ):
            gradient = gradient + (d * both).sum() / both.sum().clamp_min(1)
    log = torch.log(fitted.clamp_min(0.02)).flatten(2)
    near, far = (torch.gather(log, 2, batch.pairs[:, :, side]) for side in (0, 1))
    has = (batch.pairs[:, :, 0] != batch.pairs[:, :, 1]).float()
    order = (functional.relu(_MARGIN - (near - far)) * has).sum() / has.sum().clamp_min(1) / _MARGIN
    return error + 0.25 * gradient + 0.15 * order


def _fit(disparity: Tensor, batch: Batch) -> Tensor:
    """scale >= 0 and shift a clip, least squares; differentiable."""
    weight = batch.known.float()
    total = weight.sum(dim=(1, 2, 3), keepdim=True)
    mean_x, mean_y = ((v * weight).sum(dim=(1, 2, 3), keepdim=True) / total for v in (disparity, batch.inverse))
    x, y = disparity - mean_x, batch.inverse - mean_y
    variance = (weight * x * x).sum(dim=(1, 2, 3), keepdim=True)
    scale = (weight * x * y).sum(dim=(1, 2, 3), keepdim=True) / variance.clamp_min(1e-6)
    return scale.clamp_min(0) * x + mean_y


def train(
    folder: Path, *, minutes: float, steps: int | None = None, seed: int = 0, start: Path | None = None
) -> tuple[nn.Module, list[float]]:
    """Train on the clips of a folder (it may still be filled); writes ``network.pt`` and ``network-STEPS.pt``.

    Args:
        folder: of `make_training_clip`.
        minutes: of wall time, which the learning rate follows (cosine).
        steps: at most so many.
        seed: of everything random.
        start: weights to go on from.

    Returns:
        The running mean of the weights, and the loss of every step.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = DepthNetwork().to(device)
    if start is not None:
        network.load_state_dict(torch.load(start, map_location=device, weights_only=True))
    running = get_ema_multi_avg_fn(_SETTLED)
    mean = AveragedModel(network, multi_avg_fn=running)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.02)
    began, losses = time.monotonic(), list[float]()
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1 and (steps is None or len(losses) < steps):
        files = stored_clips(folder)
        chosen = [files[i] for i in rng.choice(len(files), size=_CLIPS_A_STEP, replace=len(files) < _CLIPS_A_STEP)]
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (len(losses) + 1) / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * done)))
        batch = load_batch(chosen, rng, _FRAMES_A_CLIP, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            disparity = predict(network, batch)
        loss = loss_of(disparity.float(), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        mean.update_parameters(network)
        losses.append(loss.item())
        if len(losses) % _REPORT_STEPS == 0:
            recent = np.mean(losses[-_REPORT_STEPS:])
            print(f"{len(losses)} steps, {60 * minutes * done:.0f} s, {len(files)} clips: {recent:.4f}", flush=True)
            torch.save(mean.module.state_dict(), folder / f"network-{len(losses):05d}.pt")
    torch.save(mean.module.state_dict(), folder / "network.pt")
    return mean.module, losses
