"""Wall time of `recon` and its peak memory, as a user runs it: whole processes.

    python benchmarks/recon.py [--quick]

(1) 49 frames of 512×512 with file depth, five runs after a warm-up, median; goal 4 s on 2 cores.
(2) peak resident memory of the process (Linux) for 50 and for 300 frames of 1024×576; goal: within 1.5×.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

# VmHWM, because ru_maxrss also remembers the memory of the process that started this one.
_CHILD = """
import re, sys
from pathlib import Path
from ex4d.cli.main import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
sys.exit(code)
"""


def make_input(folder: Path, num_frames: int, height: int, width: int) -> tuple[Path, Path]:
    """A procedural clip (12 distinct frames, repeated) as mp4, and its depth as npy."""
    clip = scene_clip(make_scene(0), num_frames=12, fps=24.0, height=height, width=width)
    video, depth = clip.read(0, 12), clip.depth.read(0, 12).depth
    path, depth_path = folder / f"{num_frames}.mp4", folder / f"{num_frames}.npy"
    order = np.abs((np.arange(num_frames) + 11) % 22 - 11)
    maps = np.lib.format.open_memmap(depth_path, "w+", np.float32, (num_frames, height, width))
    with DeliveryWriter(path, height=height, width=width, fps=Fraction(24)) as writer:
        for i, frame in enumerate(order):
            writer.write(video.frames[frame][None], np.array([i / 24]))
            maps[i] = depth[frame]
    maps.flush()
    return path, depth_path


def run_recon(video: Path, depth: Path, out: Path) -> tuple[float, float]:
    """(wall seconds, peak MiB)."""
    arguments = ["recon", str(video), "--depth", str(depth), "--cam", "60", "-o", str(out), "--overwrite"]
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    return seconds, float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer runs and frames")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, depth = make_input(folder, 49, 512, 512)
        times = [run_recon(video, depth, folder / "out")[0] for _ in range(3 if quick else 6)][1:]
        print(
            f"recon of 49x512x512 with file depth: median {statistics.median(times):.2f} s of {len(times)} (goal 4 s)"
        )
        peaks: list[float] = []
        for num in (20, 60) if quick else (50, 300):
            video, depth = make_input(folder, num, 576, 1024)
            seconds, peak = run_recon(video, depth, folder / "out")
            peaks.append(peak)
            print(f"recon of {num}x1024x576: {seconds:.1f} s, peak {peak:.0f} MiB")
        print(f"memory ratio {peaks[1] / peaks[0]:.2f} (goal <= 1.5)")


if __name__ == "__main__":
    main()
