"""Where the weights of a generation lie. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from ex4d.errors import WeightsError
from ex4d.model.config import TINY, GenerateConfig
from ex4d.weights.registry import resolve

_DEFAULT_ADAPTER, _DEFAULT_DISTILL = "ex4d", "distill-480p"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPaths:
    """Where the weights of a generation lie.

    Attributes:
        base: Wan2.1-I2V-14B as a diffusers folder; None = the random miniature.
        adapter: folder of EX-4D's adapter; None = the miniature's own.
        gguf: the transformer, quantised, if there is such a file in `base`.
        distill: LoRA of a distilled model, for ``draft``.
    """

    base: Path | None = None
    adapter: Path | None = None
    gguf: Path | None = None
    distill: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Name in provenance → folder or file."""
        named = {"base": self.base, "adapter": self.adapter, "distill": self.distill}
        return {name: path for name, path in named.items() if path is not None}


def find_weights(config: GenerateConfig) -> WeightPaths:
    """Where the weights are that a config names.

    Raises:
        WeightsError: something is missing; the message says how to get it.
    """
    if config.weights == TINY:
        return WeightPaths(adapter=None if config.adapter == "auto" else resolve(config.adapter))
    base = resolve(config.weights)
    if not (base / "model_index.json").is_file():
        got = f"{base}, which is none" if base.is_dir() else f"the file {base}"
        raise WeightsError("a diffusers folder for --weights", got, "see `ex4d weights convert` and `pull`")
    if config.adapter != "auto":
        adapter = resolve(config.adapter)
    else:
        adapter = base if (base / "lora" / "lora.json").is_file() else resolve(_DEFAULT_ADAPTER)
    return WeightPaths(
        base=base,
        adapter=adapter,
        gguf=next(iter(sorted(base.glob("*.gguf"))), None),
        distill=resolve(_DEFAULT_DISTILL) if config.preset == "draft" else None,
    )
