"""Random camera paths for masks, placed as inference places them: where a clip would have been filmed from."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ex4d.camera.build import build_path, relative_to
from ex4d.camera.config import PathRequest
from ex4d.camera.pivot import nearest_depth, resolve_pivot
from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import CameraPath, invert_rigid
from ex4d.core.seeding import make_rng
from ex4d.masking.config import MaskConfig, Style


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPath:
    """Where a clip would have been filmed from, if the clip itself were the new view.

    Attributes:
        style: of the camera move.
        cam: the move as ``--cam`` takes it, from the other cameras to the clip's own.
        cameras: one a frame, in the clip's world; camera 0 is the clip's own. After the move `cam`, camera t is
            that of the clip.
        pivot_depth: of the move, scene units.
        pivot: option it was chosen by.
    """

    style: Style
    cam: str
    cameras: CameraPath
    pivot_depth: float
    pivot: str

    def describe(self) -> dict[str, Any]:
        """JSON for people and tools."""
        names = ("style", "cam", "pivot", "pivot_depth")
        return {name: getattr(self, name) for name in names}


def draw_path(depth: Float32, valid: Bool, source_path: CameraPath, *, config: MaskConfig, seed: int) -> MaskPath:
    """A random path for a clip.

    At inference a clip's cameras S are known and the new ones are A_t = M_t · S_t, where the move M starts at the
    identity. In training the clip is the new view: its own cameras are A, and the source is S_t = M_t⁻¹ · A_t.

    Args:
        depth: float32 [H,W] of the clip's frame 0, scene units.
        valid: bool [H,W].
        source_path: the clip's own cameras, one a frame.
        config: ranges and weights.
        seed: of the mask.

    Raises:
        CameraPathError: no valid depth where the pivot option looks.
    """
    rng = make_rng(seed, "masks", "path")
    style, cam = draw_move(config, rng)
    pivot = config.pivots[int(rng.integers(len(config.pivots)))]
    factor = float(np.exp(rng.uniform(-config.pivot_spread, config.pivot_spread)))
    pivot_depth = factor * resolve_pivot(pivot, depth, valid)
    request = PathRequest(
        K=source_path.K[0],
        height=source_path.height,
        width=source_path.width,
        source_index=np.arange(len(source_path), dtype=np.int64),
        pivot_depth=pivot_depth,
        nearest_depth=nearest_depth(depth, valid),
        pivot_given=True,
        seed=seed,
    )
    move = build_path(cam, request)
    back = replace(move, K=source_path.K, world_to_camera=invert_rigid(move.world_to_camera) + 0.0)
    cameras = relative_to(back, source_path.world_to_camera)
    return MaskPath(style=style, cam=cam, cameras=cameras, pivot_depth=pivot_depth, pivot=pivot)


def draw_move(config: MaskConfig, rng: np.random.Generator) -> tuple[Style, str]:
    """A style by its weight, and a move of that style as ``--cam`` takes it."""
    weights = config.weights
    shares = np.array(list(weights.values()))
    style = list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]
    # every number is drawn, whatever the style: changing one weight changes no other path
    yaw, elevation, dolly, shift = (
        round(float(rng.uniform(*pair)), 4)
        for pair in (config.yaw_deg, config.elevation_deg, config.dolly, config.shift)
    )
    first_side = bool(rng.integers(2))
    cam = {
        "orbit": f"orbit-{'left' if yaw < 0 else 'right'}:{abs(yaw)}",
        "arc": f"arc:{yaw},{elevation}",
        "dolly": f"dolly-{'out' if dolly < 0 else 'in'}:{abs(dolly)}",
        "truck": f"truck-{'left' if first_side else 'right'}:{shift}",
        "crane": f"crane-{'up' if first_side else 'down'}:{shift}",
        "spiral": f"spiral:{shift}",
    }
    return style, cam[style]
