"""Text on pictures: names, titles and legends."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segjax.viz.regions import Spot

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@functools.lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, at a height in pixels."""
    import matplotlib  # for the font; imported late, as it is slow

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def write(
    picture: np.ndarray, text: str, xy: tuple[float | int, float | int], size: int, **options: Any
) -> None:
    """Draws text on `picture`, `[h, w, 3]`, in place; options are those of Pillow's `text`."""
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text(xy, text, font=font(size), **({"fill": _BLACK} | options))
    picture[:] = np.asarray(canvas)


def write_names(picture: np.ndarray, names: list[tuple[str, Spot]]) -> None:
    """Writes each name at its spot if there is room.

    Names that do not fit into their region or would cover an earlier name are left out.
    """
    height, width = picture.shape[:2]
    size = max(11, min(13, min(height, width) // 20), min(height, width) // 40)
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    taken = np.zeros((height, width), bool)
    for text, spot in names:
        half = font(size).getlength(text) / 2 + 1
        if size > 2.4 * spot.depth or 2 * half > min(width, 1.2 * spot.columns):
            continue
        x = min(max(spot.x, half), width - half)
        y = min(max(spot.y, size / 2), height - size / 2)
        rows = slice(int(y - size / 2), math.ceil(y + size / 2))
        box = rows, slice(int(x - half), math.ceil(x + half))
        if taken[box].any():
            continue
        taken[box] = True
        outline = {"stroke_width": max(1, size // 8), "stroke_fill": _BLACK}
        draw.text((x, y), text, font=font(size), fill=_WHITE, anchor="mm", **outline)
    picture[:] = np.asarray(canvas)
