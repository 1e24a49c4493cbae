"""Novel views of a procedural scene against its exact truth: our geometry, the official one, and a point splat."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, UInt8
from ex4d.core.camera import Camera
from ex4d.core.geometry import look_at
from ex4d.demo.splat import splat_points
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import build_mesh
from ex4d.render.rasterizer import render_mesh
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene, pivot_depth
from ex4d.scene.truth import ViewTruth, iou, psnr, share, view_truth

YAWS_DEG = (30.0, 60.0, 90.0)
METHODS = ("default", "official", "point splat")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRow:
    """One view by one method.

    Attributes:
        seed: of the scene.
        yaw_deg: the camera's way around the pivot, to the right.
        method: one of `METHODS`.
        iou: of observed and provable, 0–1.
        visible_share: share of the observed pixels that the source truly saw, 0–1.
        psnr_db: on observed pixels that the source truly saw.
        recall: share of what the source truly saw that is observed, 0–1.
    """

    seed: int
    yaw_deg: float
    method: str
    iou: float
    visible_share: float
    psnr_db: float
    recall: float


def measure(seed: int, yaws_deg: Sequence[float] = YAWS_DEG, *, size: int = 512) -> list[TruthRow]:
    """All methods on the scene of a seed at time 0, from its exact (not coded) frame and depth.

    The target orbits to the right about (0, 0, p), p = 20th-percentile depth of the central third:
    eye = (p sin, 0, p − p cos), looking at the pivot.

    Args:
        seed: of the scene.
        yaws_deg: angles.
        size: px, height and width.
    """
    scene = make_scene(seed)
    clip = scene_clip(scene, num_frames=1, fps=24.0, height=size, width=size)
    frame, maps, source = clip.read(0, 1).frames[0], clip.depth.read(0, 1), clip.path[0]
    depth, valid = maps.depth[0], maps.valid[0]
    pivot = pivot_depth(depth.astype(np.float64))
    meshes = {
        name: build_mesh(frame, depth, valid, source, config=GeometryConfig(name=name))
        for name in ("default", "official")
    }
    rows: list[TruthRow] = []
    for yaw_deg in yaws_deg:
        target = orbit_right(source, yaw_deg, pivot)
        truth = view_truth(scene, source, target, 0.0)
        for name, mesh in meshes.items():
            view = render_mesh(mesh, target)
            rows.append(_compare(seed, yaw_deg, name, view.rgb, view.observed, truth))
        rows.append(_compare(seed, yaw_deg, METHODS[2], *splat_points(frame, depth, valid, source, target), truth))
    return rows


def orbit_right(source: Camera, yaw_deg: float, pivot: float) -> Camera:
    """The source camera moved to the right around (0, 0, pivot), looking at it."""
    yaw = math.radians(yaw_deg)
    eye = np.array([pivot * math.sin(yaw), 0.0, pivot - pivot * math.cos(yaw)])
    matrix = look_at(eye, np.array([0.0, 0.0, pivot]))
    return Camera(K=source.K, world_to_camera=matrix, height=source.height, width=source.width)


def _compare(seed: int, yaw_deg: float, method: str, rgb: UInt8, observed: Bool, truth: ViewTruth) -> TruthRow:
    return TruthRow(
        seed=seed,
        yaw_deg=yaw_deg,
        method=method,
        iou=iou(observed, truth.provable),
        visible_share=share(observed, truth.visible),
        psnr_db=psnr(rgb, truth.rgb, observed & truth.visible),
        recall=share(truth.visible, observed),
    )


def format_rows(rows: Sequence[TruthRow]) -> str:
    """A table for people, with what its columns mean."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[TruthRow]) -> Iterator[str]:
    yield f"{'seed':>4} {'yaw':>4}  {'method':<12} {'IoU':>6} {'seen':>7} {'PSNR':>8} {'recall':>7}"
    for row in rows:
        yield (
            f"{row.seed:>4} {row.yaw_deg:>4.0f}  {row.method:<12} {row.iou:>6.3f} {100 * row.visible_share:>5.1f} % "
            f"{row.psnr_db:>5.1f} dB {row.recall:>7.3f}"
        )
    yield "IoU: of what is shown and what the source proves to be there; seen: share of what is shown that the source"
    yield "truly saw; PSNR: on that; recall: share of what the source saw and this view could show that is shown"
