"""Speed and memory of training: the full-size stack with random weights, one case a command (a few minutes).

    python benchmarks/train_gpu.py --case cached -o results.json
    python benchmarks/train_gpu.py --table results.json
    python benchmarks/train_gpu.py --case cached encoded fp8 no-checkpointing --tiny        (on a CPU: does it run?)

512x512 px, 49 frames, one sample a step, LoRA of rank 16 and geometry encoder trained by `ex4d.training.trainer`; two
warm-up and five timed steps. MFU counts the forward pass twice more on the way back (the base is frozen: gradients of
activations, none of weights) and no block that is computed again. Results are appended as JSON lines.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generate_results import DATASHEET_TFLOPS, commit, forward_flops
from random_stack import Site, random_encoders, random_transformer

from ex4d.core.video import Video
from ex4d.dataset.layout import Bucket, SampleRow
from ex4d.dataset.sample import TrainingSample
from ex4d.model.estimates import PLANS
from ex4d.model.presets import PRESETS
from ex4d.model.sampling import make_scheduler
from ex4d.model.sizes import num_tokens
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.model.windows import latent_frames
from ex4d.pipeline.progress import SilentReporter
from ex4d.training.batches import BatchMaker
from ex4d.training.config import DataConfig, ModelConfig, OutputConfig, TrainConfig
from ex4d.training.log import read_log
from ex4d.training.model import TrainedModel, check_counts, new_lora, train_adapter
from ex4d.training.processes import SharedModel, open_processes
from ex4d.training.sampler import Sampler
from ex4d.training.stack import ready_to_train
from ex4d.training.trainer import Identity, Trainer

FULL: Bucket = (49, 512, 512)
TINY: Bucket = (5, 32, 48)
WARM_UP, TIMED = 2, 5
GIB = 2**30
GOALS = "at most 45 GiB, at least 40 % MFU on an H200"
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What differs between cases."""

    cached: bool = True
    fp8: bool = False
    checkpointing: bool = True


CASES = {
    "cached": Case(),
    "encoded": Case(cached=False),
    "fp8": Case(fp8=True),
    "no-checkpointing": Case(checkpointing=False),
}


@dataclass(kw_only=True)
class Result:
    """One case; JSON keys are the attributes. `mfu` is a share of a H200's dense bf16; GiB are torch's own."""

    case: str
    tiny: bool
    date: str = ""
    device: str = ""
    commit: str = ""
    torch: str = ""
    s_per_step: float | None = None
    peak_gib: float | None = None
    peak_load_gib: float | None = None
    mfu: float | None = None
    loss: float | None = None
    error: str = "no GPU was available"


