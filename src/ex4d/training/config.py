"""What a training run is: frozen settings, read from a recipe. Imports no torch."""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ex4d.errors import ConfigError
from ex4d.pipeline.config import config_from_dict

RECIPES = ("paper", "tiny")
"""Shipped with the package, `recipes/NAME.toml`."""

AUTO = "auto"
"""As ``data.latents``: the dataset's latent cache, if it has one."""

Trained = Literal["adapter", "all"]
Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is trained, and how the rest is kept.

    Attributes:
        trained: ``adapter``: geometry encoder and LoRA, the base is frozen; ``all``: every weight, from scratch.
        rank: of the LoRA.
        alpha: scale of the LoRA times its rank.
        precision: of the transformer's computation; LoRA, encoder, optimizer and EMA are float32 either way.
        fp8_base: frozen matrices of the blocks are stored in float8 with a scale for each row, and multiplied in
            `precision`.
        checkpointing: blocks are computed again on the way back instead of keeping their activations.
    """

    trained: Trained = "adapter"
    rank: int = 16
    alpha: float = 16.0
    precision: Precision = "bf16"
    fp8_base: bool = False
    checkpointing: bool = True

    def __post_init__(self) -> None:
        _check_choice("model.trained", self.trained, ("adapter", "all"))
        _check_choice("model.precision", self.precision, ("bf16", "fp32"))
        _check_range("model.rank", self.rank, 1, 1024)
        _check_range("model.alpha", self.alpha, 0, math.inf, open_low=True)
        if self.trained == "all" and (self.fp8_base or self.precision == "bf16"):
            got = "fp8_base" if self.fp8_base else "bf16"
            raise ConfigError('precision "fp32" and no fp8_base with model.trained "all"', got)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised (`objective`).

    Attributes:
        num_timesteps: how many there are to draw from, evenly before the shift.
        shift: s in σ' = sσ / (1 + (s−1)σ).
        weighting: of the squared error by timestep: ``bell`` or ``none``.
        prediction: what the network's output means: ``velocity`` (noise − clean), or ``clean``, turned into the
            velocity (noisy − clean) / σ; the error is that of the velocity either way.
        min_sigma: timesteps of a smaller σ' are not drawn; above 0 for ``clean``.
    """

    num_timesteps: int = 1000
    shift: float = 5.0
    weighting: Literal["bell", "none"] = "bell"
    prediction: Literal["velocity", "clean"] = "velocity"
    min_sigma: float = 0.0

    def __post_init__(self) -> None:
        _check_range("objective.num_timesteps", self.num_timesteps, 1, 100_000)
        _check_range("objective.shift", self.shift, 0, 1000, open_low=True)
        _check_choice("objective.weighting", self.weighting, ("bell", "none"))
        _check_choice("objective.prediction", self.prediction, ("velocity", "clean"))
        _check_range("objective.min_sigma", self.min_sigma, 0, 1)
        if self.prediction == "clean" and self.min_sigma == 0:
            raise ConfigError('objective.min_sigma above 0 with prediction "clean"', "0", "e.g. 0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW and what surrounds it.

    Attributes:
        lr: peak learning rate.
        betas: two decay rates of AdamW.
        eps: of AdamW.
        weight_decay: of AdamW.
        warmup_steps: the rate rises linearly over so many steps.
        cosine: the rate then falls to 0 at the last step along a half cosine; else it stays.
        max_grad_norm: longer gradients are shortened to this.
        ema_decay: of the running average of the trained weights, which is what is exported; 0 = none.
    """

    lr: float = 3e-5
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 0
    cosine: bool = False
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_range("optimizer.lr", self.lr, 0, 1, open_low=True)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("two optimizer.betas, each at least 0 and below 1", str(self.betas))
        _check_range("optimizer.eps", self.eps, 0, 1, open_low=True)
        _check_range("optimizer.weight_decay", self.weight_decay, 0, 10)
        _check_range("optimizer.warmup_steps", self.warmup_steps, 0, 10**9)
        _check_range("optimizer.max_grad_norm", self.max_grad_norm, 0, math.inf, open_low=True)
        if not 0 <= self.ema_decay < 1:
            raise ConfigError("optimizer.ema_decay of at least 0, below 1", str(self.ema_decay))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How samples become batches.

    Attributes:
        micro_batch: samples of one bucket that are computed together.
        num_micro_batches: of one step, over all processes, which share them out evenly.
        bucket: ``TxHxW``: only samples of this size; "" = all.
        latents: key of the dataset's latent cache, or ``auto``; "" = samples are encoded while training.
        caption_dropout: share of samples whose caption is left out.
        prior_dropout: share of samples whose colour and mask are left out: the image alone is given.
        mask_quirk: see `preprocess.observed_to_model`.
    """

    micro_batch: int = 1
    num_micro_batches: int = 1
    bucket: str = ""
    latents: str = ""
    caption_dropout: float = 0.0
    prior_dropout: float = 0.0
    mask_quirk: bool = True

    def __post_init__(self) -> None:
        _check_range("data.micro_batch", self.micro_batch, 1, 4096)
        _check_range("data.num_micro_batches", self.num_micro_batches, 1, 65536)
        _check_range("data.caption_dropout", self.caption_dropout, 0, 1)
        _check_range("data.prior_dropout", self.prior_dropout, 0, 1)
        self.only_bucket()

    def only_bucket(self) -> tuple[int, int, int] | None:
        """(num_frames, height, width) of `bucket`; None = all."""
        if not self.bucket:
            return None
        parts = self.bucket.split("x")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise ConfigError("data.bucket TxHxW", repr(self.bucket), "e.g. 49x512x512")
        return int(parts[0]), int(parts[1]), int(parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """What is written while training.

    Attributes:
        checkpoint_every: steps; there is always one after the last.
        keep_last: checkpoints kept, the newest.
        validate_every: steps between pictures of the validation sample; 0 = none.
        validation_steps: Euler steps of such a picture.
        guidance_scale: of such a picture.
        tensorboard: also write TensorBoard's files.
    """

    checkpoint_every: int = 500
    keep_last: int = 3
    validate_every: int = 0
    validation_steps: int = 25
    guidance_scale: float = 1.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _check_range("output.checkpoint_every", self.checkpoint_every, 1, 10**9)
        _check_range("output.keep_last", self.keep_last, 1, 10**6)
        _check_range("output.validate_every", self.validate_every, 0, 10**9)
        _check_range("output.validation_steps", self.validation_steps, 1, 1000)
        _check_range("output.guidance_scale", self.guidance_scale, 1, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides what is trained; a recipe holds these fields.

    Attributes:
        num_steps: optimizer steps.
        seed: of every random choice.
        sharding: over several processes: ``ddp`` (each holds everything) or ``fsdp`` (weights are shared out).
        model: what is trained.
        objective: what is minimised.
        optimizer: how.
        data: on what.
        output: what is written.
    """

    num_steps: int
    seed: int = 0
    sharding: Literal["ddp", "fsdp"] = "ddp"
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        _check_range("num_steps", self.num_steps, 1, 10**9)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_choice("sharding", self.sharding, ("ddp", "fsdp"))
        if self.sharding == "fsdp" and self.model.fp8_base:
            raise ConfigError('sharding "ddp" with model.fp8_base', '"fsdp"', "float8 matrices are not shared out")

    def digest(self) -> str:
        """Hex digest of what must be equal for a run to be resumed."""
        return hashlib.sha256(json.dumps(self._decisive(), sort_keys=True).encode()).hexdigest()

    def differing(self, other: "TrainConfig") -> list[str]:
        """Names of the fields for which `digest` differs, e.g. ``optimizer.lr``."""
        mine, others = _flat(self._decisive()), _flat(other._decisive())
        return sorted(name for name in {*mine, *others} if mine.get(name) != others.get(name))

    def _decisive(self) -> dict[str, Any]:
        """Not what is written, nor how work is shared out; the number of steps only where the rate depends on it."""
        data = asdict(self)
        for name in ("output", "sharding", *(() if self.optimizer.cosine else ("num_steps",))):
            del data[name]
        del data["data"]["latents"]  # the same tensors, only sooner
        del data["model"]["checkpointing"]
        return data


def load_recipe(recipe: str) -> TrainConfig:
    """The settings of a recipe.

    Args:
        recipe: a shipped one's name, or a TOML file.

    Raises:
        ConfigError: no such recipe, no TOML, or a field unknown, of another type or out of range.
    """
    path = Path(recipe)
    if recipe in RECIPES:
        text, where = (resources.files("ex4d.training") / "recipes" / f"{recipe}.toml").read_text("utf-8"), recipe
    else:
        where = str(path)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ConfigError(
                f"a recipe: {', '.join(RECIPES)} or a TOML file", f"{recipe} ({reason})", "see docs/training.md"
            ) from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fix = "mend that line; a text stands in quotes, a section in brackets: see docs/training.md"
        raise ConfigError(f"a recipe in TOML at {where}", str(error), fix) from error
    try:
        return config_from_dict(TrainConfig, content, "")
    except ConfigError as error:
        raise ConfigError(f"{error.expected} in {where}", error.got, error.fix) from error


def config_from_json(data: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `config_to_json`.

    Raises:
        ConfigError: a field that does not exist, has another type or is out of range.
    """
    return config_from_dict(TrainConfig, data, "config")


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """JSON types only."""
    data = asdict(config)
    data["optimizer"]["betas"] = list(config.optimizer.betas)
    return data


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name → value."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} {' or '.join(allowed)}", repr(value))


def _check_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not (math.isfinite(value) and low <= value <= high and not (open_low and value == low)):
        upper = f" and at most {_plain(high)}" if math.isfinite(high) else ""
        raise ConfigError(f"{name} {'above' if open_low else 'of at least'} {_plain(low)}{upper}", str(value))


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
