"""How good a tiny model completes what it was not shown; see train_tiny.py."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from train_tiny_data import Filmed, make_filmed
from train_tiny_model import OBJECTIVE, make_model, no_text

from ex4d.core.arrays import Bool, UInt8
from ex4d.fill.spatial import fill_spatial
from ex4d.model import preprocess
from ex4d.model.branch import TextEmbeds
from ex4d.model.training_latents import encode_target
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.training.batches import Batch
from ex4d.training.checkpoint import list_checkpoints, read_state, read_tensors_of
from ex4d.training.log import read_log
from ex4d.training.model import TrainedModel
from ex4d.training.processes import SharedModel
from ex4d.training.validate import sample_latents

METHODS = ("untrained", "mean colour", "fill", "trained, 1 step", "trained, 4 steps")
_SHOWN, _LEAST_HIDDEN = 5, 0.05


@dataclass(frozen=True, slots=True)
class Judged:
    """One held-out clip.

    Attributes:
        seed: of its scene.
        truth: uint8 [T,H,W,3].
        observed: bool [T,H,W], what was shown, after erosion.
        results: method → completed clip uint8 [T,H,W,3].
    """

    seed: int
    truth: UInt8
    observed: Bool
    results: dict[str, UInt8]

    def psnr(self, method: str) -> float:
        """Of the pixels that were not shown, dB."""
        hidden = ~self.observed
        error = self.results[method][hidden].astype(np.float64) - self.truth[hidden]
        return float(10 * np.log10(255**2 / (error**2).mean()))


def judge(run: Path, seeds: Sequence[int], *, width: int, num_layers: int) -> list[Judged]:
    """Complete held-out clips with the newest checkpoint of a run, and without it.

    Args:
        run: of `train_tiny.py train`.
        seeds: scenes.
        width: of the model.
        num_layers: of the model.
    """
    untrained, pipe = make_model(seed=0, width=width, num_layers=num_layers)
    trained, _ = make_model(seed=0, width=width, num_layers=num_layers)
    checkpoint = list_checkpoints(run)[-1]
    trained.load_state_dict(read_tensors_of(checkpoint, "ema"))
    print(f"after {read_state(checkpoint).step} steps")
    return [_judge(make_filmed(seed), seed, untrained, trained, pipe) for seed in seeds]


def _judge(clip: Filmed, seed: int, untrained: TrainedModel, trained: TrainedModel, pipe: EX4DPipeline) -> Judged:
    truth = clip.video.frames
    observed = next(seen for seen in _eroded(clip, seed) if seen.mean() <= 1 - _LEAST_HIDDEN)
    mean = truth[observed].mean(axis=0) if observed.any() else np.full(3, 127.5)
    results = {
        "untrained": _generated(untrained, pipe, truth, observed, num_steps=1),
        "mean colour": np.broadcast_to(np.round(mean).astype(np.uint8), truth.shape),
        "fill": _filled(clip, observed),
        "trained, 1 step": _generated(trained, pipe, truth, observed, num_steps=1),
        "trained, 4 steps": _generated(trained, pipe, truth, observed, num_steps=4),
    }
    completed = {name: np.where(observed[..., None], truth, result) for name, result in results.items()}
    return Judged(seed, truth, observed, completed)


def _eroded(clip: Filmed, seed: int) -> Iterator[Bool]:
    """Each of the clip's masks as the model gets it; some hide nothing, and there would be nothing to judge."""
    for survived in clip.survived:
        eroded = preprocess.erode_mask(survived.astype(np.uint8) * np.uint8(255), "official", seed=seed)
        yield preprocess.threshold_mask(eroded)


def _generated(model: TrainedModel, pipe: EX4DPipeline, truth: UInt8, observed: Bool, *, num_steps: int) -> UInt8:
    seen = pipe.encode_views(truth, observed)
    text = no_text()[""][None]
    given = {"text": text, "color": seen.color, "observed": seen.observed, "image": seen.image}
    batch = Batch(("",), encode_target(pipe, truth)[None], given)
    latents = sample_latents(
        _alone(model), batch, TextEmbeds(cond=text), OBJECTIVE, num_steps=num_steps, guidance_scale=1.0, seed=0
    )
    return pipe.decode(latents)


