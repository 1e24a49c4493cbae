"""What `ex4d prepare` makes of clips: every setting that decides the bytes of a dataset."""

import math
from dataclasses import dataclass, field

from ex4d.dataset.layout import Bucket
from ex4d.depth.estimator import Device
from ex4d.errors import ConfigError
from ex4d.masking.config import MaskConfig

SIDE_STEP_PX = 16
"""Sides of what the model takes."""
_BUCKET = f"TxHxW with T = 4k+1 (k > 0), H and W in multiples of {SIDE_STEP_PX}"
ASPECTS = ((1, 1), (4, 3), (3, 4), (16, 9), (9, 16))
"""(width, height) of the buckets that are made of an area."""
FILES = "files"
"""What ``--depth`` takes for NAME.depth.npz beside each clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketConfig:
    """What segments are cut to.

    Attributes:
        buckets: ``"TxHxW"``: frames 4k+1, sides in multiples of 16 px. A clip goes to the nearest aspect, and to the
            longest number of frames that its shots hold.
        fps: rate that clips are resampled to; None: every frame, true timestamps.
        max_segments: of one clip, taken from its beginning.
        max_enlargement: a clip is refused that would have to grow by more, per side.
    """

    buckets: tuple[str, ...] = ()
    fps: float | None = None
    max_segments: int = 4
    max_enlargement: float = 1.25

    def __post_init__(self) -> None:
        if not self.buckets:
            object.__setattr__(self, "buckets", native_buckets(512, (49,)))
        if len(set(self.sizes())) != len(self.buckets):
            raise ConfigError("different buckets", ", ".join(self.buckets))
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError("bucket.fps above 0, at most 1000", str(self.fps))
        if self.max_segments < 1:
            raise ConfigError("bucket.max_segments of at least 1", str(self.max_segments))
        if not 1 <= self.max_enlargement < math.inf:
            raise ConfigError("bucket.max_enlargement of at least 1", str(self.max_enlargement))

    def sizes(self) -> list[Bucket]:
        """The buckets as numbers.

        Raises:
            ConfigError: one that is none.
        """
        return [parse_bucket(text) for text in self.buckets]


def parse_bucket(text: str) -> Bucket:
    """``"49x512x512"`` as (frames, height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"a bucket {_BUCKET}", repr(text), "e.g. 49x512x512")
    num_frames, height, width = map(int, parts)
    nearest = nearest_frames(num_frames), nearest_side(height), nearest_side(width)
    names = ("T", num_frames), ("H", height), ("W", width)
    wrong = [f"{name} = {given}" for (name, given), right in zip(names, nearest, strict=True) if given != right]
    if wrong:
        got = f"{', '.join(wrong)} in {text!r}"
        raise ConfigError(f"a bucket {_BUCKET}", got, f"the nearest is {'x'.join(map(str, nearest))}")
    return nearest


