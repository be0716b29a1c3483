"""Text on pictures: names of what is drawn, titles, legends."""

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@functools.lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, of a height in pixels."""
    import matplotlib  # which takes its time, and has the font

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def write(
    picture: np.ndarray, text: str, xy: tuple[float | int, float | int], size: int, **options: Any
) -> None:
    """Draws text into `picture`, `[h, w, 3]`, in place; options are those of Pillow's `text`."""
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text(xy, text, font=font(size), **({"fill": _BLACK} | options))
    picture[:] = np.asarray(canvas)


def write_names(picture: np.ndarray, names: list[tuple[str, np.ndarray]]) -> None:
    """Writes each name around the pixel farthest from its mask's border, where there is room.

    The first names have the first choice; one that would cover another is left out.
    """
    height, width = picture.shape[:2]
    size = max(11, min(13, min(height, width) // 20), min(height, width) // 40)
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    taken: list[tuple[float | int, ...]] = []
    for text, mask in names:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
        _, deepest, _, (x, y) = cv2.minMaxLoc(depth)
        half = font(size).getlength(text) / 2 + 1
        if size > 2.4 * deepest or 2 * half > min(width, 1.2 * np.count_nonzero(mask.any(0))):
            continue
        x = min(max(x - 1, half), width - half)
        y = min(max(y - 1, size / 2), height - size / 2)
        box = (x - half, y - size / 2, x + half, y + size / 2)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        outline = {"stroke_width": max(1, size // 8), "stroke_fill": _BLACK}
        draw.text((x, y), text, font=font(size), fill=_WHITE, anchor="mm", **outline)
    picture[:] = np.asarray(canvas)


def _overlap(a: tuple[float | int, ...], b: tuple[float | int, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
