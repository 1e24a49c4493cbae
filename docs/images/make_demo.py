"""Make docs/images/demo.png, the picture of the README: `python docs/images/make_demo.py`.

A procedural clip (scene seed 0) with its depth track, filmed again from `orbit-right:30`, three moments of it.
"""

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

import ex4d
from ex4d.depth.result import DepthConfig
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.prior import close_prior
from ex4d.io.video import VideoReader
from ex4d.pipeline.sheet import write_sheet
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

SEED, CAM, NUM_FRAMES, FRAMES = 0, "orbit-right:30", 24, (8, 15, 23)
HEIGHT, WIDTH = 288, 512


def main(target: Path, seed: int = SEED, cam: str = CAM) -> None:
    """Write the picture."""
    clip = scene_clip(make_scene(seed), num_frames=NUM_FRAMES, fps=12.0, height=HEIGHT, width=WIDTH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with DeliveryWriter(folder / "clip.mp4", height=HEIGHT, width=WIDTH, fps=Fraction(12)) as writer:
            video = clip.read(0, NUM_FRAMES)
            writer.write(video.frames, video.timestamps_s)
        np.savez(folder / "depth.npz", depth=clip.depth.read(0, NUM_FRAMES).depth, K=clip.path.K[0])
        config = ex4d.RunConfig(
            input=str(folder / "clip.mp4"),
            camera=ex4d.CameraConfig(cam=(cam,)),
            depth=DepthConfig(depth=str(folder / "depth.npz"), scale=1.0),
        )
        out = ex4d.run(config, folder / "out").folders[0]
        prior = ex4d.open_prior(out)
        with VideoReader(out / "result.mp4") as reader:
            results = np.concatenate([chunk.frames for chunk in reader])
        write_sheet(prior, folder / "sheet.png", results=dict(enumerate(results)), frames=FRAMES)
        close_prior(prior)
        sheet = Image.open(folder / "sheet.png").convert("RGB")
    sheet.quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.png"))
