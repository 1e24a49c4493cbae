"""The layout preview against measured depth: how much a scene without any depth is a guess.

    python benchmarks/layout.py

Depth is scaled a frame by the ratio of medians. AbsRel and the share of pixels within 25 %, mean over frames, beside
a flat wall treated alike. Recordings are looked for under EX4D_SHARED or ../shared; without them: skipped, exit 0.
"""

import os
import sys
from pathlib import Path

import numpy as np

from ex4d.depth.estimator import EstimateRequest
from ex4d.depth.layout import LayoutEstimator
from ex4d.io.rgbd.folder import open_rgbd

NAMES = ("7scenes_redkitchen", "slambook2_ch5")


def errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """AbsRel and share within 25 % of depths [P] after scaling by the ratio of medians."""
    scaled = estimate * np.median(truth / estimate)
    ratio = scaled / truth
    return float(np.abs(ratio - 1).mean()), float((np.maximum(ratio, 1 / ratio) < 1.25).mean())


def main() -> int:
    """Print the table."""
    shared = Path(os.environ.get("EX4D_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    for name in NAMES:
        folder = shared / "clips/rgbd" / name
        if not folder.is_dir():
            print(f"skipped: no recording at {folder} (set EX4D_SHARED)")
            continue
        data = open_rgbd(folder)
        raw = LayoutEstimator().estimate(data.video, EstimateRequest())
        rows: dict[str, list[tuple[float, float]]] = {"layout": [], "flat wall": []}
        for i in range(data.video.num_frames):
            maps = data.depth.read(i, i + 1)
            truth = maps.depth[maps.valid]
            rows["layout"].append(errors(raw.read(i, i + 1).values[0][maps.valid[0]], truth))
            rows["flat wall"].append(errors(np.ones_like(truth), truth))
        for method, values in rows.items():
            abs_rel, within = np.mean(values, axis=0)
            print(f"{name:<20} {method:<10} AbsRel {abs_rel:.3f}  within 25 % {within:.3f}  ({len(values)} frames)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
