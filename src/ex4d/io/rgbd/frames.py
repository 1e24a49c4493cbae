"""Colour frames of an RGB-D recording: a folder of pictures as a lazy ``Clip[Video]``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ex4d.core.arrays import Float64, UInt8, check_array
from ex4d.core.video import Video
from ex4d.errors import MediaError
from ex4d.io.depth.images import PILLOW_ERRORS
from ex4d.io.depth.raw import MAX_PIXELS

COLOR_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVideo:
    """Pictures of one size as a clip; each is decoded when it is read.

    Attributes:
        files: one picture a frame.
        timestamps_s: float64 [num_frames], increasing.
        height: px.
        width: px.
    """

    files: tuple[Path, ...]
    timestamps_s: Float64
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("ImageVideo.timestamps_s", self.timestamps_s, np.float64, (len(self.files),))

    @property
    def num_frames(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Video:
        """Frames ``start:stop``.

        Raises:
            MediaError: a picture that cannot be decoded or has another size than the first.
        """
        frames = np.empty((stop - start, self.height, self.width, 3), np.uint8)
        for slot, file in enumerate(self.files[start:stop]):
            picture = read_color_image(file)
            if picture.shape[:2] != (self.height, self.width):
                raise MediaError(
                    f"{self.width}x{self.height} px in {file.name}, as in the first frame",
                    f"{picture.shape[1]}x{picture.shape[0]}",
                )
            frames[slot] = picture
        return Video(frames=frames, timestamps_s=self.timestamps_s[start:stop])


def open_image_video(files: list[Path], timestamps_s: Float64) -> ImageVideo:
    """A clip of these pictures; the first gives the size.

    Raises:
        MediaError: the first picture cannot be decoded, or there is none.
    """
    if not files:
        raise MediaError("at least one colour picture", "none")
    height, width = read_color_image(files[0]).shape[:2]
    return ImageVideo(files=tuple(files), timestamps_s=timestamps_s, height=height, width=width)


def read_color_image(path: Path) -> UInt8:
    """uint8 [H,W,3] sRGB of a PNG or JPEG (alpha dropped, gray repeated).

    Raises:
        MediaError: not such a picture, damaged, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise MediaError(f"at most {MAX_PIXELS} pixels in {path}", f"{image.width}x{image.height}")
            return np.array(image.convert("RGB"), np.uint8)
    except PILLOW_ERRORS as error:
        raise MediaError(
            f"a readable PNG or JPEG at {path}", str(error) or type(error).__name__, "export it again"
        ) from error
