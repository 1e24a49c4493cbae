"""The tables of docs/scaling.md: what large corpora and trainings need, computed from measured costs of a clip.

    python benchmarks/scaling.py [--utilisation 0.4] [--node-mtbf-h 720]

Measured here: processor seconds and bytes of a sample (`benchmarks/prepare.py`, 49x512x512, two masks) and the
operations of the networks (torch's counter on the full-size models). Everything else is arithmetic on these, on the
assumptions at the top of this file, and is marked so in the table.
"""

import argparse
import math
from dataclasses import dataclass

CPU_S = {"decode, cuts, gates": 0.73, "masks": 5.08, "encode": 1.65}
"""Processor seconds a sample, docs/dataset.md (measured)."""
BUILTIN_S = 20.46
"""Processor seconds of depth without a network, and of cameras (measured)."""
SAMPLE_MB = 0.72
"""Target and two masks (measured)."""
NETWORK_DEPTH_S = 0.0075 * 49 * 32 / 22
"""GPU seconds of Video Depth Anything Small: 7.5 ms a frame on an A100 by its authors, windows of 32 that overlap by 10
(published, not measured here)."""

FORWARD_TFLOP = 475.0
"""One pass of the transformer at 49x512x512, without CFG (benchmarks/generate_results.py, measured by counting)."""
ENCODE_TFLOP = 65.0
"""One video through Wan's VAE encoder (counted)."""
LATENT_MB = 16 * 13 * 64 * 64 * 2 / 1e6
"""A video's latents as float16."""
CLIP_MB, TEXT_MB = 257 * 1280 * 2 / 1e6, 100 * 4096 * 2 / 1e6
"""CLIP's embeddings; umT5's of a caption of about 100 tokens."""
GPU_TFLOPS = 989.0
"""Dense bf16 of an H100 or H200, by its datasheet."""
TRAINED = 23_109_632 + 76_677_120
CORPORA = {"OpenVid-1M": 1.0e6, "Koala-36M": 36.0e6}
NODE_CPUS, NODE_GPUS = 96, 8
NUM_STEPS, BATCH = 20_000, 8
"""Of the shipped recipe `paper`."""
SAVE_S, RESTART_S = 5.0, 300.0
"""What a checkpoint holds the training up, and what starting again takes (assumed)."""


@dataclass(frozen=True, slots=True)
class Training:
    """Of one sample, on one GPU."""

    utilisation: float

    @property
    def cached_s(self) -> float:
        """Forward, forward again for checkpointing, and back through frozen weights, which cost no gradient."""
        return 3 * FORWARD_TFLOP / (self.utilisation * GPU_TFLOPS)

    @property
    def encoding_s(self) -> float:
        """Target, colour, observed and first frame, where no cache holds them."""
        return 4 * ENCODE_TFLOP / (self.utilisation * GPU_TFLOPS)


def hours(seconds: float) -> str:
    """Short."""
    value = seconds / 3600
    return f"{value:,.0f} h" if value >= 10 else f"{value:.1f} h"


def corpus_rows() -> list[list[str]]:
    """Storage and preparation of each corpus, one sample a clip."""
    latents = (1 + 3 * 2) * LATENT_MB + 2 * CLIP_MB + TEXT_MB
    cpu = sum(CPU_S.values())
    rows = [["corpus", "samples", "shards", "latents", "CPU", "builtin depth, CPU", "network depth, GPU",
             "1 node", "64 nodes"]]  # fmt: skip
    for name, count in CORPORA.items():
        node = max(count * cpu / NODE_CPUS, count * NETWORK_DEPTH_S / NODE_GPUS)
        rows.append([
            name, f"{count:,.0f}", f"{count * SAMPLE_MB / 1e6:.2g} TB", f"{count * latents / 1e6:.3g} TB",
            hours(count * cpu), hours(count * BUILTIN_S), hours(count * NETWORK_DEPTH_S), hours(node), hours(node / 64),
        ])  # fmt: skip
    return rows


def training_rows(training: Training) -> list[list[str]]:
    """GPU time of a training, with and without a cache."""
    rows = [["training", "samples", "GPU time, cached", "GPU time, not cached", "8 GPUs", "512 GPUs"]]
    for name, count in {
        "recipe `paper`": NUM_STEPS * BATCH,
        **{f"once through {k}": v for k, v in CORPORA.items()},
    }.items():
        spent = count * training.cached_s
        whole = count * (training.cached_s + training.encoding_s)
        rows.append([name, f"{count:,.0f}", hours(spent), hours(whole), hours(spent / 8), hours(spent / 512)])
    return rows


def failure_rows(training: Training, node_mtbf_h: float) -> list[list[str]]:
    """What failures cost: Young's interval sqrt(2 C M), and half an interval and a restart lost a failure."""
    rows = [["nodes", "a failure every", "best checkpoint interval", "time lost", "with one each 30 min"]]
    for nodes in (1, 64):
        between = 3600 * node_mtbf_h / nodes
        best = math.sqrt(2 * SAVE_S * between)
        lost = [(every / 2 + RESTART_S) / between + SAVE_S / every for every in (best, 1800.0)]
        every = f"{best / 60:.0f} min ({best / training.cached_s:,.0f} steps)"
        rows.append([str(nodes), f"{between / 3600:,.0f} h", every, *(f"{share:.1%}" for share in lost)])
    return rows


def show(title: str, rows: list[list[str]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n")
    for number, row in enumerate(rows):
        print(f"| {' | '.join(row)} |")
        if not number:
            print("|" + "---|" * len(row))


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utilisation", type=float, default=0.4, help="of the datasheet's FLOPs (goal, not measured)")
    parser.add_argument("--node-mtbf-h", type=float, default=720.0, help="mean hours between failures of a node")
    options = parser.parse_args()
    training = Training(options.utilisation)
    print(f"a sample: {sum(CPU_S.values()):.1f} CPU-s, {BUILTIN_S:.1f} more with builtin depth (measured); training "
          f"{training.cached_s:.2f} GPU-s, encoding {training.encoding_s:.2f} more")  # fmt: skip
    print(f"a checkpoint: {TRAINED * (4 + 8 + 4) / 1e9:.1f} GB; a step's gradients: {TRAINED * 4 / 1e6:.0f} MB")
    show("Corpora", corpus_rows())
    show("Training", training_rows(training))
    show("Failures", failure_rows(training, options.node_mtbf_h))


if __name__ == "__main__":
    main()
