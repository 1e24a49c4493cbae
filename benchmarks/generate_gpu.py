"""Speed and memory of generation: the full-size stack with random weights, one plan a command.

    python benchmarks/generate_gpu.py --case official --video 49x512x512 -o results.json
    python benchmarks/generate_gpu.py --price complex-rope,no-compile -o results.json
    python benchmarks/generate_gpu.py --table results.json

Two warm-up and five timed steps; all steps = their number times the median. ``official`` is also run whole.
``balanced-cache`` skips by a fixed schedule, because random weights would make a content-dependent cache meaningless:
the first fifth of the steps is computed, then every other one (15 of 25). ``reference`` executes the model as the
release does (official_execution.py); ``--price`` adds its slow-downs to ``balanced`` one at a time. ``--tiny`` runs
the miniature, on the CPU too, to show that everything runs. Results are appended as JSON lines.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from generate_results import GOAL_VIDEO, PRICE, Result, commit, format_table, read_results
from generate_run import Case, Run, blank_result
from official_execution import SLOWDOWNS
from random_stack import Site

from ex4d.errors import Ex4dError

VIDEOS = (GOAL_VIDEO, "81x480x832")
TINY_VIDEO = "5x32x48"
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "torchao", "gguf")

CASES = {
    "official": Case(preset="official", text=True, whole=True),
    "balanced": Case(),
    "balanced-cache": Case(fixed_cache=True),
    "draft": Case(preset="draft"),
    "fp8": Case(plan="fp8"),
    "gguf": Case(plan="gguf"),
    "offload": Case(plan="offload"),
    "int8": Case(plan="int8"),
    "reference": Case(text=True, slowdowns=frozenset(SLOWDOWNS), release=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or print; 1 if there is nothing to show for a case."""
    options = _parse(arguments)
    if options.table is not None:
        print(format_table(_blank_results(tiny=options.tiny) + read_results(options.table)), end="")
        return 0
    cases = {name: CASES[name] for name in options.case} if options.case else _prices(options.price)
    failed = 0
    for name, case in cases.items():
        result = measure(name, case, options)
        failed += bool(result.error)
        print(result.to_json(), flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(result.to_json() + "\n")
    return int(failed > 0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case", choices=tuple(CASES), nargs="+", help="at full size one a command")
    what.add_argument("--price", help=f"comma-separated, of {', '.join(SLOWDOWNS)}")
    what.add_argument("--table", type=Path, nargs="*", help="print the results of these files as Markdown")
    parser.add_argument("--video", choices=VIDEOS, default=GOAL_VIDEO, help="frames x height x width")
    parser.add_argument("--tiny", action="store_true", help=f"the miniature, {TINY_VIDEO}")
    parser.add_argument("--max-vram", type=float, help="GiB that must not be exceeded (default: the goal, as advice)")
    parser.add_argument("--commit", help="what the results are labelled with (default: asked of git)")
    parser.add_argument("-o", "--output", type=Path, help="append results to this file")
    options = parser.parse_args(arguments)
    if options.price and (unknown := set(options.price.split(",")) - set(SLOWDOWNS)):
        parser.error(f"--price: {', '.join(sorted(unknown))} is none of {', '.join(SLOWDOWNS)}")
    return options


def _prices(names: str) -> dict[str, Case]:
    """``balanced``, then ``balanced`` with one slow-down at a time; umT5 is timed where it matters."""
    chosen = names.split(",")
    streams = "per-layer-offload"
    cases = {"balanced": Case(text=streams in chosen)}
    return cases | {f"{PRICE}{name}": Case(slowdowns=frozenset({name}), text=name == streams) for name in chosen}


def _blank_results(*, tiny: bool) -> list[Result]:
    """Of all there is to measure."""
    cases = CASES | {name: case for name, case in _prices(",".join(SLOWDOWNS)).items() if name not in CASES}
    videos = (TINY_VIDEO,) if tiny else VIDEOS
    return [blank_result(name, case, video, tiny=tiny) for video in videos for name, case in cases.items()]


def measure(name: str, case: Case, options: argparse.Namespace) -> Result:
    """Build the stack of a case, time it, and let it go again; what cannot be run says why."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = blank_result(name, case, TINY_VIDEO if options.tiny else options.video, tiny=options.tiny)
    result.date = datetime.now(UTC).isoformat(timespec="seconds")
    result.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result.commit = options.commit or commit()
    result.versions = {package: version(package) for package in _PACKAGES if find_spec(package) is not None}
    if device.type == "cpu" and not options.tiny:
        return result
    result.error = ""
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(1)  # tensors this small are slower with several
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # as `ex4d generate`
    # at tiny size a compiler takes longer than everything else
    stance = torch.compiler.set_stance("force_eager") if options.tiny else nullcontext()
    with tempfile.TemporaryDirectory() as scratch, stance:
        site = Site(device=device, tiny=options.tiny, scratch=Path(scratch))
        try:
            Run(case, site, result, options.max_vram).run()
        except (Ex4dError, torch.OutOfMemoryError) as error:
            result.error = " ".join(str(error).split())[:300]
    torch._dynamo.reset()  # compiled code holds on to what it was compiled for
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    return result


if __name__ == "__main__":
    sys.exit(main())
