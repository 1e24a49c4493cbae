"""How the target view is prepared for the diffusion model here and in the EX-4D release: size, mask, windows.

    python benchmarks/view_deviations.py

Prints the numbers of docs/fidelity.md: aspect of the sizes that are chosen, erosion and resizing on real clips, and
how much two windows differ where they overlap (random miniature, CPU). Real clips are looked for under EX4D_SHARED or
../shared; without them their parts are skipped.
"""

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ex4d.cli.quiet import quiet_libraries
from ex4d.io.video import VideoReader
from ex4d.model.config import GenerateConfig
from ex4d.model.sizes import PIXEL_BUDGET, choose_size
from ex4d.pipeline.generate import generate_windows
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob, plan_job
from ex4d.pipeline.progress import SilentReporter
from ex4d.pipeline.window_store import WindowStore
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

SHARED = Path(os.environ.get("EX4D_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MASK, SHEEP = "ex4d_reference/flower_mask_180.mp4", "tapip_sheep.mp4"
ASPECTS = ((16, 9), (4, 3), (1, 1), (9, 16), (21, 9))


def print_sizes() -> None:
    """What is chosen for a clip's aspect, and how much wider or narrower things then look; the release: 512x512."""
    print("| clip | generated at | aspect off | pixels | squashed to 512x512 |\n|---|---|---|---|---|")
    for w, h in ASPECTS:
        height, width = choose_size(100 * h, 100 * w)
        aspect, squash = (100 * (max(r, 1 / r) - 1) for r in (width * h / (height * w), h / w))
        area = 100 * (width * height / PIXEL_BUDGET - 1)
        print(f"| {w}:{h} | {width}x{height} | {aspect:.1f} % | {area:+.1f} % | {squash:.0f} % |")


def read_clip(name: str) -> np.ndarray | None:
    """The first 49 frames, uint8 [T,H,W,3], of a shared clip; None, and a word of why, if it is not there."""
    file = SHARED / "clips" / name
    if not file.is_file():
        print(f"skipped: no clip at {file} (set EX4D_SHARED)")
        return None
    with VideoReader(file) as reader:
        return np.concatenate([chunk.frames for chunk in reader])[:49]


def print_erosion(mask: np.ndarray) -> None:
    """Observed share of a real mask video under our kernel and under draws of the release's."""
    from ex4d.model.preprocess import erode_mask, threshold_mask

    def share(erode_px: str, seed: int = 0) -> float:
        return 100 * float(threshold_mask(erode_mask(mask, erode_px, seed=seed)).mean())

    drawn = [share("official", seed) for seed in range(5)]
    print(f"\n| observed in {Path(MASK).name} | share |\n|---|---|")
    print(f"| not eroded | {share('1'):.2f} % |\n| --erode-px 5 | {share('5'):.2f} % |")
    print(f"| --erode-px 2, 8 | {share('2'):.2f} %, {share('8'):.2f} % |")
    print(f"| --erode-px official, seeds 0 to 4 | {min(drawn):.2f} to {max(drawn):.2f} % |")


def print_resizing(clip: np.ndarray, mask: np.ndarray) -> None:
    """How much black bleeds into observed pixels when a real clip with a real mask is shrunk.

    Beside the same clip shrunk in the same way without a mask. Edge: observed, but within the reach of erosion by 5.
    """
    from ex4d.model.preprocess import erode_mask, resize_view, threshold_mask

    height, width = choose_size(*clip.shape[1:3])
    seen, _ = resize_view(mask, mask, height=clip.shape[1], width=clip.shape[2], official=True)
    seen = np.asarray(np.where(seen > 127, 255, 0), np.uint8)
    masked = np.asarray(np.where(seen > 0, clip, 0), np.uint8)
    shape = f"{clip.shape[2]}x{clip.shape[1]} to {width}x{height}"
    print(f"\n| {SHEEP} from {shape} | error at mask edges | pixels off by over 8, not eroded | eroded by 5 |")
    print("|---|---|---|---|")
    for what, official in (("bilinear, as released (--square)", True), ("areas of observed pixels", False)):
        rgb, small = resize_view(masked, seen, height=height, width=width, official=official)
        truth, _ = resize_view(clip, np.full_like(seen, 255), height=height, width=width, official=official)
        error = np.abs(rgb.astype(int) - truth)
        plain, eroded = (threshold_mask(erode_mask(small, side, seed=0)) for side in ("1", "5"))
        off = [f"{100 * (error[used] > 8).mean():.3f} %" for used in (plain, eroded)]
        print(f"| {what} | {error[plain & ~eroded].mean():.2f} of 255 | {off[0]} | {off[1]} |")


@dataclass(frozen=True)
class SceneView:
    """A procedural clip as a target view whose hole moves to the right; a `ViewSource`."""

    num_frames: int = 25
    height: int = 96
    width: int = 96
    start: int = 0

    @property
    def timestamps_s(self) -> np.ndarray:
        """float64 [num_frames], seconds."""
        return np.arange(self.num_frames) / 12

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ViewSource`."""
        frames = range(self.start + start, self.start + stop)
        clip = scene_clip(make_scene(0), num_frames=25, fps=12.0, height=self.height, width=self.width)
        mask = np.full((len(frames), self.height, self.width), 255, np.uint8)
        for row, frame in zip(mask, frames, strict=True):
            row[:, frame : frame + self.width // 3] = 0
        return clip.read(frames.start, frames.stop).frames * (mask[..., None] > 0), mask


def print_windows(work: Path) -> None:
    """How much two windows differ in the frames they share, made apart and made one after the other."""
    config = GenerateConfig(weights="tiny", window_frames=17, overlap_frames=9, size="96x96")
    job = plan_job(SceneView(), config, seed=0)
    second = job.windows[1]
    alone = replace(
        job,
        source=SceneView(num_frames=second.num_frames, start=second.start),
        seed=job.window_seed(1),
        windows=(replace(second, start=0, num_shared=0),),
    )
    joined, apart = generate(job, work / "joined"), generate(alone, work / "apart")
    first = joined.frames(0, second.start, second.start + second.num_shared).astype(float)
    begin, count = second.start // 4 + 1, second.num_shared_latents
    latents = joined.latents(0)[:, :, begin : begin + count]
    print("\n| what two windows share | frames | latents |\n|---|---|---|")
    for what, store, index in (("each window by itself", apart, 0), ("the second goes on from the first", joined, 1)):
        frames = np.abs(store.frames(index, 0, second.num_shared) - first).mean()
        relative = float((store.latents(index)[:, :, 1 : 1 + count] - latents).norm() / latents.norm())
        print(f"| {what} | {frames:.1f} of 255 apart | {relative:.2f} |")


def generate(job: GenerationJob, folder: Path) -> WindowStore:
    """Generate a job's windows."""
    from ex4d.pipeline.engine import open_engine

    store, reporter = WindowStore(folder), SilentReporter()
    timings: dict[str, float] = {}
    settings = EngineSettings()
    generate_windows(
        job,
        store,
        lambda: open_engine(job, settings, reporter=reporter, timings=timings),
        reporter=reporter,
        timings=timings,
    )
    return store


def main() -> int:
    """Measure and print everything."""
    quiet_libraries()
    print_sizes()
    mask, clip = read_clip(MASK), read_clip(SHEEP)
    if mask is not None:
        print_erosion(mask)
    if mask is not None and clip is not None:
        print_resizing(clip, mask)
    with tempfile.TemporaryDirectory() as name:
        print_windows(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
