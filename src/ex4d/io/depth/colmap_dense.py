"""Depth of a COLMAP dense workspace: ``stereo/depth_maps`` beside the ``sparse`` model of the undistorted pictures.

A map is the text ``width&height&channels&`` and then float32 numbers, row by row, little-endian (``Mat::Write`` in
COLMAP's src/colmap/mvs/mat.cc; https://colmap.github.io/format.html#depth-and-normal-maps); 0 = no depth.
"""

import re
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float32, Int64
from ex4d.errors import DepthError
from ex4d.io.cameras.files import read_colmap_model
from ex4d.io.depth.found import FoundDepth, cameras_of_frames
from ex4d.io.depth.raw import MAX_PIXELS, check_declared_size

_HEADER = re.compile(rb"(\d{1,7})&(\d{1,7})&(\d{1,3})&")
_MAX_HEADER_BYTES = 32
_KINDS = ("geometric", "photometric")
_SUBFOLDERS = ("", "dense/0", "dense")


class ColmapDepthFrames:
    """One COLMAP depth map a frame, all of the first one's size; satisfies `DepthFrames`.

    Args:
        files: in order.

    Raises:
        DepthError: the first map cannot be read.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self.num_frames = len(files)
        self.height, self.width = read_colmap_map(files[0]).shape
        check_declared_size(files[0].name, num_frames=self.num_frames, height=self.height, width=self.width)

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W]; 0 where COLMAP found no depth.

        Raises:
            DepthError: a map that is damaged or has another size than the first.
        """
        out = np.empty((len(indices), self.height, self.width), np.float32)
        for slot, index in enumerate(indices):
            depth = read_colmap_map(self._files[index])
            if depth.shape != (self.height, self.width):
                raise DepthError(
                    f"{self.width}x{self.height} depth in frame {index}, as in frame 0",
                    f"{depth.shape[1]}x{depth.shape[0]} in {self._files[index].name}",
                )
            out[slot] = depth
        return out


def read_colmap_map(path: Path) -> Float32:
    """One depth map float32 [H,W].

    Raises:
        DepthError: unreadable, not one channel, too large, or of another length than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = _HEADER.match(file.read(_MAX_HEADER_BYTES))
            if head is None:
                raise DepthError(f"a COLMAP depth map at {path}", "another kind of file")
            width, height, channels = (int(group) for group in head.groups())
            needed = head.end() + 4 * width * height * channels
            if channels != 1 or not 0 < width * height <= MAX_PIXELS or size != needed:
                raise DepthError(
                    f"one channel of at most {MAX_PIXELS} pixels and {needed} bytes in {path}",
                    f"{channels} channels of {width}x{height} and {size} bytes",
                    "run colmap patch_match_stereo again",
                )
            file.seek(head.end())
            data = file.read(4 * width * height)
    except OSError as error:
        raise DepthError(f"a readable COLMAP depth map at {path}", error.strerror or str(error)) from error
    if len(data) != 4 * width * height:
        raise DepthError(f"{4 * width * height} bytes of pixels in {path}", f"{len(data)} (truncated)")
    return np.frombuffer(data, "<f4").reshape(height, width).astype(np.float32)


def find_colmap_depth(folder: Path) -> FoundDepth | None:
    """Depth, K and cameras of a dense workspace (or of ``dense/0`` in it), or None where it is none.

    Maps of the kind ``geometric`` are taken where every picture has one, else ``photometric``; pictures are in
    the order of their names. The unit is the model's: relative.

    Raises:
        DepthError: no sparse model, a picture of it without depth, or damaged maps.
        CameraPathError: a damaged model, or cameras with distortion.
    """
    workspace = next((folder / sub for sub in _SUBFOLDERS if (folder / sub / "stereo" / "depth_maps").is_dir()), None)
    if workspace is None:
        return None
    raw = read_colmap_model(workspace)
    if raw is None:
        raise DepthError(
            f"the model sparse/ beside stereo/ in {workspace}", "none", "give COLMAP's whole dense workspace"
        )
    files, kind = _list_maps(workspace / "stereo" / "depth_maps", raw.names)
    frames = ColmapDepthFrames(files)
    path, notices = cameras_of_frames(raw, frames, str(workspace))
    name = f"COLMAP's {workspace.name}"
    return FoundDepth(
        frames=frames,
        name=name,
        kind="depth",
        scale="relative",
        K=path.K[0].copy(),
        path=path,
        notices=(
            *notices,
            f"{name}: {kind} depth, 0 is unknown, its scale is unknown",
            f"{name}: it belongs to COLMAP's undistorted pictures ({workspace.name}/images): give those as the input",
        ),
    )


def _list_maps(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], str]:
    """The map of each picture, and their kind."""
    wanted = f"geometric (or photometric) depth of every picture of the model in {folder}"
    lost: list[list[Path]] = []
    try:
        root = folder.resolve()
        for kind in _KINDS:
            files = [folder / f"{name}.{kind}.bin" for name in names]
            outside = next((file for file in files if not file.resolve().is_relative_to(root)), None)
            if outside is not None:
                raise DepthError(wanted, f"a name that leads out of it: {str(outside)[-80:]!r}")
            absent = [file for file in files if not file.is_file()]
            if not absent:
                return files, kind
            lost.append(absent)
    except (OSError, ValueError) as error:  # names that are no file names at all
        raise DepthError(wanted, str(error)[:200]) from error
    fewest = min(lost, key=len)
    got = f"none for {len(fewest)} of {len(names)} pictures, the first {fewest[0].name[:80]!r}"
    raise DepthError(wanted, got, "let colmap patch_match_stereo finish")
