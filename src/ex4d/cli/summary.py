"""The last words of a run: what was seen, how long it took, what lies where."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.io import prior as names
from ex4d.pipeline.run import RunResult

_FOR_PEOPLE = {
    names.RESULT: "the finished video",
    names.PREVIEW: "the new view, black where nothing was seen",
    names.SHEET: "source, render, observed and result side by side: look at this first",
}
PREVIEW_BANNER = (
    "!! PREVIEW DEPTH: {description}.\n"
    "!! People and things that move are flat cards; what parallax did not measure is a guess.\n"
    "!! For a better result: --depth FILE (npz, 16-bit PNG or EXR folder), an RGB-D recording as INPUT,\n"
    "!! or a depth network: ex4d weights pull vda-small."
)


def print_summary(result: RunResult, output: Path) -> None:
    """Write the summary to stdout."""
    sys.stdout.write("\n".join(summary_lines(result, output)) + "\n")


def summary_lines(result: RunResult, output: Path) -> Iterator[str]:
    """Lines of text for people; one block a camera."""
    yield ""
    if result.was_complete:
        yield f"nothing to do: {output} is complete"
    else:
        yield f"done in {sum(result.timings_s.values()):.1f} s: {output}"
    for folder, info in zip(result.folders, result.info, strict=True):
        yield from _camera_lines(folder, info)
    if result.timings_s:
        stages = [f"{name} {seconds:.1f}" for name, seconds in result.timings_s.items()]
        yield f"  seconds a stage: {', '.join(stages)}"
    previews = [info["depth"]["description"] for info in result.info if info.get("depth", {}).get("is_preview")]
    if previews:
        yield PREVIEW_BANNER.format(description=previews[0])


def _camera_lines(folder: Path, info: Mapping[str, Any]) -> Iterator[str]:
    coverage = np.array(info["coverage"])
    worst = int(coverage.argmin())
    yield (
        f"  camera {info['camera']}: {len(coverage)} frames of {info['width']}x{info['height']}, "
        f"observed {100 * coverage.mean():.1f} % on average, at least {100 * coverage[worst]:.1f} % (frame {worst})"
    )
    completed = info.get("result")
    if completed and completed["generator"] == "wan":
        windows = completed["windows"]
        count = "1 window" if len(windows) == 1 else f"{len(windows)} windows"
        yield (
            f"    generated at {completed['width']}x{completed['height']} in {count}, "
            f"{completed['settings']['weights']} weights, plan {completed.get('plan') or windows[-1]['plan']}"
        )
    elif completed:
        yield (
            f"    filled from other frames {100 * completed['from_other_frames_mean']:.1f} %, "
            f"from surroundings {100 * completed['from_surroundings_mean']:.1f} % (a preview, not generated)"
        )
    yield from file_lines(folder)


def file_lines(folder: Path) -> Iterator[str]:
    """The files of a prior folder, those for people first."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    own = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    for name, meaning in _FOR_PEOPLE.items():
        if name in own:
            yield f"    {folder / name}  {_size(own.pop(name))}  {meaning}"
    data = [name for name in own if not name.startswith("meshes/")]
    num_meshes = len(own) - len(data)
    rest = ", ".join([*data, *([f"meshes/ ({num_meshes})"] if num_meshes else [])])
    yield f"    data: {rest}  {_size(sum(own.values()))}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
