"""Does training work? A tiny model of Wan's shape, trained from nothing with `ex4d.training` on procedural clips.

    python benchmarks/train_tiny.py train -o RUN --num-steps 1500      (goes on where it was stopped)
    python benchmarks/train_tiny.py judge RUN --images docs/images

The clips have true depth and simulated masks; a codec that loses nothing stands behind the VAE's interface. A token
of 8x8 px in 4 frames has more values (768) than the model is wide, so its output is taken for the clean latents
(``prediction = "clean"``): noise would not fit through. Judged are pixels that the model was not shown, on scenes that
it was never trained on: the PSNR of each clip, averaged over clips.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from train_tiny_data import HELD_OUT, ClipSource, store
from train_tiny_judge import judge, judge_table, write_curve, write_pictures
from train_tiny_model import OBJECTIVE, make_model, no_text

from ex4d.pipeline.progress import ConsoleReporter
from ex4d.training.batches import BatchMaker
from ex4d.training.config import DataConfig, ModelConfig, OptimizerConfig, OutputConfig, TrainConfig
from ex4d.training.processes import SharedModel, open_processes
from ex4d.training.sampler import Sampler
from ex4d.training.trainer import Identity, Trainer

WIDTH, NUM_LAYERS = 240, 5
NUM_CLIPS = 600


def settings(num_steps: int) -> TrainConfig:
    """The recipe."""
    return TrainConfig(
        num_steps=num_steps,
        model=ModelConfig(trained="all", precision="fp32", checkpointing=False),
        objective=OBJECTIVE,
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=50, ema_decay=0.99),
        data=DataConfig(micro_batch=4),
        output=OutputConfig(checkpoint_every=100, keep_last=2),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("-o", "--output", type=Path, required=True)
    train.add_argument("--num-steps", type=int, default=1500)
    train.add_argument("--num-clips", type=int, default=NUM_CLIPS)
    train.add_argument("--clips", type=Path, help="where clips are kept (default: OUTPUT/clips)")
    look = commands.add_parser("judge")
    look.add_argument("run", type=Path)
    look.add_argument("--images", type=Path, help="folder for curve and pictures")
    look.add_argument("--num-scenes", type=int, default=len(HELD_OUT))
    for command in (train, look):
        command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.command == "train":
        _train(options)
    else:
        results = judge(options.run, HELD_OUT[: options.num_scenes], width=WIDTH, num_layers=NUM_LAYERS)
        print(judge_table(results))
        if options.images is not None:
            write_curve(options.run, options.images / "training_curve.png")
            write_pictures(results, options.images / "training_tiny.png")
    return 0


def _train(options: argparse.Namespace) -> None:
    folder = options.clips or options.output / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    reporter = ConsoleReporter(Console(stderr=True))
    reporter.begin("film", options.num_clips, "clips")
    paths: list[Path] = []
    for seed in range(options.num_clips):
        paths.append(store(folder, seed))
        reporter.advance()
    reporter.end()
    source, config = ClipSource(paths), settings(options.num_steps)
    with open_processes(device="cpu") as processes:
        model, pipe = make_model(seed=config.seed, width=WIDTH, num_layers=NUM_LAYERS)
        trainer = Trainer(
            SharedModel(model, config, processes),
            BatchMaker(source, pipe, no_text(), config.data, seed=config.seed),
            Sampler(source.buckets, config.data, seed=config.seed),
            config,
            options.output,
            processes,
            Identity(model=f"width {WIDTH}, {NUM_LAYERS} layers", dataset=source.fingerprint),
        )
        done = trainer.resume()
        reporter.note(f"{done} steps are done; {sum(value.numel() for value in model.parameters()):,} parameters")
        trainer.run(reporter)


if __name__ == "__main__":
    sys.exit(main())
