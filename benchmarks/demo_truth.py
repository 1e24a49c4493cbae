"""Novel views of procedural scenes against their exact truth.

    python benchmarks/demo_truth.py [--seeds 0 1 2 3 4] [--size 512]

Prints every seed and method, then the minimum over the seeds beside the goals; exits 1 where one is missed.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from ex4d.demo.truth import METHODS, YAWS_DEG, TruthRow, format_rows, measure

GOAL_IOU = {30.0: 0.97, 60.0: 0.94, 90.0: 0.80}
GOAL_VISIBLE_SHARE = 0.99
GOAL_PSNR_DB = 32.0
GOAL_ABOVE_OFFICIAL_DB = 3.0


def lowest(rows: Sequence[TruthRow], method: str, yaw_deg: float, key: Callable[[TruthRow], float]) -> float:
    """Minimum over the seeds."""
    return min(key(row) for row in rows if row.method == method and row.yaw_deg == yaw_deg)


def margin(rows: Sequence[TruthRow], yaw_deg: float) -> float:
    """Smallest lead in PSNR of default over official on one seed, dB."""
    by_seed = {(row.seed, row.method): row.psnr_db for row in rows if row.yaw_deg == yaw_deg}
    seeds = {row.seed for row in rows}
    return min(by_seed[seed, "default"] - by_seed[seed, "official"] for seed in seeds)


def report_minima(rows: Sequence[TruthRow]) -> None:
    """The worst seed of each figure, all methods."""
    print(f"\nminimum over {len({row.seed for row in rows})} seeds")
    print(f"{'yaw':>4}  {'method':<12} {'IoU':>6} {'seen':>8} {'PSNR':>8} {'recall':>7}")
    for yaw in YAWS_DEG:
        for method in METHODS:
            keys = (lambda r: r.iou, lambda r: 100 * r.visible_share, lambda r: r.psnr_db, lambda r: r.recall)
            iou, seen, psnr, recall = (lowest(rows, method, yaw, key) for key in keys)
            print(f"{yaw:>4.0f}  {method:<12} {iou:>6.3f} {seen:>6.2f} % {psnr:>5.1f} dB {recall:>7.3f}")


def report_goals(rows: Sequence[TruthRow]) -> bool:
    """Every goal beside what was measured; returns whether all are met."""
    met = True
    print("\ngoals of the default geometry")
    for yaw in YAWS_DEG:
        measured = [
            ("IoU", lowest(rows, "default", yaw, lambda r: r.iou), GOAL_IOU[yaw]),
            ("seen", lowest(rows, "default", yaw, lambda r: r.visible_share), GOAL_VISIBLE_SHARE),
            ("PSNR dB", lowest(rows, "default", yaw, lambda r: r.psnr_db), GOAL_PSNR_DB),
            ("dB above official", margin(rows, yaw), GOAL_ABOVE_OFFICIAL_DB),
        ]
        for name, value, goal in measured:
            ok = math.isfinite(value) and value >= goal
            met &= ok
            print(f"{yaw:>4.0f}  {name:<18} {value:>8.4f}  >= {goal:<6g} {'met' if ok else 'MISSED'}")
    return met


def main() -> int:
    """Measure and print; 0 if every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    rows = [row for seed in args.seeds for row in measure(seed, size=args.size)]
    print(format_rows(rows))
    report_minima(rows)
    return 0 if report_goals(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