def nearest_frames(count: int) -> int:
    """The nearest number of frames that the model takes with at least two: 4k+1."""
    return max(5, (count + 1) // 4 * 4 + 1)


def nearest_side(side_px: float) -> int:
    """The nearest side that the model takes, px."""
    return max(1, round(side_px / SIDE_STEP_PX)) * SIDE_STEP_PX


def native_buckets(side_px: int, num_frames: tuple[int, ...]) -> tuple[str, ...]:
    """Buckets of about `side_px`² pixels at the aspects that videos have.

    Raises:
        ConfigError: a side or a number of frames that cannot be.
    """
    if side_px < SIDE_STEP_PX:
        raise ConfigError(f"--area of at least {SIDE_STEP_PX}", str(side_px))
    for count in num_frames:
        if count != nearest_frames(count):
            raise ConfigError("--num-frames of 4k+1 (k > 0)", str(count), f"the nearest is {nearest_frames(count)}")
    found: list[str] = []
    for count in num_frames:
        for wide, high in ASPECTS:
            height, width = side_px * math.sqrt(high / wide), side_px * math.sqrt(wide / high)
            found.append("x".join(map(str, (count, nearest_side(height), nearest_side(width)))))
    return tuple(dict.fromkeys(found))  # small areas round two aspects to one size


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What is refused.

    Attributes:
        cut_threshold: distance of colours between two frames from which on they may be a cut, 0–1; see `prepare.cuts`.
        min_motion: mean motion, px a second in a picture 100 px wide (per cent of the width a second).
        max_motion: the same, above which flow and tracks are no longer believed.
        max_still: share of frames that repeat the one before.
        black_level: mean luma of a frame that counts as black, 0–255.
        max_black: share of black frames.
        min_contrast: standard deviation of luma of the middle frame, 0–255.
        max_hash_distance: differing bits of 192 up to which segments of two clips are duplicates; −1: none is.
        min_scores: ``"NAME=NUMBER"``: refuse clips whose input gives a lower score, or none.
    """

    cut_threshold: float = 0.15
    min_motion: float = 0.25
    max_motion: float = 200.0
    max_still: float = 0.3
    black_level: float = 12.0
    max_black: float = 0.1
    min_contrast: float = 4.0
    max_hash_distance: int = 8
    min_scores: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, high in (("cut_threshold", 1), ("max_still", 1), ("max_black", 1), ("black_level", 255)):
            if not 0 <= getattr(self, name) <= high:
                raise ConfigError(f"gates.{name} from 0 to {high}", str(getattr(self, name)))
        if not 0 <= self.min_motion < self.max_motion:
            raise ConfigError("gates.min_motion from 0 to below max_motion", f"{self.min_motion}, {self.max_motion}")
        if not 0 <= self.min_contrast <= 128:
            raise ConfigError("gates.min_contrast from 0 to 128", str(self.min_contrast))
        if not -1 <= self.max_hash_distance <= 64:
            raise ConfigError("gates.max_hash_distance from -1 to 64", str(self.max_hash_distance))
        self.score_floors()

    def score_floors(self) -> dict[str, float]:
        """`min_scores` as numbers.

        Raises:
            ConfigError: one that is no ``NAME=NUMBER``.
        """
        floors: dict[str, float] = {}
        for text in self.min_scores:
            name, equals, number = text.rpartition("=")
            try:
                floors[name] = float(number)
                good = bool(name and equals) and math.isfinite(floors[name])
            except ValueError:
                good = False
            if not good:
                raise ConfigError("--min-score NAME=NUMBER", repr(text), "e.g. aesthetic=5")
        return floors


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What is made of a segment.

    Attributes:
        depth: an estimator's name, ``"auto"``, or ``"files"``: NAME.depth.npz beside each clip.
        depth_device: where networks run.
        depth_size: shorter side that networks see, px; None: their own choice.
        num_masks: simulated masks a sample, >= 1.
        masks: how they are drawn.
        crf: of the target's H.264, 0 (largest) to 51; 17 is visually lossless.
    """

    depth: str = "auto"
    depth_device: Device = "auto"
    depth_size: int | None = None
    num_masks: int = 2
    masks: MaskConfig = field(default_factory=MaskConfig)
    crf: int = 17

    def __post_init__(self) -> None:
        if not 1 <= self.num_masks <= 64:
            raise ConfigError("sample.num_masks from 1 to 64", str(self.num_masks))
        if not 0 <= self.crf <= 51:
            raise ConfigError("sample.crf of 0 to 51", str(self.crf))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """Everything that decides the bytes of a dataset, beside the clips.

    Attributes:
        items_per_shard: consecutive clips that make a shard, >= 1; a shard is what is done again after a crash.
        buckets: what segments are cut to.
        gates: what is refused.
        sample: what is made of the rest.
        seed: of every random choice.
    """

    items_per_shard: int = 64
    buckets: BucketConfig = field(default_factory=BucketConfig)
    gates: GateConfig = field(default_factory=GateConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.items_per_shard <= 100_000:
            raise ConfigError("--items-per-shard from 1 to 100000", str(self.items_per_shard))
        if not 0 <= self.seed < 2**63:
            raise ConfigError("--seed from 0 to 2^63 - 1", str(self.seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkConfig:
    """How clips are worked on; changes no byte.

    Attributes:
        timeout_s: longest time for one clip, seconds.
        memory_gib: address space of the process that works on clips; None: no limit.
        retries: times that a clip is tried again after a timeout, a crash or too much memory.
    """

    timeout_s: float = 1800.0
    memory_gib: float | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError("--timeout above 0 seconds", str(self.timeout_s))
        if self.memory_gib is not None and not 0.5 <= self.memory_gib < math.inf:
            raise ConfigError("--memory of at least 0.5 GiB", str(self.memory_gib))
        if not 0 <= self.retries <= 10:
            raise ConfigError("--retries from 0 to 10", str(self.retries))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig:
    """How latents are made; see `model.training_latents`.

    Attributes:
        seed: of the erosion of masks.
        mask_quirk: masks as the release gives them to the VAE (−3 and 1).
        device: where encoders run; decides no more than rounding.
    """

    seed: int = 0
    mask_quirk: bool = True
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError("--latents-device auto, cpu or cuda", repr(self.device))
        if not 0 <= self.seed < 2**63:
            raise ConfigError("--seed from 0 to 2^63 - 1", str(self.seed))
