"""Speed of the transformer: attention implementation, compiled blocks, step caches.

Order: load → fuse LoRAs → quantise → compile → offload → step cache → context parallelism. Compiling comes before
whatever hooks blocks: the hooks then stay outside of the compiled code, and all blocks share one compilation.
"""

from typing import Any, Literal

import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.hooks import HookRegistry
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from ex4d.errors import ConfigError
from ex4d.model.config import Attention
from ex4d.model.transformer import EX4DTransformer3DModel

BACKENDS: dict[Attention, str] = {
    "auto": "native",
    "native": "native",
    "cudnn": "_native_cudnn",
    "flash": "flash",
    "flash3": "_flash_3",
    "sage": "sage",
}
"""Our name → diffusers'. ``auto`` lets PyTorch choose: cuDNN on Hopper and Blackwell (torch >= 2.11), else its
FlashAttention 2 on NVIDIA GPUs. sage computes in 8 bits and is never chosen unasked."""

CUDNN_VERSION = 91501
"""Older ones read beyond the keys if their number is no multiple of 128 (pytorch#169849); the image has 257."""

_COMPILED = "_ex4d_is_compiled"

FIRST_BLOCK_THRESHOLD = 0.05
"""diffusers' default; unproven for EX-4D."""


def set_attention(transformer: WanTransformer3DModel, name: Attention, device: torch.device | str) -> None:
    """Choose the implementation of attention and try it once on the device.

    Args:
        transformer: changed in place; other models of the process keep theirs.
        name: one of `BACKENDS`.
        device: where the transformer computes.

    Raises:
        ConfigError: it does not work here; says why.
    """
    device = torch.device(device)
    if device.type != "cuda" and name not in ("auto", "native"):
        raise _unavailable(name, f"the device {device}: it needs an NVIDIA GPU")
    if name == "cudnn" and (torch.backends.cudnn.version() or 0) < CUDNN_VERSION:
        raise _unavailable(name, f"cuDNN {torch.backends.cudnn.version()}, which is older than {CUDNN_VERSION}")
    try:
        with attention_backend("native"):  # set_attention_backend also changes the process-wide default: undo that
            transformer.set_attention_backend(BACKENDS[name])
        if name not in ("auto", "native"):
            _try_attention(BACKENDS[name], transformer.config["attention_head_dim"], device)
    except (RuntimeError, ValueError, ImportError, TypeError) as error:
        raise _unavailable(name, str(error).strip() or type(error).__name__) from error


def check_attention(name: Attention, device: torch.device | str) -> None:
    """Raise as `set_attention` would, before any weights are loaded."""
    blank = EX4DTransformer3DModel(num_layers=1, num_attention_heads=1, ffn_dim=8, text_dim=8, added_kv_proj_dim=128)
    set_attention(blank, name, device)


def compile_blocks(
    transformer: WanTransformer3DModel, device: torch.device | str, *, backend: str = "inductor"
) -> None:
    """Compile each block's forward; compilation happens in the first call, once for all blocks.

    A second size recompiles with symbolic sizes (torch's default), so that windows, tiles and clips of other sizes
    do not compile again and again.

    Args:
        transformer: changed in place; blocks without offload or cache hooks.
        device: where it computes.
        backend: of `torch.compile`.

    Raises:
        ConfigError: no working compiler here; or hooks are there already.
    """
    if any(getattr(block, "_diffusers_hook", None) and block._diffusers_hook.hooks for block in _blocks(transformer)):
        raise ConfigError("blocks compiled before they are offloaded or cached", "hooks on them")
    check_compiler(device, backend=backend)
    for block in _blocks(transformer):
        # not block.compile(): that would trace the hooks of offloading and caches, once for every block
        block.forward = torch.compile(block.forward, backend=backend)
    setattr(transformer, _COMPILED, True)


def is_compiled(transformer: WanTransformer3DModel) -> bool:
    """Whether `compile_blocks` was here."""
    return getattr(transformer, _COMPILED, False)


def enable_step_cache(
    transformer: WanTransformer3DModel,
    kind: Literal["none", "first-block", "fixed"],
    *,
    num_inference_steps: int,
    threshold: float = FIRST_BLOCK_THRESHOLD,
    skip: int = 1,
    warmup: float = 0.2,
) -> None:
    """Reuse the blocks' work of earlier steps; replaces a cache that is there.

    The transformer must be called within ``cache_context(name)``, a name for every CFG branch and tile, and
    `reset_step_cache` called before every window: a cache must not outlive its latents.

    Args:
        transformer: changed in place, after offloading.
        kind: ``first-block`` skips the other blocks when the first one's change is small; ``fixed`` skips by
            `presets.fixed_schedule`, whatever the content: for timing only.
        num_inference_steps: of the denoising loop.
        threshold: of ``first-block``: relative change of the residual, >= 0.
        skip: of ``fixed``.
        warmup: of ``fixed``.
    """
    if transformer.is_cache_enabled:
        transformer.disable_cache()
    if kind == "first-block":
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    elif kind == "fixed":
        # a magnitude cache whose ratios of 1 accumulate no error: only its limit on consecutive skips is left
        transformer.enable_cache(
            MagCacheConfig(
                mag_ratios=[1.0] * num_inference_steps,
                num_inference_steps=num_inference_steps,
                threshold=0.0,
                retention_ratio=warmup,
                max_skip_steps=skip,
            )
        )


def reset_step_cache(transformer: WanTransformer3DModel) -> None:
    """Forget what earlier steps left: another window or clip begins. The kind of cache stays."""
    HookRegistry.check_if_exists_or_initialize(transformer).reset_stateful_hooks()


def _blocks(transformer: WanTransformer3DModel) -> list[Any]:
    return list(transformer.blocks)


@torch.no_grad()
def _try_attention(backend: str, head_dim: int, device: torch.device) -> None:
    """One call with the odd number of keys that images have."""
    query, key = (torch.zeros(1, length, 2, head_dim, dtype=torch.bfloat16, device=device) for length in (130, 257))
    dispatch_attention_fn(query, key, key, backend=AttentionBackendName(backend))
    torch.cuda.synchronize(device)


def check_compiler(device: torch.device | str, *, backend: str = "inductor") -> None:
    """Raise ConfigError unless something can be compiled here; takes seconds."""
    try:
        torch.compile(nn.functional.silu, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # torch wraps whatever the compiler raised
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            "a working compiler for --compile",
            lines[0][:300],
            "install a C++ compiler and the Python headers (and triton for a GPU), or use --compile off",
        ) from error


def _unavailable(name: str, reason: str) -> ConfigError:
    return ConfigError(f"--attention {name} that works here", reason, "--attention auto, or install what is missing")
