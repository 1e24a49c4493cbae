"""The contact sheet: source | render | observed | result, several times, in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ex4d.core.arrays import UInt8
from ex4d.core.view import GeometryPrior
from ex4d.io.atomic import atomic_path

NUM_ROWS = 6
CELL_SIDE_PX = 360
_GAP_PX = 4
_HEADER_PX = 18


def sheet_frames(num_frames: int, num_rows: int = NUM_ROWS) -> list[int]:
    """Which frames the sheet shows: evenly spread, first and last included."""
    return sorted({round(k * (num_frames - 1) / max(num_rows - 1, 1)) for k in range(num_rows)})


def write_sheet(
    prior: GeometryPrior, path: Path, *, results: Mapping[int, UInt8] | None, frames: Sequence[int] | None = None
) -> None:
    """Write sheet.png.

    Args:
        prior: what was rendered.
        path: where to.
        results: completed frames uint8 [H,W,3] by number; None: the column is left out.
        frames: which target frames are shown; None: `sheet_frames`.
    """
    rows = []
    for i in sheet_frames(len(prior.path)) if frames is None else frames:
        shown = int(prior.path.source_index[i])
        source = prior.source.read(shown, shown + 1).frames[0]
        view = prior.view.read(i, i + 1)
        observed = np.repeat((view.observed[0] * np.uint8(255))[..., None], 3, axis=2)
        cells = [source, view.rgb[0], observed]
        if results is not None:
            cells.append(results[i])
        label = f"frame {i}   observed {100 * prior.coverage[i]:.0f} %"
        rows.append((label, [sheet_cell(cell) for cell in cells]))
    titles = ["source", "render", "observed", "result"][: 3 + (results is not None)]
    with atomic_path(path) as temporary:
        compose_sheet(titles, rows).save(temporary, format="PNG", compress_level=3)


def sheet_cell(image: UInt8) -> UInt8:
    """An image uint8 [H,W,3], shrunk to fit into a sheet."""
    height, width = image.shape[:2]
    scale = min(1.0, CELL_SIDE_PX / max(height, width))
    if scale == 1.0:
        return image
    return np.asarray(
        cv2.resize(image, (max(round(width * scale), 1), max(round(height * scale), 1)), interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def compose_sheet(titles: Sequence[str], rows: Sequence[tuple[str, list[UInt8]]]) -> Image.Image:
    """A picture of rows of images, all of one size.

    Args:
        titles: of the columns.
        rows: label and images uint8 [H,W,3] of each.
    """
    height, width = rows[0][1][0].shape[:2]
    step_x, step_y = width + _GAP_PX, height + _GAP_PX + _HEADER_PX
    sheet = Image.new("RGB", (step_x * len(titles) + _GAP_PX, step_y * len(rows) + _HEADER_PX), (28, 28, 28))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_GAP_PX + column * step_x, 3), title, fill=(255, 255, 255))
    for row, (label, cells) in enumerate(rows):
        top = _HEADER_PX + row * step_y
        draw.text((_GAP_PX, top + 3), label, fill=(190, 190, 190))
        for column, cell in enumerate(cells):
            sheet.paste(Image.fromarray(cell), (_GAP_PX + column * step_x, top + _HEADER_PX))
    return sheet
