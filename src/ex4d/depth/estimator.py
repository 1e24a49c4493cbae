"""What a depth estimator is: a Protocol, what it is told, and what it returns frame by frame."""

import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthScale
from ex4d.core.subject import SubjectMask
from ex4d.core.video import Video
from ex4d.errors import DepthError
from ex4d.io.depth.raw import DepthKind, RawDepth, RawDepthSource
from ex4d.motion.landmarks import Landmarks
from ex4d.weights.registry import find_entry, is_pulled

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether an estimator can run now, without any download.

    Attributes:
        ready: True when its packages and weights are there.
        reason: what is missing.
        fix: the command that gets it.
    """

    ready: bool
    reason: str = ""
    fix: str = ""


def _ignore(_: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRequest:
    """What an estimator is told beside the clip.

    Attributes:
        K: float64 [3,3] of the clip's camera, px, corner origin, or None where nobody knows.
        cameras: the source cameras, in an unknown unit unless `cameras_metric`; None where they are not known.
            A camera that is known to stand still has a path too.
        cameras_metric: whether translations of `cameras` are metres.
        landmarks: points in the world that frames see, in the unit of `cameras`; None without parallax.
        subject: bool [T,H,W] as a clip of the same size: True on what shall stand upright, or None.
        short_side: shorter side that a network sees, px; None: the estimator's own choice for the device.
        device: where networks run; ``"auto"``: CUDA where there is some.
        seed: of every random choice.
        advance: told how many frames were finished since it was last called.
    """

    K: Float64 | None = None
    cameras: CameraPath | None = None
    cameras_metric: bool = False
    landmarks: Landmarks | None = None
    subject: Clip[SubjectMask] | None = None
    short_side: int | None = None
    device: Device = "auto"
    seed: int = 0
    advance: Callable[[int], None] = field(default=_ignore)

    def key(self) -> str:
        """Hex digest of everything above that can change a result: part of the cache key."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.short_side} {self.device} {self.seed} {self.cameras_metric}".encode())
        if self.K is not None:
            digest.update(b"K" + self.K.tobytes())
        if self.cameras is not None:
            digest.update(b"C" + self.cameras.K.tobytes() + self.cameras.world_to_camera.tobytes())
        if self.landmarks is not None:
            digest.update(b"L" + self.landmarks.points.tobytes())
        if self.subject is not None:
            for start in range(self.subject.num_frames):
                digest.update(self.subject.read(start, start + 1).subject.tobytes())
        return digest.hexdigest()


class DepthEstimator(Protocol):
    """Turns a clip into raw depth or disparity."""

    @property
    def name(self) -> str:
        """The word that ``--depth`` takes."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever its output may: part of the cache key (weights and settings included)."""
        ...

    @property
    def licence(self) -> str:
        """SPDX identifier of code and weights; a sentence where there is none."""
        ...

    @property
    def purpose(self) -> str:
        """Half a sentence for lists."""
        ...

    @property
    def weights(self) -> tuple[str, ...]:
        """Names in `weights.registry` that it needs on disk."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Importable packages beyond the base install that it needs."""
        ...

    @property
    def is_preview(self) -> bool:
        """True for stand-ins that do not look at objects: ``auto`` takes them last."""
        ...

    @property
    def is_instant(self) -> bool:
        """True where computing again is cheaper than reading a cache."""
        ...

    @property
    def brings_cameras(self) -> bool:
        """True if its result may hold K or cameras: it then runs before anybody else looks for them."""
        ...

    def ready(self) -> Readiness: ...

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> RawDepthSource:
        """Depth of every frame of `source`, at any size of its aspect ratio, streaming.

        The result may be a `SequentialDepth`; unless `is_instant` the caller keeps its frames on disk.
        """
        ...


def check_ready(
    *, packages: tuple[str, ...], weights: tuple[str, ...], install: str = "pip install 'ex4d[gen]'"
) -> Readiness:
    """Readiness by what is installed and pulled; imports nothing and asks no network.

    Args:
        packages: importable names.
        weights: names in `weights.registry`.
        install: the command that installs the packages.
    """
    lost = [name for name in packages if importlib.util.find_spec(name) is None]
    if lost:
        return Readiness(ready=False, reason=f"not installed: {', '.join(lost)}", fix=install)
    missing = [entry for entry in map(find_entry, weights) if not is_pulled(entry)]
    if missing:
        size = sum(entry.size_gb for entry in missing)
        names = ", ".join(entry.name for entry in missing)
        pulls = " && ".join(f"ex4d weights pull {entry.name}" for entry in missing)
        return Readiness(ready=False, reason=f"weights not on disk: {names}", fix=f"{pulls} ({size:.2g} GB)")
    return Readiness(ready=True)


@dataclass(slots=True, kw_only=True)
class SequentialDepth:
    """Depth that is computed while it is read, once and in ascending order; satisfies `RawDepthSource`.

    Attributes:
        num_frames: of the clip.
        height: px of the maps.
        width: px of the maps.
        timestamps_s: float64 [num_frames].
        chunks: yields (values float32 [t,H,W], sky bool [t,H,W] or None) in order, any t; runs once.
        kind: depth or disparity.
        scale: ``"metric"`` if values are metres.
        K, path, description, notices: see `RawDepthSource`; may be set while `chunks` runs, final at its end.
    """

    num_frames: int
    height: int
    width: int
    timestamps_s: Float64
    chunks: Iterator[tuple[Float32, Bool | None]]
    kind: DepthKind
    scale: DepthScale
    K: Float64 | None = None
    path: CameraPath | None = None
    description: str = ""
    notices: tuple[str, ...] = ()
    _next: int = 0
    _held: list[tuple[Float32, Bool | None]] = field(default_factory=list)

    def read(self, start: int, stop: int) -> RawDepth:
        """Frames ``start:stop``; `start` must be where the last call stopped.

        Raises:
            DepthError: the computation ended early.
        """
        assert start == self._next, f"SequentialDepth is read in order: expected {self._next}, got {start}"
        while len(self._held) < stop - start:
            chunk = next(self.chunks, None)
            if chunk is None:
                got = self._next + len(self._held)
                raise DepthError(f"depth of {self.num_frames} frames", f"only {got}", "report this")
            values, sky = chunk
            self._held += [(values[i], None if sky is None else sky[i]) for i in range(len(values))]
        self._next = stop
        taken, self._held = self._held[: stop - start], self._held[stop - start :]
        if stop == self.num_frames:  # lets `chunks` run to its end
            extra = self._held or next(self.chunks, None)
            assert not extra, "an estimator gave more frames than the clip has"
        return _stack(taken, self.timestamps_s[start:stop])


def _stack(frames: list[tuple[Float32, Bool | None]], timestamps_s: Float64) -> RawDepth:
    skies = [sky for _, sky in frames if sky is not None]
    sky = np.stack(skies) if len(skies) == len(frames) else None
    return RawDepth(values=np.stack([values for values, _ in frames]), timestamps_s=timestamps_s, sky=sky)
