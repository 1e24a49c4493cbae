"""One frame and its depth → a depth watertight mesh → GLB and PLY for Blender, MeshLab or a browser.

    python examples/02_mesh_from_one_frame.py

Any uint8 [H,W,3] picture and float32 [H,W] z-depth do; here both come from a procedural scene.
"""

import argparse
from pathlib import Path

import ex4d
from ex4d.io.meshes import write_glb, write_ply
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene


def main() -> None:
    """Build the mesh, say what it is, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/examples"))
    parser.add_argument("--size", default="512x288", help="WxH px")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    width, height = (int(side) for side in args.size.split("x"))

    clip = scene_clip(make_scene(1), num_frames=1, fps=12.0, height=height, width=width)
    frame = clip.read(0, 1).frames[0]
    depth = clip.depth.read(0, 1)
    mesh = ex4d.build_mesh(frame, depth.depth[0], depth.valid[0], clip.path[0])

    print(f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces, watertight: {mesh.is_watertight}")
    print(f"{mesh.face_torn.mean():.1%} of the faces are torn (occlusion edges), border or cap")
    write_glb(mesh, args.output_dir / "frame.glb")
    write_ply(mesh, args.output_dir / "frame.ply")
    print(f"written: {args.output_dir / 'frame.glb'}, {args.output_dir / 'frame.ply'}")


if __name__ == "__main__":
    main()
