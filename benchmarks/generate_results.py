"""What `generate_gpu.py` measures: work in FLOPs, goals, one JSON line a result, the table of results."""

import json
import math
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TEXT_TOKENS, IMAGE_TOKENS = 512, 257
SUSTAINED_TFLOPS = 790.0
"""bf16 matrix products on an H200, large and of random numbers: what the floor is reckoned with."""
DATASHEET_TFLOPS = 989.0
"""Dense bf16 of an H200: what model FLOPs utilisation (MFU) is reckoned with, 8-bit plans included."""

GOAL_VIDEO = "49x512x512"
SECONDS_GOALS = {"official": 45.0, "balanced": 32.0, "balanced-cache": 25.0, "draft": 5.0}
GIB_GOALS = {
    "official": 37.0,
    "balanced": 37.0,
    "balanced-cache": 37.0,
    "draft": 37.0,
    "fp8": 21.0,
    "gguf": 15.0,
    "offload": 8.0,
}
NO_GPU = "no GPU was available"
_NOT = "not measured"
PRICE = "balanced+"
"""Prefix of cases that add one slow-down of the release."""


@dataclass(kw_only=True)
class Result:
    """One case at one size; JSON keys are the attributes.

    Attributes:
        case: name; a slow-down of the release alone is ``balanced+<name>``.
        video: frames x height x width.
        tiny: the miniature was run: no speed, no goals.
        date, device, commit, versions: where it comes from.
        plan, acceleration: as `ex4d generate` would use them.
        num_steps: of the whole denoising loop; ``computed_steps`` of them are not skipped by a cache.
        step_tflop: of a computed step, both branches of CFG.
        step_s: timed steps that were computed; ``skipped_step_s``: timed steps that a cache skipped.
        total_s: all steps, from the medians.
        load_s: weights drawn and placed; nothing is read from a disk.
        text_s: both prompts by umT5; encode_s: VAE, CLIP, geometry encoder; decode_s: VAE. Second call of two.
        whole_s: encoding, all steps and decoding, really run.
        peak_load, peak_run: GiB: allocated, reserved (torch's largest values), device (what nvidia-smi would show).
        estimate_load_gib, estimate_run_gib: what the plan had promised.
        host_gib: largest resident memory of the process so far.
        notes: what differs from a real run. error: why there is no number.
    """

    case: str
    video: str
    tiny: bool
    date: str = ""
    device: str = ""
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""
    acceleration: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int = 0
    computed_steps: int = 0
    step_tflop: float = 0.0
    step_s: list[float] = field(default_factory=list)
    skipped_step_s: list[float] = field(default_factory=list)
    median_step_s: float | None = None
    total_s: float | None = None
    load_s: float | None = None
    text_s: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    whole_s: float | None = None
    peak_load: Mapping[str, float] | None = None
    peak_run: Mapping[str, float] | None = None
    estimate_load_gib: float | None = None
    estimate_run_gib: float | None = None
    host_gib: float | None = None
    notes: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def floor_s(self) -> float:
        """Time of all computed steps' FLOPs at `SUSTAINED_TFLOPS`."""
        return self.step_tflop * self.computed_steps / SUSTAINED_TFLOPS

    @property
    def mfu(self) -> float | None:
        """FLOPs of the model by what the datasheet allows in the same time, 0–1."""
        if not self.total_s:
            return None
        return self.step_tflop * self.computed_steps / self.total_s / DATASHEET_TFLOPS

    @property
    def peak_gib(self) -> float | None:
        """The strictest reading: the device's, of load and run."""
        peaks = [peak["device"] for peak in (self.peak_load, self.peak_run) if peak]
        return max(peaks) if peaks else None

    @property
    def generate_s(self) -> float:
        """Encoding, all steps and decoding of one video, from their parts; 0 where nothing was measured."""
        return sum(part or 0.0 for part in (self.total_s, self.encode_s, self.decode_s))

    def goals(self) -> dict[str, dict[str, Any]]:
        """Goals of this case at the goals' size: goal, measured, met. ``official`` is judged by its whole run."""
        if self.tiny or self.video != GOAL_VIDEO:
            return {}
        seconds = self.total_s if self.whole_s is None else self.whole_s
        found = {
            "seconds": (SECONDS_GOALS.get(self.case), seconds),
            "gib": (GIB_GOALS.get(self.case), self.peak_gib),
        }
        return {
            name: {"goal": goal, "measured": value, "met": None if value is None else value <= goal}
            for name, (goal, value) in found.items()
            if goal is not None
        }

    def to_json(self) -> str:
        """One line."""
        derived = {"floor_s": self.floor_s, "mfu": self.mfu, "peak_gib": self.peak_gib, "goals": self.goals()}
        return json.dumps(asdict(self) | derived)


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Results of files of JSON lines."""
    known = Result.__dataclass_fields__
    lines = [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [Result(**{key: value for key, value in line.items() if key in known}) for line in lines]


def forward_flops(config: Mapping[str, Any], num_tokens: int) -> float:
    """FLOPs (two a multiplication and addition) of one forward pass: matrix products and attention.

    LoRAs beside the weights, norms, RoPE and the cast of types are no useful work and do not count.

    Args:
        config: of an image-to-video Wan transformer.
        num_tokens: of the video.
    """
    n, d, f = num_tokens, config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"]
    context, patch = TEXT_TOKENS + IMAGE_TOKENS, math.prod(config.get("patch_size", (1, 2, 2)))
    text, image, freq = config.get("text_dim", 4096), config["image_dim"], config.get("freq_dim", 256)
    projections = 6 * n * d * d + 2 * context * d * d  # q k v o, then q o for the cross-attention; its k and v
    attention = 2 * n * n * d + 2 * n * context * d
    blocks = config["num_layers"] * (projections + attention + 2 * n * d * f)
    ends = n * patch * d * (config.get("in_channels", 36) + config.get("out_channels", 16))
    embedders = TEXT_TOKENS * (text * d + d * d) + IMAGE_TOKENS * (image * image + image * d) + freq * d + 7 * d * d
    return 2.0 * (blocks + ends + embedders)


def format_table(results: Sequence[Result]) -> str:
    """Markdown: for each video the cases, then what slow-downs cost; the last result of a case counts.

    Args:
        results: blank ones of everything that is to be listed first, in their order.
    """
    lines: list[str] = []
    for video in dict.fromkeys(result.video for result in results):
        found = {result.case: result for result in results if result.video == video}
        prices = [name for name in found if name.startswith(PRICE)]
        lines += [f"### {video}{' (miniature: nothing about speed)' * found[next(iter(found))].tiny}", ""]
        lines += ["| case | s a step | all steps | floor | MFU | encode, decode | text | GiB, load / run | measured |"]
        lines += ["|---" * 9 + "|", *(_row(found[name]) for name in found if name not in prices), ""]
        if prices:
            lines += ["| alone on top of balanced | s a step | added to a video | measured |", "|---" * 4 + "|"]
            lines += [*(_price_row(found[name], found.get("balanced")) for name in prices), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(result: Result) -> str:
    goals = result.goals()
    seconds, gib = goals.get("seconds"), goals.get("gib")
    wanted = [f"≤ {goal['goal']:g} {unit}" for goal, unit in ((seconds, "s"), (gib, "GiB")) if goal is not None]
    name = f"{result.case} ({', '.join(wanted)})" if wanted else result.case
    floor = "–" if result.tiny else f"{result.floor_s:.1f} s"
    if result.error or result.total_s is None:
        return _cells(name, _NOT, _NOT, floor, _NOT, _NOT, _NOT, _NOT, f"no: {result.error}")
    total = f"{result.total_s:.2f} s"
    if result.whole_s is not None:
        total += f"; whole run {result.whole_s:.2f} s"
    on_gpu = result.peak_load is not None and result.peak_run is not None
    return _cells(
        name,
        f"{result.median_step_s:.3f}",
        total + _mark(seconds),
        floor,
        f"{100 * (result.mfu or 0):.0f} %" if on_gpu else "no GPU",
        f"{result.encode_s:.2f} s, {result.decode_s:.2f} s",
        "cached" if result.text_s is None else f"{result.text_s:.2f} s",
        f"{_device(result.peak_load)} / {_device(result.peak_run)}{_mark(gib)}",
        _source(result),
    )


def _price_row(result: Result, base: Result | None) -> str:
    """Time of a whole video with the slow-down less the time without; text counts where both have it."""
    name = result.case.removeprefix(PRICE)
    if result.error or result.total_s is None or base is None or base.total_s is None:
        return _cells(name, _NOT, _NOT, f"no: {result.error or 'no result of balanced'}")
    added = result.generate_s - base.generate_s
    if result.text_s is not None and base.text_s is not None:
        added += result.text_s - base.text_s
    return _cells(name, f"{result.median_step_s:.3f}", f"{added:+.2f} s", _source(result))


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _device(peak: Mapping[str, float] | None) -> str:
    return "no GPU" if peak is None else f"{peak['device']:.1f}"


def _source(result: Result) -> str:
    return f"{result.date[:10]}, {result.device}, {result.commit}"


def _mark(goal: Mapping[str, Any] | None) -> str:
    if goal is None or goal["met"] is None:
        return ""
    return " (met)" if goal["met"] else " (MISSED)"


def commit() -> str:
    """Short hash, with a + if files differ from it; what git cannot tell is said."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "commit unknown"
    return found.stdout.strip()
