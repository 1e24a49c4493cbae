"""What each way of keeping the transformer in memory is estimated to need. Imports no torch.

Where the numbers come from:

- parameters: counted from the layers of Wan2.1-I2V-14B (`ModelSize`), 16.39 B; umT5 5.68 B, CLIP 0.631 B,
  VAE 126.9 M, geometry encoder 23.1 M;
- activations: counted from the lifetimes of all tensors of one forward pass at full size (fake tensors, eager,
  without allocator slack and kernel workspaces), so they are estimates, as is the reserve for what is not counted.

Text and image encoders never count together with each other or with the transformer's load: text is encoded before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ex4d.model.sizes import num_tokens
from ex4d.model.windows import latent_frames

PlanName = Literal["bf16", "fp8", "int8", "gguf", "offload", "cpu"]
GIB = 2**30

TEXT_ENCODER_GIB = 5.68e9 * 2 / GIB + 0.3
"""umT5 in bf16 and its activations at 512 tokens."""
IMAGE_ENCODER_GIB = 0.631e9 * 2 / GIB + 0.1
GEOMETRY_ENCODER_GIB = 23.1e6 * 4 / GIB
VAE_PARAMETERS = 126.9e6
SMALL_PARAMS = 1e9
"""Transformers below this come with a small text encoder, and are computed on a CPU without asking."""
RESERVE_GIB = 0.6
"""CUDA context, kernel workspaces and allocator slack; an estimate."""
HOST_RESERVE_GIB = 3.0
"""Python, CUDA libraries, the clip; an estimate."""

TOKEN_UNITS = 13.0
"""Peak of a forward pass, in tensors [tokens, width] of bf16: 11.3 counted with the LoRA fused, 12.9 beside."""
GEOMETRY_UNITS = 1.0
STEP_CACHE_UNITS = 6.0
"""First-block cache: head output, head residual and tail residual, for each CFG branch."""
QUANTIZE_BYTES = 13.0
"""Temporary bytes a weight while the largest matrix becomes float8 (through float32); int8 needs 8."""
DEQUANTIZE_BYTES: Mapping[str, float] = {"fp8": 10.0, "int8": 2.0, "gguf": 10.0}
"""Temporary bytes a weight while the largest matrix is used."""

VAE_ENCODE_BYTES: Mapping[str, float] = {"fp32": 14_200, "bf16": 7_500}
VAE_DECODE_BYTES: Mapping[str, float] = {"fp32": 19_500, "bf16": 10_200}
"""Peak bytes a pixel of one frame (frames are taken four at a time), the video itself aside."""
TILE_PIXELS = 256 * 256
"""Of diffusers' VAE tiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Parameter counts of a transformer.

    Attributes:
        num_blocks: transformer blocks.
        block_params: in each of them.
        other_params: embeddings, time and text projections, head.
        width: of a token.
        largest_matrix: weights of the largest matrix in a block.
    """

    num_blocks: int
    block_params: int
    other_params: int
    width: int
    largest_matrix: int

    @property
    def params(self) -> int:
        """All of them."""
        return self.num_blocks * self.block_params + self.other_params


def model_size(config: Mapping[str, Any]) -> ModelSize:
    """Parameter counts of an image-to-video Wan transformer from its ``config.json``."""
    d, f = config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"]
    patch = math.prod(config.get("patch_size", (1, 2, 2)))
    image, text, freq = config["image_dim"], config.get("text_dim", 4096), config.get("freq_dim", 256)
    block = 10 * (d * d + d) + 2 * d * f + f + d + 13 * d
    time_and_text = (freq + 1) * d + (d + 1) * d + 6 * (d + 1) * d + (text + 1) * d + (d + 1) * d
    image_embedder = 2 * image + (image + 1) * image + (image + 1) * d + 2 * d
    ends = (config.get("in_channels", 36) * patch + 1) * d + (d + 1) * config.get("out_channels", 16) * patch + 2 * d
    return ModelSize(
        num_blocks=config["num_layers"],
        block_params=block,
        other_params=time_and_text + image_embedder + ends,
        width=d,
        largest_matrix=max(d * f, d * d),
    )


FULL_SIZE = model_size(
    {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "image_dim": 1280, "num_layers": 40}
)
"""Wan2.1-I2V-14B: 16.39 B, 403.8 M a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is generated at a time.

    Attributes:
        num_frames: of a window, 4k+1.
        height: px.
        width: px.
        tile: (height, width) px that the transformer sees at a time; None = the whole frame.
        vae_dtype: precision of the VAE.
        step_cache: a first-block or magnitude cache is on.
        text_cached: the prompts' embeddings are at hand, umT5 is not needed.
    """

    num_frames: int
    height: int
    width: int
    tile: tuple[int, int] | None = None
    vae_dtype: Literal["fp32", "bf16"] = "fp32"
    step_cache: bool = False
    text_cached: bool = False

    @property
    def num_latent_frames(self) -> int:
        """k+1."""
        return latent_frames(self.num_frames)

    @property
    def num_tokens(self) -> int:
        """Tokens of one forward pass."""
        height, width = self.tile or (self.height, self.width)
        return num_tokens(self.num_latent_frames, min(height, self.height), min(width, self.width))

    @property
    def num_pixels(self) -> int:
        """Of a frame."""
        return self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How the transformer is kept, and what goes with it.

    Attributes:
        name: as in ``--plan``.
        summary: what it does, in one sentence.
        precision: of the weights of the blocks; everything else is bfloat16, norms and time embedding float32.
        offload: blocks wait in host memory and visit the GPU one after the other.
        resident: pipeline components that stay where they are; others visit the GPU while they are needed.
        vae_tiling: the VAE works on tiles of 256×256 px.
        text_encoder: where umT5 runs, before the transformer is loaded.
        pinned: with `offload`: blocks are page-locked, so that copies overlap with computation.
    """

    name: PlanName
    summary: str
    precision: Literal["bf16", "fp8", "int8", "gguf", "fp32"]
    offload: bool = False
    resident: tuple[str, ...] = ("transformer",)
    vae_tiling: bool = False
    text_encoder: Literal["gpu", "cpu"] = "gpu"
    pinned: bool = True


