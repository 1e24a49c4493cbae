"""Film a clip again from 60 degrees to the right.

    python examples/01_refilm_a_clip.py                        a made-up clip, with its exact depth
    python examples/01_refilm_a_clip.py clip.mp4 depth.npz     yours; without depth a rough layout stands in

The five lines that matter are in `refilm`. Results are in ./out/examples/refilm (see docs/prior_folder.md).
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

import ex4d
from ex4d.depth.result import DepthConfig
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene


def refilm(clip: str, depth: str, output: Path) -> None:
    """The chain as a library: one config in, one prior folder out."""
    camera = ex4d.CameraConfig(cam=("60",))
    config = ex4d.RunConfig(input=clip, camera=camera, depth=DepthConfig(depth=depth))
    result = ex4d.run(config, output, overwrite=True)
    print("\n".join(result.notices))
    print(f"observed {result.info[0]['coverage_mean']:.0%} on average: {result.folders[0] / 'result.mp4'}")


def make_clip(folder: Path, *, num_frames: int, height: int, width: int) -> tuple[str, str]:
    """A procedural scene as a video file and a depth file, as a depth camera would leave them."""
    clip = scene_clip(make_scene(0), num_frames=num_frames, fps=12.0, height=height, width=width)
    video, depth = clip.read(0, num_frames), clip.depth.read(0, num_frames)
    with DeliveryWriter(folder / "clip.mp4", height=height, width=width, fps=Fraction(12)) as writer:
        writer.write(video.frames, video.timestamps_s)
    np.savez(folder / "clip_depth.npz", depth=depth.depth, K=clip.path.K[0])
    return str(folder / "clip.mp4"), str(folder / "clip_depth.npz")


def main() -> None:
    """Read the arguments; make a clip if none is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", help="a video; default: a made-up one")
    parser.add_argument("depth", nargs="?", default="auto", help="its depth (docs/depth.md)")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/examples"))
    parser.add_argument("--num-frames", type=int, default=24, help="of the made-up clip")
    parser.add_argument("--size", default="512x288", help="of the made-up clip, WxH px")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    clip, depth = args.clip, args.depth
    if clip is None:
        width, height = (int(side) for side in args.size.split("x"))
        clip, depth = make_clip(args.output_dir, num_frames=args.num_frames, height=height, width=width)
    refilm(clip, depth, args.output_dir / "refilm")


if __name__ == "__main__":
    main()
