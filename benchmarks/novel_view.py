"""Novel views of real RGB-D against the frames that were really taken from there (7-Scenes, red kitchen).

    python benchmarks/novel_view.py [FOLDER]

Source files 0, 16, 32, … and targets 4, 12 and 24 frames later in the recording's own numbering (every 4th
frame is in the folder). Depth 0 or beyond 20 m is invalid. PSNR a pair on the pixels that the method observes,
averaged over pairs; then on the pixels that default and official geometry both observe. The point splat draws
every valid pixel as one z-buffered pixel.

These use the measured depth and the true cameras. `builtin` and `layout` are told the pictures alone: depth and
cameras (of sources and targets) are what `ex4d run --depth builtin` or `layout` finds, default geometry.

FOLDER defaults to clips/rgbd/7scenes_redkitchen under EX4D_SHARED or ../shared; without it: skipped, exit 0.
"""

import os
import sys
from pathlib import Path

import numpy as np
from clip_geometry import clip_geometry

from ex4d.core.camera import Camera, CameraPath
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.demo.splat import splat_points
from ex4d.io.rgbd.folder import RgbdInput, open_rgbd
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder
from ex4d.render.rasterizer import Rasterizer
from ex4d.scene.truth import psnr

STRIDE = 4
"""The folder holds every 4th frame of the recording."""
SOURCE_STEP = 16
TARGETS = (4, 12, 24)
GOALS_DB = {4: 0.8, 12: 0.2, 24: -0.05}
"""How much default geometry must lead official by, at a larger observed share."""
BY_ITSELF = ("builtin", "layout")

View = tuple[np.ndarray, np.ndarray]
Found = dict[str, tuple[Clip[DepthVideo], CameraPath]]


def render_all(data: RgbdInput, offset: int, found: Found) -> dict[str, list[tuple[View, np.ndarray]]]:
    """Views (rgb, observed) and true frames of every pair with this target offset."""
    assert data.path is not None
    builders = {name: MeshBuilder(GeometryConfig(name=name)) for name in ("official", "default")}
    rasterizer = Rasterizer()
    pairs: dict[str, list[tuple[View, np.ndarray]]] = {name: [] for name in ("official", "default", "splat", *found)}
    for source in range(0, data.video.num_frames * STRIDE, SOURCE_STEP):
        target = source + offset
        if target // STRIDE >= data.video.num_frames:
            continue
        i, j = source // STRIDE, target // STRIDE
        frame, maps = data.video.read(i, i + 1).frames[0], data.depth.read(i, i + 1)
        truth = data.video.read(j, j + 1).frames[0]
        depth, valid, here, there = maps.depth[0], maps.valid[0], data.path[i], data.path[j]
        for name, builder in builders.items():
            view = rasterizer.render(builder.build(frame, depth, valid, here), there)
            pairs[name].append(((view.rgb, view.observed), truth))
        pairs["splat"].append((_splat(frame, depth, valid, here, there), truth))
        for name, (clip, path) in found.items():
            own = clip.read(i, i + 1)
            mesh = builders["default"].build(frame, own.depth[0], own.valid[0], path[i])
            view = rasterizer.render(mesh, path[j])
            pairs[name].append(((view.rgb, view.observed), truth))
    return pairs


def _splat(frame: np.ndarray, depth: np.ndarray, valid: np.ndarray, here: Camera, there: Camera) -> View:
    rgb, observed = splat_points(frame, depth, valid, here, there)
    return rgb, observed


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    shared = Path(os.environ.get("EX4D_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else shared / "clips/rgbd/7scenes_redkitchen"
    if not folder.is_dir():
        print(f"skipped: no recording at {folder} (set EX4D_SHARED)")
        return 0
    data = open_rgbd(folder)
    found: Found = {name: clip_geometry(data.video, name)[:2] for name in BY_ITSELF}
    missed = 0
    print(f"{'offset':>6} {'method':<9} {'PSNR':>7} {'observed':>9} {'PSNR both':>10}")
    for offset in TARGETS:
        pairs = render_all(data, offset, found)
        rows: dict[str, tuple[float, float]] = {}
        for name, items in pairs.items():
            own = float(np.mean([psnr(rgb, truth, seen) for (rgb, seen), truth in items]))
            share = float(np.mean([seen.mean() for (_, seen), _ in items]))
            both = [
                psnr(rgb, truth, seen & pairs["official"][k][0][1] & pairs["default"][k][0][1])
                for k, ((rgb, seen), truth) in enumerate(items)
            ]
            rows[name] = own, share
            print(f"{f'+{offset}':>6} {name:<9} {own:7.3f} {share:9.4f} {np.mean(both):10.3f}")
        gain = rows["default"][0] - rows["official"][0]
        wider = rows["default"][1] > rows["official"][1]
        met = gain >= GOALS_DB[offset] and wider
        missed += not met
        print(f"       default − official: {gain:+.3f} dB (goal {GOALS_DB[offset]:+.2f}), {'met' if met else 'MISSED'}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
