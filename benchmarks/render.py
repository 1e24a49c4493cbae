"""CPU time of mesh build + raster, against OpenGL on the CPU (EGL + llvmpipe) on the same meshes.

    python benchmarks/render.py [--frames 9]

One run, engines interleaved, median CPU milliseconds a frame (process time over all threads), frames of the
procedural scenes 0–4. Both are charged for building the mesh (by our builder); the peer then uploads, draws and
reads back colour and depth. Skipped with a reason where moderngl or Mesa's EGL is missing.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh
from ex4d.demo.truth import orbit_right
from ex4d.mesh.watertight import MeshBuilder
from ex4d.render.rasterizer import NEAR_SHARE, Rasterizer
from ex4d.scene.generate import default_camera, make_scene, pivot_depth
from ex4d.scene.render import render_scene

SIZES = ((512, 512), (576, 1024))
YAWS_DEG = (30.0, 90.0)
_VERTEX = """#version 330
in vec3 position; in vec4 color; uniform mat4 clip_from_source; out vec4 v_color;
void main() { v_color = color; gl_Position = clip_from_source * vec4(position, 1.0); }"""
_FRAGMENT = """#version 330
in vec4 v_color; uniform int first_torn; out vec4 out_color;
void main() { out_color = v_color; }"""


class OpenGlPeer:
    """The same job through moderngl: indexed triangles, depth test, read back colour and depth."""

    def __init__(self, height: int, width: int) -> None:
        import moderngl

        self.context = moderngl.create_context(standalone=True, backend="egl")  # pyright: ignore[reportArgumentType]
        self.name = str(self.context.info["GL_RENDERER"])
        self.program = self.context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self.color = self.context.texture((width, height), 4)
        self.depth = self.context.depth_texture((width, height))
        self.target = self.context.framebuffer([self.color], self.depth)
        self.context.enable(moderngl.DEPTH_TEST)
        self.index: object | None = None

    def render(self, mesh: DepthMesh, target: Camera) -> np.ndarray:
        """uint8 [H,W,4]."""
        if self.index is None:
            self.index = self.context.buffer(mesh.faces.tobytes())
        near = NEAR_SHARE * float(mesh.grid[2].min())
        matrix = _clip_matrix(target, near, 4 * float(mesh.grid[2].max()))
        matrix = matrix @ target.world_to_camera @ mesh.source.camera_to_world
        self.program["clip_from_source"].write(matrix.T.astype("f4").tobytes())  # pyright: ignore
        position = self.context.buffer(np.ascontiguousarray(mesh.grid.reshape(3, -1).T).tobytes())
        color = self.context.buffer(mesh.rgba.tobytes())
        arrays = self.context.vertex_array(
            self.program, [(position, "3f", "position"), (color, "4f1", "color")], index_buffer=self.index
        )
        self.target.use()
        self.target.clear(0, 0, 0, 0, depth=1.0)
        arrays.render()
        pixels = np.frombuffer(self.target.read(components=4), np.uint8).reshape(target.height, target.width, 4)
        np.frombuffer(self.depth.read(), np.float32)
        for item in (arrays, position, color):
            item.release()
        return pixels


def _clip_matrix(camera: Camera, near: float, far: float) -> np.ndarray:
    """OpenGL clip space from OpenCV camera space (row 0 of the image first in memory)."""
    k = camera.K
    return np.array(
        [
            [2 * k[0, 0] / camera.width, 0, 2 * k[0, 2] / camera.width - 1, 0],
            [0, 2 * k[1, 1] / camera.height, 2 * k[1, 2] / camera.height - 1, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def _cpu_ms(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return 1e3 * (time.process_time() - start)


def measure(height: int, width: int, num_frames: int) -> None:
    """Print one row a yaw for this frame size."""
    try:
        peer = OpenGlPeer(height, width)
        reason = ""
    except Exception as error:  # noqa: BLE001 - moderngl raises bare exceptions; the reason is printed
        peer, reason = None, str(error)
    builder, rasterizer = MeshBuilder(), Rasterizer()
    frames = [_frame(seed, k / 2, height, width) for seed in range(5) for k in range(num_frames)]
    for yaw_deg in YAWS_DEG:
        ours: list[float] = []
        theirs: list[float] = []
        for i, frame in enumerate([frames[0], *frames]):  # the first one warms up compilation and drivers
            target = orbit_right(frame[3], yaw_deg, pivot_depth(frame[1].astype(np.float64)))
            spent = _cpu_ms(lambda frame=frame, target=target: rasterizer.render(builder.build(*frame), target))
            peer_spent = 0.0
            if peer:
                peer_spent = _cpu_ms(lambda frame=frame, target=target: peer.render(builder.build(*frame), target))
            if i > 0:
                ours.append(spent)
                theirs.append(peer_spent)
        a, b = statistics.median(ours), statistics.median(theirs)
        versus = f"{peer.name[:28]}  {b:7.1f} ms   {b / a:4.1f}x" if peer else f"peer skipped: {reason}"
        print(f"{width:>4}x{height:<4} yaw {yaw_deg:>3.0f}   ex4d {a:6.1f} ms   {versus}")


def _frame(seed: int, time_s: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Camera]:
    """Frame, depth, validity and camera of a scene: what a mesh is built from."""
    camera = default_camera(height, width)
    view = render_scene(make_scene(seed), camera, time_s)
    return view.rgb, view.depth, np.ones(view.depth.shape, np.bool_), camera


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, default=3, help="frames a scene")
    num = parser.parse_args().frames
    for size in SIZES:
        measure(*size, num)
