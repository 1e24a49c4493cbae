"""What the pretrained estimators have in common: their entry in the registry, readiness, version, reading of frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ex4d.core.arrays import Float32
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthScale
from ex4d.core.video import Video
from ex4d.depth.estimator import Readiness, SequentialDepth, check_ready
from ex4d.depth.pretrained.pictures import MIN_SIDE_PX, prepare_pictures
from ex4d.errors import MissingDependencyError
from ex4d.io.depth.raw import DepthKind
from ex4d.weights.files import describe_weights
from ex4d.weights.registry import find_entry, resolve

_FRAMES_AT_ONCE = 4
_FULL_SIDE, _FAST_SIDE = 518, 294
"""What the ViT-S networks were trained on, and what takes a third of the time: 1 to 2 s a frame on two cores."""
_WIDE, _WIDE_FACTOR = 1.78, 1.777


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedEstimator:
    """The parts of `DepthEstimator` that follow from the entry of the same name in `weights.registry`.

    Attributes:
        name: of the estimator and of its entry.
    """

    name: str

    @property
    def licence(self) -> str:
        """Of the weights, by the registry."""
        return find_entry(self.name).licence

    @property
    def purpose(self) -> str:
        """By the registry."""
        return find_entry(self.name).purpose

    @property
    def weights(self) -> tuple[str, ...]:
        """Its own entry."""
        return (self.name,)

    @property
    def packages(self) -> tuple[str, ...]:
        """Of the extra ``gen``."""
        return ("torch", "transformers", "accelerate", "safetensors")

    @property
    def is_preview(self) -> bool:
        """They look at objects."""
        return False

    @property
    def is_instant(self) -> bool:
        """Never."""
        return False

    @property
    def brings_cameras(self) -> bool:
        """None of them knows K."""
        return False

    @property
    def version(self) -> str:
        """Of the code, and SHA-256 of the weights; without weights "1-none"."""
        if not self.ready().ready:
            return "1-none"
        hashes = [digest for name in self.weights for digest in describe_weights(resolve(name)).values()]
        return "-".join(["1", *hashes])

    def ready(self) -> Readiness:
        """Whether packages and weights are there."""
        return check_ready(packages=self.packages, weights=self.weights)

    def require(self) -> Path:
        """The file or folder of the weights.

        Raises:
            MissingDependencyError: a package is not installed.
            WeightsError: they were not pulled.
        """
        lost = check_ready(packages=self.packages, weights=())
        if not lost.ready:
            raise MissingDependencyError(lost.reason.removeprefix("not installed: "), "gen", f"--depth {self.name}")
        return resolve(self.name)


def iter_pictures(source: Clip[Video], size: tuple[int, int]) -> Iterator[tuple[int, Float32, Video]]:
    """Walk a clip once: (number of the first frame, pictures float32 [n,3,h,w] for a network, the frames)."""
    for start, chunk in iter_chunks(source, _FRAMES_AT_ONCE):
        yield start, prepare_pictures(chunk.frames, size), chunk


def pending_depth(
    source: Clip[Video], size: tuple[int, int], *, kind: DepthKind, scale: DepthScale, description: str
) -> SequentialDepth:
    """Depth of a clip at a network's (height, width) whose `chunks` are still to be set."""
    return SequentialDepth(
        num_frames=source.num_frames,
        height=size[0],
        width=size[1],
        timestamps_s=source.timestamps_s,
        chunks=iter(()),
        kind=kind,
        scale=scale,
        description=f"{description} at {size[1]}x{size[0]}",
    )


def default_short_side(height: int, width: int, *, full: bool) -> int:
    """Shorter side in px of what a ViT-S network sees: 518, or 294 where not `full`.

    Pictures wider than 16:9 (or higher than 9:16) get less, for memory; Video Depth Anything's rule.
    """
    side, ratio = _FULL_SIDE if full else _FAST_SIDE, max(height, width) / min(height, width)
    return side if ratio <= _WIDE else max(MIN_SIDE_PX, int(side * _WIDE_FACTOR / ratio))
