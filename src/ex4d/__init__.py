"""Re-film a video: an ordinary monocular clip in, the same moment seen from another camera out.

Public names are resolved on first use: ``import ex4d`` loads neither torch, numba nor cv2.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ex4d.core.version import __version__ as __version__

if TYPE_CHECKING:
    from ex4d.camera.build import build_path
    from ex4d.camera.config import PathRequest
    from ex4d.core.camera import Camera, CameraPath
    from ex4d.core.clip import ArrayClip, Clip
    from ex4d.core.depth import DepthVideo
    from ex4d.core.mesh import DepthMesh
    from ex4d.core.video import Video
    from ex4d.core.view import GeometryPrior, RenderedView
    from ex4d.depth.result import DepthConfig
    from ex4d.errors import Ex4dError
    from ex4d.io.prior import open_prior
    from ex4d.mesh.config import GeometryConfig
    from ex4d.mesh.watertight import build_mesh
    from ex4d.model.config import GenerateConfig
    from ex4d.model.wan_pipeline import EX4DPipeline
    from ex4d.pipeline.config import CameraConfig, ClipConfig, RunConfig
    from ex4d.pipeline.run import RunResult, run
    from ex4d.render.rasterizer import render_mesh

_HOMES = {
    "ArrayClip": "ex4d.core.clip",
    "Camera": "ex4d.core.camera",
    "CameraConfig": "ex4d.pipeline.config",
    "CameraPath": "ex4d.core.camera",
    "Clip": "ex4d.core.clip",
    "ClipConfig": "ex4d.pipeline.config",
    "DepthConfig": "ex4d.depth.result",
    "DepthMesh": "ex4d.core.mesh",
    "DepthVideo": "ex4d.core.depth",
    "EX4DPipeline": "ex4d.model.wan_pipeline",
    "Ex4dError": "ex4d.errors",
    "GenerateConfig": "ex4d.model.config",
    "GeometryConfig": "ex4d.mesh.config",
    "GeometryPrior": "ex4d.core.view",
    "PathRequest": "ex4d.camera.config",
    "RenderedView": "ex4d.core.view",
    "RunConfig": "ex4d.pipeline.config",
    "RunResult": "ex4d.pipeline.run",
    "Video": "ex4d.core.video",
    "build_mesh": "ex4d.mesh.watertight",
    "build_path": "ex4d.camera.build",
    "open_prior": "ex4d.io.prior",
    "render_mesh": "ex4d.render.rasterizer",
    "run": "ex4d.pipeline.run",
}

__all__ = [
    "ArrayClip",
    "Camera",
    "CameraConfig",
    "CameraPath",
    "Clip",
    "ClipConfig",
    "DepthConfig",
    "DepthMesh",
    "DepthVideo",
    "EX4DPipeline",
    "Ex4dError",
    "GenerateConfig",
    "GeometryConfig",
    "GeometryPrior",
    "PathRequest",
    "RenderedView",
    "RunConfig",
    "RunResult",
    "Video",
    "build_mesh",
    "build_path",
    "open_prior",
    "render_mesh",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ex4d' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