def _alone(model: TrainedModel) -> SharedModel:
    shared = SharedModel.__new__(SharedModel)
    shared.model = shared.call = model
    return shared


def _filled(clip: Filmed, observed: Bool) -> UInt8:
    """By the last step of `ex4d.fill`, frame by frame: each hole from the far side of its surroundings.

    The steps before it ask other frames and the mesh; here both would show what is hidden.
    """
    done = np.empty_like(clip.video.frames)
    for index, known in enumerate(observed):
        color = clip.video.frames[index].astype(np.float32) * known[..., None]
        disparity = np.where(known, np.float32(1) / clip.depth[index], np.float32(0))
        background = np.float32(np.quantile(disparity[known], 0.1)) if known.any() else np.float32(0)
        fill_spatial(color, disparity, np.zeros_like(disparity), known, background=background)
        done[index] = np.clip(color + 0.5, 0, 255).astype(np.uint8)
    return done


def judge_table(results: Sequence[Judged]) -> str:
    """Mean and worst PSNR of each method, as Markdown."""
    hidden = np.mean([1 - judged.observed.mean() for judged in results])
    lines = [
        f"{len(results)} held-out clips, {100 * hidden:.0f} % of the pixels hidden",
        "",
        "| completed by | PSNR of hidden pixels, mean | lowest clip | above the mean colour |",
        "|---|---|---|---|",
    ]
    base = np.array([judged.psnr("mean colour") for judged in results])
    for method in METHODS:
        found = np.array([judged.psnr(method) for judged in results])
        lines.append(f"| {method} | {found.mean():.2f} dB | {found.min():.2f} dB | {(found - base).mean():+.2f} dB |")
    return "\n".join(lines)


def write_pictures(results: Sequence[Judged], path: Path) -> None:
    """The last frame of the first clips: source, what was shown of it, fill, trained model; in 256 colours."""
    rows = []
    for judged in results[:_SHOWN]:
        shown = judged.truth[-1] * judged.observed[-1][..., None].astype(np.uint8)
        made = [judged.results[name][-1] for name in ("fill", "trained, 1 step")]
        rows.append(np.concatenate([judged.truth[-1], shown, *made], axis=1))
    sheet = Image.fromarray(np.concatenate(rows)).resize((2 * rows[0].shape[1], 2 * len(rows) * rows[0].shape[0]))
    picture = Image.new("RGB", (sheet.width, sheet.height + 18), (28, 28, 28))
    picture.paste(sheet, (0, 18))
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(("source", "seen", "fill", "trained")):
        draw.text((4 + column * sheet.width // 4, 3), title, fill=(255, 255, 255))
    picture.quantize(256).save(path, optimize=True)


def write_curve(run: Path, path: Path) -> None:
    """Error of the velocity by step, and its running mean, on a logarithmic scale."""
    values = np.log10([entry["error"] for entry in read_log(run)])
    width, height, margin = 640, 300, 36
    low, high = float(np.floor(values.min() * 4) / 4), float(np.ceil(values.max() * 4) / 4)
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(picture)

    def place(step: float, value: float) -> tuple[float, float]:
        x = margin + step / max(len(values) - 1, 1) * (width - 2 * margin)
        return x, height - margin - (value - low) / (high - low) * (height - 2 * margin)

    for level in np.arange(low, high + 0.01, 0.25):
        draw.line([place(0, level), place(len(values) - 1, level)], fill=(225, 225, 225))
        draw.text((2, place(0, level)[1] - 6), f"{10**level:.2f}", fill=(90, 90, 90))
    smooth = np.array([values[max(0, i - 49) : i + 1].mean() for i in range(len(values))])
    draw.line([place(i, v) for i, v in enumerate(values)], fill=(190, 205, 225))
    draw.line([place(i, v) for i, v in enumerate(smooth)], fill=(30, 80, 160), width=2)
    draw.text((margin, height - 18), f"mean squared error of the velocity, {len(values)} steps", fill=(0, 0, 0))
    picture.save(path, optimize=True)
