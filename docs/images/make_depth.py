"""Make docs/images/depth_builtin.png, what `--depth builtin` gets right and wrong: `python docs/images/make_depth.py`.

Procedural clips, each filmed by a camera that stands, pans or dollies. Columns: the last frame; its true depth; the
depth of `builtin`; the same moment from 30° to the right, as it is and as it comes out of `builtin`'s depth (grey:
never seen). Colours are disparity, red = near, each map stretched between its own ends.
"""

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import ex4d
from ex4d.core.arrays import UInt8
from ex4d.depth.result import DepthConfig
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.prior import close_prior
from ex4d.pipeline.depth_files import color_disparity
from ex4d.scene.clip import CameraMotion, SceneClip, scene_clip
from ex4d.scene.generate import make_scene
from ex4d.scene.render import render_scene

ROWS: tuple[tuple[int, CameraMotion], ...] = ((101, "static"), (102, "pan"), (106, "dolly"), (107, "dolly"))
TITLES = ("frame", "true depth", "builtin", "true view at 30°", "view by builtin")
NUM_FRAMES, FPS, HEIGHT, WIDTH = 24, 15, 192, 288
_GREY = 96


def _row(seed: int, motion: CameraMotion, folder: Path) -> list[UInt8]:
    """The five cells of a clip."""
    clip = scene_clip(
        make_scene(seed), num_frames=NUM_FRAMES, fps=FPS, height=HEIGHT, width=WIDTH, camera_motion=motion
    )
    video = clip.read(0, NUM_FRAMES)
    with DeliveryWriter(folder / "clip.mp4", height=HEIGHT, width=WIDTH, fps=Fraction(FPS)) as writer:
        writer.write(video.frames, video.timestamps_s)
    depth = clip.depth.read(0, NUM_FRAMES).depth
    np.savez(folder / "depth.npz", depth=depth, K=clip.path.K, world_to_camera=clip.path.world_to_camera)
    cameras = ex4d.CameraConfig(cam=("orbit-right:30",))
    found = _prior(folder, "builtin", DepthConfig(depth="builtin", cache=False), cameras)
    true = _prior(folder, "true", DepthConfig(depth=str(folder / "depth.npz"), scale=1.0), cameras)
    last = NUM_FRAMES - 1
    truth = render_scene(clip.scene, true.path[last], float(clip.timestamps_s[last]), supersample=2).rgb
    view, maps = found.view.read(last, last + 1), found.source_depth.read(last, last + 1)
    shown = np.where(view.observed[0][..., None], view.rgb[0], np.uint8(_GREY))
    cells = [video.frames[last], _colors(depth[last], _known(clip, last)), _colors(maps.depth[0], maps.valid[0])]
    close_prior(found)
    close_prior(true)
    return [*cells, truth, shown]


def _prior(folder: Path, name: str, depth: DepthConfig, camera: ex4d.CameraConfig) -> ex4d.GeometryPrior:
    config = ex4d.RunConfig(input=str(folder / "clip.mp4"), camera=camera, depth=depth, generator="none")
    return ex4d.open_prior(ex4d.run(config, folder / name).folders[0])


def _known(clip: SceneClip, frame: int) -> np.ndarray:
    return ~np.isin(clip.view(frame).object_id, clip.scene.ids("sky"))


def _colors(z: np.ndarray, valid: np.ndarray) -> UInt8:
    return color_disparity(z, valid, np.percentile(1 / z[valid], (1, 99)).tolist())


def main(target: Path) -> None:
    """Write the picture."""
    header, gap = 18, 4
    size = ((WIDTH + gap) * len(TITLES) + gap, (HEIGHT + gap + header) * len(ROWS) + header)
    sheet = Image.new("RGB", size, (28, 28, 28))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        draw.text((gap + column * (WIDTH + gap), 3), title, fill=(255, 255, 255))
    for row, (seed, motion) in enumerate(ROWS):
        top = header + row * (HEIGHT + gap + header)
        draw.text((gap, top + 3), f"seed {seed}, camera: {motion}", fill=(190, 190, 190))
        with tempfile.TemporaryDirectory() as name:
            for column, cell in enumerate(_row(seed, motion, Path(name))):
                sheet.paste(Image.fromarray(cell), (gap + column * (WIDTH + gap), top + header))
    sheet.quantize(192).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("depth_builtin.png"))
