"""Inside the worker: an image file as a clip of one frame, through Pillow.

FFmpeg would need a demuxer for each still format; Pillow knows EXIF orientation and colour profiles as well.
"""

import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

from ex4d.errors import MediaError
from ex4d.io.decode.header import MediaHeader
from ex4d.io.decode.limits import ALLOWED_STILLS, DecodeLimits
from ex4d.io.decode.media import check_pixels
from ex4d.io.exif import focal_35mm_of_exif

_EXIF_IFD = 0x8769
# Pillow's parsers raise all of these on broken files.
_PARSER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, ArithmeticError)


def read_still(path: Path, limits: DecodeLimits) -> tuple[MediaHeader, bytes]:
    """Decode an image to sRGB.

    Returns:
        the header, and rgb24 rows [H,W,3]; EXIF orientation is applied.

    Raises:
        MediaError: not an allowed image, damaged, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own bound is stricter about what counts, and raises our own error
    try:
        with warnings.catch_warnings(), Image.open(path, formats=ALLOWED_STILLS) as image:
            warnings.simplefilter("ignore")  # oddities of EXIF are no concern of the user
            check_pixels(path, image.height, image.width, limits)
            codec, mode, notices = str(image.format).lower(), image.mode, _notices(image)
            image.load()
            focal_35mm = _focal_35mm(image)
            upright = ImageOps.exif_transpose(image)
            rgb = _to_srgb(upright, notices)
    except UnidentifiedImageError as error:
        raise _damaged(path, "not a known image") from error
    except _PARSER_ERRORS as error:
        raise _damaged(path, str(error)[:200]) from error
    header = MediaHeader(
        layout="rgb24",
        height=rgb.height,
        width=rgb.width,
        stride=rgb.width * 3,
        num_frames=1,
        codec=codec,
        pix_fmt=mode,
        is_still=True,
        notices=tuple(notices),
        focal_35mm=focal_35mm,
    )
    return header, rgb.tobytes()


def _focal_35mm(image: Any) -> float:
    """35 mm equivalent in mm; 0 where the picture does not say, or its Exif block is damaged."""
    with contextlib.suppress(*_PARSER_ERRORS, AttributeError, struct.error):
        return focal_35mm_of_exif(image.getexif().get_ifd(_EXIF_IFD), image.height, image.width) or 0.0
    return 0.0


def _damaged(path: Path, reason: str) -> MediaError:
    return MediaError("a readable image", f"{path.name}, which is damaged ({reason})", "get a whole copy of the file")


def _notices(image: Any) -> list[str]:
    notices: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        notices.append(f"the image holds {image.n_frames} pictures: only the first one is read")
    if "A" in image.getbands() or "transparency" in image.info:
        notices.append("transparency (alpha) was dropped")
    return notices


def _to_srgb(image: Any, notices: list[str]) -> Any:
    """8-bit sRGB of any mode; colour profiles are honoured."""
    from PIL import Image, ImageCms

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        top = 65535.0 if image.mode != "F" else max(1.0, image.getextrema()[1])
        image = image.convert("F").point(lambda value: value * (255.0 / top) + 0.5).convert("L")
        notices.append("16-bit gray was reduced to 8 bits")
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            name = ImageCms.getProfileDescription(source).strip()
            base = image.convert("RGB") if image.mode == "RGBA" else image
            converted = ImageCms.profileToProfile(base, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            notices.append("the image's colour profile is damaged and was ignored")
        else:
            if "srgb" not in name.lower():
                notices.append(f"colours were converted from the profile {name[:60]!r} to sRGB")
            return converted if converted is not None else base
    return image if image.mode == "RGB" else Image.Image.convert(image, "RGB")
