"""One sample to its latents: what runs in the process that keeps the encoders (``ex4d[train]``)."""

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from ex4d.core.seeding import make_rng
from ex4d.dataset.latents import ROWS
from ex4d.dataset.reader import Dataset
from ex4d.errors import OutOfMemoryError, WeightsError
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.model.training_latents import TEXT, encode_sample
from ex4d.model.wan_pipeline import EX4DPipeline

if TYPE_CHECKING:
    from ex4d.prepare.latents import LatentSettings

_RESIDENT = ("vae", "image_encoder", "text_encoder")


def make_handler(settings: "LatentSettings") -> "LatentEncoder":
    """For `jobs.child.ChildSpec`."""
    torch.set_num_threads(1 if settings.config.device == "cpu" else torch.get_num_threads())
    return LatentEncoder(settings)


class LatentEncoder:
    """Encodes one sample after the other."""

    def __init__(self, settings: "LatentSettings") -> None:
        wanted = settings.config.device
        name = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and not torch.cuda.is_available():
            raise WeightsError("a CUDA GPU for --latents-device cuda", "none", "use --latents-device cpu")
        self._device = torch.device(name)
        self._config, self._dataset = settings.config, Dataset.open(settings.dataset)
        if settings.base is None:
            self._pipe = make_tiny_pipeline(attach=False)
        else:
            self._pipe = EX4DPipeline.from_pretrained(settings.base, transformer=None, geometry_encoder=None)
        for part in _RESIDENT:
            getattr(self._pipe, part).to(self._device)
        self._pipe.place(self._device, resident=_RESIDENT)

    def __call__(self, number: int) -> bytes:
        """A sample's tensors as safetensors, float16; text without its padding.

        Raises:
            DatasetError: the sample is damaged.
            OutOfMemoryError: the GPU has no room for it.
            WeightsError: the encoders give numbers that float16 cannot hold.
        """
        sample = self._dataset.read(number)
        seed = int(make_rng(self._config.seed, "latents", sample.key).integers(2**31))
        try:
            tensors = encode_sample(
                self._pipe,
                sample.video.frames,
                sample.survived,
                sample.caption,
                seed=seed,
                mask_quirk=self._config.mask_quirk,
            )
        except torch.OutOfMemoryError as error:
            fix = "smaller buckets, or --latents-device cpu"
            raise OutOfMemoryError("room for the VAE on the GPU", str(error).split("\n")[0], fix) from error
        return pack(tensors)


def pack(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as they are stored; `dataset.latents` restores the zeros after the text.

    Raises:
        WeightsError: a number that float16 cannot hold.
    """
    stored = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    bad = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError("encoders that give finite numbers below 65504", f"others in {', '.join(bad)}", "check them")
    used = stored[TEXT].any(dim=1).nonzero()
    rows = len(stored[TEXT])
    stored[TEXT] = stored[TEXT][: int(used[-1]) + 1 if len(used) else 1].contiguous()
    return save(stored, metadata={f"{ROWS}{TEXT}": str(rows)})