PLANS: Mapping[PlanName, MemoryPlan] = {
    plan.name: plan
    for plan in (
        MemoryPlan(name="bf16", summary="all weights on the GPU in bfloat16", precision="bf16"),
        MemoryPlan(name="fp8", summary="blocks on the GPU in 8-bit float", precision="fp8"),
        MemoryPlan(name="int8", summary="blocks on the GPU in 8-bit integers", precision="int8"),
        MemoryPlan(name="gguf", summary="blocks on the GPU as the GGUF file has them", precision="gguf"),
        MemoryPlan(
            name="offload",
            summary="blocks in bfloat16 in host memory, copied to the GPU one after the other",
            precision="bf16",
            offload=True,
        ),
        MemoryPlan(
            name="cpu",
            summary="everything on the CPU in float32",
            precision="fp32",
            resident=("transformer", "vae", "text_encoder", "image_encoder", "geometry_encoder"),
            text_encoder="cpu",
        ),
    )
}
"""From the best to the smallest; ``cpu`` is none of them and only taken when asked for or for a small model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a plan is estimated to need, GiB.

    Attributes:
        load_gib: peak on the GPU while weights are loaded and text is encoded.
        run_gib: peak on the GPU while windows are generated.
        host_gib: peak of host memory.
        breakdown: part → GiB on the GPU; ``text encoder`` and ``load`` come before, the last three one at a time.
    """

    load_gib: float
    run_gib: float
    host_gib: float
    breakdown: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak_gib(self) -> float:
        """The larger of `load_gib` and `run_gib`."""
        return max(self.load_gib, self.run_gib)


