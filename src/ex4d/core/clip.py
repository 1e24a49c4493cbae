"""`Clip[N]`: a re-iterable source of chunks of a noun, so that long videos never sit in memory."""

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

from ex4d.core.arrays import Float64

N_co = TypeVar("N_co", covariant=True)


class ChunkLike(Protocol):
    """What `Video`, `DepthVideo` and `RenderedView` have in common."""

    @property
    def timestamps_s(self) -> Float64: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> Self: ...


Chunk = TypeVar("Chunk", bound=ChunkLike)

DEFAULT_CHUNK_FRAMES = 8
"""Frames read at a time; 8 frames of 1024×576 with depth are about 50 MB of working memory."""


class Clip(Protocol[N_co]):
    """What every stage reads: a clip on disk, behind a decoder or in memory.

    Reading forward is cheap; reading backward may restart a decoder.
    """

    @property
    def num_frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def timestamps_s(self) -> Float64:
        """float64 [num_frames], increasing."""
        ...

    def read(self, start: int, stop: int) -> N_co:
        """The chunk of frames ``start:stop`` (``0 <= start < stop <= num_frames``)."""
        ...


class ArrayClip(Generic[Chunk]):
    """A clip that is already in memory: one chunk seen as a `Clip`."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk: Chunk = chunk

    @property
    def num_frames(self) -> int:
        return len(self._chunk)

    @property
    def height(self) -> int:
        return self._chunk.height

    @property
    def width(self) -> int:
        return self._chunk.width

    @property
    def timestamps_s(self) -> Float64:
        return self._chunk.timestamps_s

    def read(self, start: int, stop: int) -> Chunk:
        """Frames ``start:stop`` as views."""
        return self._chunk.slice(start, stop)


def iter_chunks(clip: Clip[N_co], chunk_frames: int = DEFAULT_CHUNK_FRAMES) -> Iterator[tuple[int, N_co]]:
    """Walk a clip once: yields (index of the first frame, chunk)."""
    for start in range(0, clip.num_frames, chunk_frames):
        yield start, clip.read(start, min(start + chunk_frames, clip.num_frames))
