"""What preparation costs: clips a second, processor seconds of each stage, bytes of a sample, speed of reading.

    python benchmarks/prepare.py [--clips FOLDER] [--bucket TxHxW …] [--depth NAME] [--workers N]

Without --clips: procedural clips, so that the numbers can be had anywhere. Prints a table and, last, a line of JSON for
docs/scaling.md. One sample of each clip; other work on the machine shows in clips/s, hardly in processor seconds.
"""

import argparse
import json
import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.dataset.reader import Dataset
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.jobs.local import LocalExecutor
from ex4d.prepare.config import BucketConfig, GateConfig, PrepareConfig, SampleConfig
from ex4d.prepare.plan import open_source
from ex4d.prepare.run import Prepared, prepare
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene


def film(folder: Path, num_clips: int, num_frames: int, height: int, width: int) -> Path:
    """Procedural clips as mp4, each by a camera that moves."""
    folder.mkdir()
    for seed in range(num_clips):
        scene = make_scene(seed)
        clip = scene_clip(scene, num_frames=num_frames, fps=24.0, height=height, width=width, camera_motion="dolly")
        path = folder / f"scene_{seed:03d}.mp4"
        with DeliveryWriter(path, height=height, width=width, fps=Fraction(24)) as writer:
            writer.write(clip.read(0, num_frames).frames, np.arange(num_frames) / 24)
    return folder


def run(clips: Path, out: Path, options: argparse.Namespace) -> Prepared:
    """A dataset of one sample a clip, nothing refused for its motion."""
    config = PrepareConfig(
        items_per_shard=2,
        buckets=BucketConfig(buckets=tuple(options.bucket), max_segments=1, max_enlargement=4.0),
        gates=GateConfig(min_motion=0.0, max_hash_distance=-1),
        sample=SampleConfig(depth=options.depth),
    )
    return prepare(open_source(clips), out, config, LocalExecutor(num_workers=options.workers))


def reading(folder: Path) -> dict[str, float]:
    """Samples decoded a second by one process, and megabytes verified a second."""
    dataset = Dataset.open(folder)
    num_bytes = sum(member.size for row in dataset.rows for member in row.members)
    started = time.monotonic()
    dataset.verify()
    verified_s = time.monotonic() - started
    dataset.read(0)  # starts the decoder
    started = time.monotonic()
    for number in range(len(dataset)):
        dataset.read(number)
    decoded_s = time.monotonic() - started
    dataset.close()
    return {
        "mb_a_sample": num_bytes / len(dataset) / 1e6,
        "verified_mb_s": num_bytes / 1e6 / verified_s,
        "read_samples_s": len(dataset) / decoded_s,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--bucket", nargs="+", default=["25x192x192", "25x144x256"])
    parser.add_argument("--depth", default="auto")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--num-clips", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as name:
        folder = Path(name)
        num_frames = max(int(bucket.split("x")[0]) for bucket in options.bucket)
        clips = options.clips or film(folder / "clips", options.num_clips, num_frames, 288, 512)
        made = run(clips, folder / "dataset", options)
        assert made.info is not None
        rate = made.num_items / made.elapsed_s
        print(f"{made.num_items} clips, {made.info['num_samples']} samples, {', '.join(made.info['buckets'])}")
        print(f"{rate:.3f} clips/s with {options.workers} workers on {os.cpu_count()} processors")
        each = {stage: spent["cpu"] / made.num_items for stage, spent in made.seconds.items()}
        for stage, seconds in each.items():
            print(f"  {stage:<8} {seconds:7.2f} CPU-s a clip")
        found = reading(folder / "dataset")
        print(f"{found['mb_a_sample']:.2f} MB a sample, {found['read_samples_s']:.2f} samples/s decoded by one process")
        print(f"{found['verified_mb_s']:.0f} MB/s verified")
        print(json.dumps({"clips_s": rate, "cpu_s_a_clip": each, **found, "depth": made.info["depth"]["name"]}))


if __name__ == "__main__":
    main()