def estimate(
    plan: MemoryPlan, work: Workload, *, size: ModelSize = FULL_SIZE, gguf_gib: float | None = None
) -> Estimate:
    """What a plan needs for a piece of work; the formulas are in this file's head and constants.

    Args:
        plan: one of `PLANS`, or a variant of it.
        work: what is generated.
        size: of the transformer.
        gguf_gib: size of the GGUF file; None = of Q4_0 (4.5 bits a weight).
    """
    host = _host_gib(plan, work, size, gguf_gib)
    if plan.name == "cpu":
        return Estimate(load_gib=0.0, run_gib=0.0, host_gib=host)
    block = size.block_params * 2 / GIB
    weights, load = _transformer_gib(plan, size, gguf_gib), 0.0
    if plan.precision in ("fp8", "int8"):
        load = block + size.largest_matrix * QUANTIZE_BYTES / GIB
    unit = size.width * 2 / GIB
    units = TOKEN_UNITS + STEP_CACHE_UNITS * work.step_cache
    denoise = units * unit * work.num_tokens
    denoise += GEOMETRY_UNITS * unit * work.num_latent_frames * work.num_pixels / 256
    denoise += DEQUANTIZE_BYTES.get(plan.precision, 0.0) * size.largest_matrix / GIB
    parts = {
        "text encoder": _text_encoder_gib(plan, work, size, "gpu"),
        "load": load,
        "transformer": weights,
        "reserve": RESERVE_GIB,
        "denoise": denoise,
        "image encoder": IMAGE_ENCODER_GIB,
        "vae": _vae_gib(plan, work),
    }
    visiting = 2 * block if plan.offload else 0.0  # gone while other components work
    return Estimate(
        load_gib=RESERVE_GIB + max(weights + load, parts["text encoder"]),
        run_gib=RESERVE_GIB + weights + max(denoise, max(parts["vae"], IMAGE_ENCODER_GIB) - visiting),
        host_gib=host,
        breakdown=parts,
    )


def _transformer_gib(plan: MemoryPlan, size: ModelSize, gguf_gib: float | None) -> float:
    """Weights on the GPU; a block that is computed and the next one if they only visit."""
    blocks = size.num_blocks * size.block_params
    if plan.offload:
        return (2 * size.block_params + size.other_params) * 2 / GIB
    if plan.precision == "gguf":
        in_blocks = blocks * 4.5 / 8 / GIB if gguf_gib is None else max(gguf_gib - size.other_params * 4 / GIB, 0.0)
        return in_blocks + size.other_params * 2 / GIB
    return (blocks * {"bf16": 2, "fp8": 1, "int8": 1}[plan.precision] + size.other_params * 2) / GIB


def _vae_gib(plan: MemoryPlan, work: Workload) -> float:
    """Weights, the video, and the activations of decoding: they are larger than those of encoding."""
    value_bytes = 4 if work.vae_dtype == "fp32" else 2
    video = 3 * value_bytes * work.num_frames * work.num_pixels
    pixels = min(TILE_PIXELS, work.num_pixels) if plan.vae_tiling else work.num_pixels
    peak = VAE_DECODE_BYTES[work.vae_dtype] * pixels + video
    if plan.vae_tiling:  # all decoded tiles (1.8 times the video: they overlap), later joined and clamped
        peak = max(peak + video, 4.7 * video)
    encode = VAE_ENCODE_BYTES[work.vae_dtype] * pixels + video
    return (VAE_PARAMETERS * value_bytes + max(peak, encode)) / GIB + GEOMETRY_ENCODER_GIB


def _host_gib(plan: MemoryPlan, work: Workload, size: ModelSize, gguf_gib: float | None) -> float:
    """Host memory: what passes through while loading, blocks that wait there, umT5 if it runs there."""
    full = size.params / GIB
    if plan.name == "cpu":
        transformer = 4 * full + 2 * TOKEN_UNITS * size.width * 2 * work.num_tokens / GIB
        transformer += _vae_gib(plan, work)
    elif plan.offload:
        transformer = (size.num_blocks * _pinned_bytes(size) / GIB) if plan.pinned else 2 * full
    elif plan.precision == "gguf":
        transformer = gguf_gib if gguf_gib is not None else full * 4.5 / 8
    else:
        transformer = 2 * size.block_params * 4 / GIB
    return HOST_RESERVE_GIB + max(transformer, _text_encoder_gib(plan, work, size, "cpu"))


def _text_encoder_gib(plan: MemoryPlan, work: Workload, size: ModelSize, place: str) -> float:
    """What umT5 needs in this place."""
    needed = plan.text_encoder == place and not work.text_cached and size.params >= SMALL_PARAMS
    return TEXT_ENCODER_GIB if needed else 0.0


def _pinned_bytes(size: ModelSize) -> int:
    """The matrices of a block in page-locked memory: torch rounds each up to a power of two."""
    return 10 * _power_of_two(2 * size.width**2) + 2 * _power_of_two(2 * size.largest_matrix)


def _power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()
