"""Depth of a ViPE result folder: ``depth/NAME.zip`` of numbered half-float EXR frames, with its cameras.

Written by ``save_depth_artifacts`` in ViPE's vipe/utils/io.py: members ``00000.exr``, ``00001.exr``, ... each
with one channel Z, z-depth in metres as ViPE estimated them, at the size of the video.
"""

import re
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float32, Int64
from ex4d.errors import DepthError
from ex4d.io.cameras.estimated import VipeClip, describe_clips, list_vipe_clips, read_vipe_cameras
from ex4d.io.depth.found import FoundDepth, cameras_of_frames
from ex4d.io.depth.images import read_depth_image
from ex4d.io.depth.raw import MAX_PIXELS, check_declared_size

_MEMBER = re.compile(r"(\d{1,9})\.exr")
_MAX_MEMBER_BYTES = 4 * MAX_PIXELS
_ZIP_ERRORS = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class ZippedExrFrames:
    """Numbered EXR frames of a zip archive; satisfies `DepthFrames`.

    Members are only ever read into a file of our own naming; theirs count as numbers, never as paths.

    Args:
        path: the archive.

    Raises:
        DepthError: not an archive, no frames, names that are no numbers, or the first frame cannot be read.
        MissingDependencyError: without the package OpenEXR.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        numbered = _list_members(path)
        self.numbers: Int64 = np.array(sorted(numbered), np.int64)
        self._members = [numbered[int(number)] for number in self.numbers]
        self.num_frames = len(self._members)
        check_declared_size(path.name, num_frames=self.num_frames, height=1, width=1)
        self.height, self.width = self._read(self._members[:1])[0].shape

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W] in metres; 0 where the half-float number is not finite.

        Raises:
            DepthError: a frame that is damaged or has another size than the first.
        """
        frames = self._read([self._members[index] for index in indices])
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape != (self.height, self.width):
                raise DepthError(
                    f"{self.width}x{self.height} depth in every frame of {self._path.name}",
                    f"{frame.shape[1]}x{frame.shape[0]} in {self._members[index]}",
                )
        return np.stack([np.where(np.isfinite(frame), frame, np.float32(0)) for frame in frames])

    def _read(self, members: list[str]) -> list[Float32]:
        try:
            with zipfile.ZipFile(self._path) as archive, tempfile.TemporaryDirectory() as folder:
                return [self._read_member(archive, member, Path(folder) / "frame.exr") for member in members]
        except _ZIP_ERRORS as error:
            raise DepthError(f"readable EXR frames in {self._path}", _reason(error), "run ViPE again") from error

    def _read_member(self, archive: zipfile.ZipFile, member: str, copy: Path) -> Float32:
        with archive.open(member) as stream:
            data = stream.read(_MAX_MEMBER_BYTES + 1)
        if len(data) > _MAX_MEMBER_BYTES:
            raise DepthError(f"an EXR of at most {_MAX_MEMBER_BYTES >> 20} MiB", f"more in {member} of {self._path}")
        copy.write_bytes(data)
        try:
            return read_depth_image(copy)
        except DepthError as error:
            raise DepthError(f"a readable EXR {member} in {self._path}", error.got, "run ViPE again") from error


def _list_members(path: Path) -> dict[int, str]:
    """Frame number → member name."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _ZIP_ERRORS as error:
        raise DepthError(f"a zip archive of EXR frames at {path}", _reason(error), "run ViPE again") from error
    matches = {name: _MEMBER.fullmatch(name) for name in names}
    wrong = next((name for name, match in matches.items() if match is None), None)
    if wrong is not None or not names:
        got = "no file" if wrong is None else repr(wrong[:80])
        raise DepthError(f"files named by number, 00000.exr, 00001.exr, ... in {path}", got)
    numbered = {int(match.group(1)): name for name, match in matches.items() if match is not None}
    if len(numbered) != len(names):
        raise DepthError(f"every frame number once in {path}", "one of them twice")
    return numbered


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def find_vipe_depth(path: Path) -> FoundDepth | None:
    """Depth, K and cameras of ViPE's result, or None where `path` is neither its folder nor one of its archives.

    Args:
        path: a result folder with one clip, or ``depth/NAME.zip`` in it. An archive without ``pose`` and
            ``intrinsics`` beside it is read without cameras.

    Raises:
        DepthError: several clips, cameras without depth or of other frames, or a damaged archive.
        CameraPathError: damaged cameras, or cameras that are no pinholes.
        MissingDependencyError: without the package OpenEXR.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        clip = VipeClip(path.parent.parent, path.stem)
        return _open_clip(clip, path)
    clips = list_vipe_clips(path) if path.is_dir() else []
    if not clips:
        return None
    if len(clips) > 1:
        raise DepthError(
            f"one clip in ViPE's folder {path}", describe_clips(clips), f"name one of them: {clips[0].depth_file}"
        )
    if not clips[0].depth_file.is_file():
        raise DepthError(
            f"{clips[0].depth_file}",
            "ViPE's cameras without depth",
            "run ViPE with a depth_align_model, or give this folder as --source-cameras",
        )
    return _open_clip(clips[0], clips[0].depth_file)


def _open_clip(clip: VipeClip, archive: Path) -> FoundDepth:
    frames = ZippedExrFrames(archive)
    name = f"ViPE's {archive.name}"
    if not clip.pose_file.is_file() and not clip.intrinsics_file.is_file():
        lost = f"{name}: no {clip.pose_file.name} in pose and intrinsics beside it, so its cameras are not known"
        return FoundDepth(frames=frames, name=name, kind="depth", scale="metric", notices=(lost,))
    raw = read_vipe_cameras(clip)
    path, notices = cameras_of_frames(raw, frames, str(clip.root))
    if not np.array_equal(raw.source_index, frames.numbers):
        raise DepthError(f"cameras of the frames that have depth in {clip.root}", "cameras of other frames")
    text = f"{name}: metres are ViPE's own estimate, pixels that are not finite are unknown"
    return FoundDepth(
        frames=frames,
        name=name,
        kind="depth",
        scale="metric",
        K=path.K[0].copy(),
        path=path,
        notices=(*notices, text),
    )
