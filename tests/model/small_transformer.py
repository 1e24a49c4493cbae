"""A transformer of a few narrow blocks, with seeded weights and inputs; and a counter of live tensor bytes."""

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ex4d.model.transformer import EX4DTransformer3DModel

torch.set_num_threads(1)  # tensors this small are slower with several, by far so where processes compete for cores

CONFIG: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "text_dim": 40,
    "freq_dim": 32,
    "ffn_dim": 256,
    "num_layers": 3,
    "image_dim": 48,
    "added_kv_proj_dim": 128,
}


def make_transformer(**changes: Any) -> EX4DTransformer3DModel:
    """float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EX4DTransformer3DModel(**{**CONFIG, **changes}).eval().requires_grad_(False)


def save_transformer(folder: Path, **changes: Any) -> Path:
    """A transformer folder as the stock one is stored: in float32."""
    make_transformer(**changes).save_pretrained(folder)
    return folder


@torch.no_grad()
def velocity(transformer: EX4DTransformer3DModel, *, seed: int = 1, width: int = 12) -> Tensor:
    """float32 output of one call with seeded inputs in the transformer's precision."""
    dtype = transformer.compute_dtype
    random = torch.Generator().manual_seed(seed)
    return transformer(
        torch.randn(1, 36, 3, 8, width, generator=random).to(dtype),
        torch.tensor([700.3]),
        torch.randn(1, 512, CONFIG["text_dim"], generator=random).to(dtype),
        torch.randn(1, 257, CONFIG["image_dim"], generator=random).to(dtype),
        geometry_latents=torch.randn(1, CONFIG["added_kv_proj_dim"], 3, 4, width // 2, generator=random),
        return_dict=False,
    )[0].float()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference by norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, as long as they live.

    Those of `known` tensors do not count, nor do tensors without memory (meta).

    Attributes:
        now: bytes alive.
        peak: most bytes alive at a time.
    """

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._sizes = {id(storage): 0 for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if type(tensor) in (Tensor, nn.Parameter):  # a quantised tensor is a shell around such
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if not tensor.is_meta and id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, id(storage))

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)
