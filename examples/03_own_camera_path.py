"""A camera path of your own, made in Python: frames rendered in memory, cameras saved for other tools.

    python examples/03_own_camera_path.py

The path rises and drifts to the right while it looks at the pivot. The same cameras can be given to the command
line: `ex4d run clip.mp4 --depth depth.npz --cam out/examples/my_path.json -o out/mine`.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

import ex4d
from ex4d.camera.pivot import resolve_pivot
from ex4d.core.geometry import look_at
from ex4d.io.cameras.files import write_cameras
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene


def my_path(source: ex4d.Camera, *, pivot_depth: float, num_frames: int) -> ex4d.CameraPath:
    """Starts at the source view; x right, y down, z forward, in the unit of the depth."""
    target = np.array([0.0, 0.0, pivot_depth])
    cameras: list[ex4d.Camera] = []
    for s in np.linspace(0, 1, num_frames):
        eye = pivot_depth * np.array([0.5 * s, -0.25 * np.sin(np.pi * s), 0.1 * s])
        matrix = look_at(eye, target)
        cameras.append(ex4d.Camera(K=source.K, world_to_camera=matrix, height=source.height, width=source.width))
    return ex4d.CameraPath.from_cameras(cameras, np.arange(num_frames, dtype=np.int64))


def main() -> None:
    """Build a mesh a frame, see it from the path, write the video and the cameras."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/examples"))
    parser.add_argument("--num-frames", type=int, default=24)
    parser.add_argument("--size", default="512x288", help="WxH px")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    width, height = (int(side) for side in args.size.split("x"))

    clip = scene_clip(make_scene(3), num_frames=args.num_frames, fps=12.0, height=height, width=width)
    first = clip.depth.read(0, 1)
    pivot_depth = resolve_pivot("auto", first.depth[0], first.valid[0])
    path = my_path(clip.path[0], pivot_depth=pivot_depth, num_frames=args.num_frames)
    write_cameras(args.output_dir / "my_path.json", path)

    video_file = args.output_dir / "my_path.mp4"
    observed: list[float] = []
    with DeliveryWriter(video_file, height=height, width=width, fps=Fraction(12)) as writer:
        for i in range(args.num_frames):
            video, depth = clip.read(i, i + 1), clip.depth.read(i, i + 1)
            mesh = ex4d.build_mesh(video.frames[0], depth.depth[0], depth.valid[0], clip.path[i])
            view = ex4d.render_mesh(mesh, path[i])
            writer.write(view.rgb[None], video.timestamps_s)
            observed.append(float(view.observed.mean()))
    print(f"observed: {observed[0]:.0%} in the first frame, {observed[-1]:.0%} in the last")
    print(f"written: {video_file}, {args.output_dir / 'my_path.json'}")


if __name__ == "__main__":
    main()