class RandomSource:
    """One sample of noise, as latents or as a clip."""

    def __init__(self, site: Site, bucket: Bucket) -> None:
        self.rows = [SampleRow(key="noise", shard=0, bucket=bucket, caption="")]
        self._bucket, self._random = bucket, np.random.default_rng(0)
        frames, height, width = bucket
        transformer = site.config("transformer")
        latents = (16, latent_frames(frames), height // 8, width // 8)
        shapes = {"target": latents, "text": (512, transformer.get("text_dim", 4096))}
        shapes |= dict.fromkeys(("color", "observed", "image"), (1, *latents))
        shapes["image_embeds"] = (1, 257, transformer.get("image_dim", 1280))
        self.latents = {name: self._random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def read(self, number: int) -> TrainingSample:
        """A clip of noise, half of it seen."""
        frames = self._random.integers(0, 256, (*self._bucket, 3), dtype=np.uint8)
        survived = np.ones((1, *self._bucket), np.bool_)
        survived[..., : self._bucket[2] // 2] = False
        times = np.arange(self._bucket[0], dtype=np.float64) / 15
        return TrainingSample(key="noise", video=Video(frames=frames, timestamps_s=times), survived=survived)

    def read_latents(self, number: int, cache_key: str) -> Mapping[str, np.ndarray]:
        """What a latent cache would hold."""
        return self.latents


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or print; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case", choices=tuple(CASES), nargs="+", help="at full size one a command")
    what.add_argument("--table", type=Path, nargs="*", help="print the results of these files as Markdown")
    parser.add_argument("--tiny", action="store_true", help="the miniature, to show that everything runs")
    parser.add_argument("-o", "--output", type=Path, help="append results to this file")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(format_table([Result(**json.loads(line)) for path in options.table for line in path.open()]))
        return 0
    failed = 0
    for name in options.case:
        result = measure(name, tiny=options.tiny)
        failed += bool(result.error)
        line = json.dumps(asdict(result))
        print(line, flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return int(failed > 0)


def measure(name: str, *, tiny: bool) -> Result:
    """Train a few steps; what cannot be run says why."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = Result(case=name, tiny=tiny, date=datetime.now(UTC).isoformat(timespec="seconds"), commit=commit())
    result.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result.torch = torch.__version__
    if device.type == "cpu" and not tiny:
        return result
    result.error = ""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _run(CASES[name], result, Site(device=device, tiny=tiny, scratch=Path(scratch)))
        except torch.OutOfMemoryError as error:
            result.error = " ".join(str(error).split())[:300]
    return result


def _run(case: Case, result: Result, site: Site) -> None:
    bucket = TINY if site.tiny else FULL
    lora = site.config("lora")
    config = TrainConfig(
        num_steps=WARM_UP + TIMED,
        model=ModelConfig(rank=lora["rank"], fp8_base=case.fp8, checkpointing=case.checkpointing),
        data=DataConfig(latents="random" if case.cached else ""),
        output=OutputConfig(checkpoint_every=10**6),
    )
    model, pipe = _stack(case, config, site)
    if not site.tiny:
        assert check_counts(model)
    result.peak_load_gib = _peak(site.device)
    source = RandomSource(site, bucket)
    captions = {"": torch.from_numpy(source.latents["text"])}
    with open_processes() as processes:
        trainer = Trainer(
            SharedModel(model, config, processes),
            BatchMaker(source, pipe, captions, config.data, seed=0),
            Sampler({bucket: [0]}, config.data, seed=0),
            config,
            site.scratch,
            processes,
            Identity(model="random", dataset="random"),
        )
        trainer.run(SilentReporter(), on_step=lambda step: _reset(site.device) if step == WARM_UP else None)
    steps = read_log(site.scratch)[WARM_UP:]
    result.peak_gib = _peak(site.device)
    result.s_per_step = statistics.median(entry["s_per_step"] for entry in steps)
    result.loss = steps[-1]["loss"]
    frames, height, width = bucket
    flops = forward_flops(model.transformer.config, num_tokens(latent_frames(frames), height, width))
    if not site.tiny:
        result.mfu = 2 * flops / result.s_per_step / (DATASHEET_TFLOPS * 1e12)


def _stack(case: Case, config: TrainConfig, site: Site) -> tuple[TrainedModel, EX4DPipeline]:
    encoders: Any = random_encoders(site)
    if not case.cached:
        encoders["vae"].to(site.device)
        encoders["image_encoder"].to(site.device)
    transformer = random_transformer(site, PLANS["bf16"], PRESETS["official"], prepare=lambda _: None)
    model = TrainedModel(transformer, encoders["geometry_encoder"])
    train_adapter(model, new_lora(transformer, rank=config.model.rank, alpha=config.model.alpha, seed=0))
    ready_to_train(model, config.model, site.device)
    pipe = EX4DPipeline(
        tokenizer=None, text_encoder=None, scheduler=make_scheduler(), transformer=transformer, **encoders
    )
    resident = ("transformer", "geometry_encoder", "vae", "image_encoder")
    return model, pipe.place(site.device, resident=resident)


def _peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def format_table(results: Sequence[Result]) -> str:
    """Markdown, the newest result of each case; what was not measured says so."""
    newest = {result.case: result for result in results if not result.tiny and not result.error}
    lines = [
        f"| case ({GOALS}) | s a step | peak GiB | while loading | MFU | measured |",
        "|---|---|---|---|---|---|",
    ]
    for name in CASES:
        found = newest.get(name)
        if found is None:
            lines.append(f"| {name} |" + f" {NOT_MEASURED} |" * 5)
            continue
        cells = (
            f"{found.s_per_step:.2f}",
            f"{found.peak_gib:.1f}",
            f"{found.peak_load_gib:.1f}",
            f"{100 * (found.mfu or 0):.0f} %",
            f"{found.date[:10]}, {found.device}, {found.commit}, torch {found.torch}",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
