"""`run_demo`: film a procedural scene, run the chain on it as on any user's clip, compare with the truth."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ex4d.demo.config import DemoConfig
from ex4d.demo.film import film
from ex4d.demo.truth import YAWS_DEG, TruthRow, measure
from ex4d.depth.result import DepthConfig
from ex4d.errors import OutputError
from ex4d.io.atomic import output_error
from ex4d.pipeline.config import CameraConfig, RunConfig
from ex4d.pipeline.progress import Reporter
from ex4d.pipeline.run import RunResult, run
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

FPS = Fraction(24)
VIEWS = "views"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo made.

    Attributes:
        video: the clip.
        depth: its depth track.
        folder: what the chain made, one sub-folder a camera if there are several.
        result: of the chain.
        truth: figures against the truth.
    """

    video: Path
    depth: Path
    folder: Path
    result: RunResult
    truth: list[TruthRow]


def run_demo(config: DemoConfig, output: Path, *, overwrite: bool, reporter: Reporter) -> DemoResult:
    """Run the demo into a folder.

    Raises:
        OutputError: the folder is not empty (and `overwrite` is not set) or cannot be written.
    """
    _claim(output, overwrite=overwrite)
    side = config.side_px
    scene = make_scene(config.seed)
    reporter.note(f"scene {config.seed}: {'a room' if scene.kind == 'room' else 'outdoors'}, drawn by the seed")
    clip = scene_clip(scene, num_frames=config.num_frames, fps=float(FPS), height=side, width=side)
    video, depth = film(clip, output, fps=FPS, reporter=reporter)
    request = RunConfig(
        input=str(video),
        camera=CameraConfig(cam=config.cameras),
        depth=DepthConfig(depth=str(depth)),
        seed=config.seed,
    )
    result = run(request, output / VIEWS, overwrite=overwrite, reporter=reporter)
    reporter.begin("compare", None)
    truth = measure(config.seed, YAWS_DEG, size=side)
    reporter.end()
    return DemoResult(video=video, depth=depth, folder=output / VIEWS, result=result, truth=truth)


def advice(demo: DemoResult) -> str:
    """What to try next."""
    return (
        "the figures above compare single frames with the exact scene at time 0, before any video coding\n"
        "try next:\n"
        f"  ex4d run {demo.video} --depth {demo.depth} --cam arc:40,15\n"
        f"  ex4d run {demo.video} --cam 30                   the same clip without its depth (preview)\n"
        "  ex4d run YOUR_CLIP.mp4 --cam 60 -o out/          your own\n"
        "  ex4d run --help                                  all cameras and settings"
    )


def _claim(output: Path, *, overwrite: bool) -> None:
    """Make the folder; refuse one with content."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        first = min((entry.name for entry in output.iterdir()), default=None)
    except OSError as error:
        raise output_error(output, error) from error
    if first is not None and not overwrite:
        raise OutputError(
            f"an empty or new folder at {output}", f"one that holds {first!r}", "use --overwrite, or another -o FOLDER"
        )
