"""Which other source frames are looked at, and their meshes, kept while they are needed."""

import numpy as np

from ex4d.core.mesh import DepthMesh
from ex4d.core.view import GeometryPrior
from ex4d.fill.config import FillConfig
from ex4d.fill.transient import SeenFrame, strike_transient
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder

BLOCK_FRAMES = 64
"""Source frames that share one set of neighbours: the set must change rarely, or the fill would blink."""


def choose_neighbors(source_index: int, num_frames: int, num_neighbors: int) -> tuple[int, ...]:
    """Source frames to look at, increasing: evenly spread over a short clip; in a longer one half of them
    over the clip, half over the surroundings of the frame's block of `BLOCK_FRAMES`.

    Args:
        source_index: the source frame that the target shows.
        num_frames: of the source clip.
        num_neighbors: at most so many.
    """
    if num_frames <= BLOCK_FRAMES or num_neighbors < 2:
        return _spread(0, num_frames - 1, num_neighbors)
    near = num_neighbors - num_neighbors // 2
    first = source_index // BLOCK_FRAMES * BLOCK_FRAMES
    margin = BLOCK_FRAMES // 4
    block = _spread(max(first - margin, 0), min(first + BLOCK_FRAMES + margin, num_frames) - 1, near)
    return tuple(sorted({*block, *_spread(0, num_frames - 1, num_neighbors // 2)}))


def _spread(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` distinct frames from first to last, ends included (the middle for a single one)."""
    if count == 1:
        return ((first + last) // 2,)
    return tuple(int(i) for i in np.unique(np.round(np.linspace(first, last, count)).astype(int)))


class SourceMeshes:
    """Builds and keeps the meshes of source frames; memory is bounded by what `static` names. Not thread-safe."""

    def __init__(self, prior: GeometryPrior, geometry: GeometryConfig, config: FillConfig) -> None:
        self._prior = prior
        self._config = config
        # hints and evidence always come from default geometry: official meshes do not say what is torn
        self._builder = MeshBuilder(
            GeometryConfig(tear_angle_deg=geometry.tear_angle_deg, tear_disparity_jump=geometry.tear_disparity_jump)
        )
        self._seen: dict[int, SeenFrame | None] = {}
        self._static: list[tuple[int, DepthMesh]] = []
        self._chosen: tuple[int, ...] = ()
        self._last: tuple[int, SeenFrame | None] = (-1, None)

    def static(self, indices: tuple[int, ...]) -> list[tuple[int, DepthMesh]]:
        """(source frame, mesh without what moves) of these source frames, read in order.

        Frames without any valid depth are left out. The set is kept until another one is asked for.
        """
        if indices != self._chosen:
            self._chosen = indices
            self._seen = {index: self._seen[index] if index in self._seen else self._read(index) for index in indices}
            frames = [(index, frame) for index, frame in self._seen.items() if frame is not None]
            self._static = [
                (
                    index,
                    strike_transient(
                        frame,
                        [other for j, other in frames if j != index],
                        depth_tolerance=2 * self._config.depth_tolerance,
                        color_tolerance=1.5 * self._config.color_tolerance,
                    ),
                )
                for index, frame in frames
            ]
        return self._static

    def mesh(self, index: int) -> DepthMesh | None:
        """The whole mesh of one source frame; None if none of its depth is valid."""
        frame = self._seen[index] if index in self._seen else self._recent(index)
        return None if frame is None else frame.mesh

    def _recent(self, index: int) -> SeenFrame | None:
        if self._last[0] != index:
            self._last = (index, self._read(index))
        return self._last[1]

    def _read(self, index: int) -> SeenFrame | None:
        frame = self._prior.source.read(index, index + 1).frames[0]
        depth = self._prior.source_depth.read(index, index + 1)
        if not depth.valid.any():
            return None
        mesh = self._builder.build(frame, depth.depth[0], depth.valid[0], self._prior.source_path[index])
        return SeenFrame.of(mesh, depth.valid[0])
