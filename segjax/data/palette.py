"""Colours for classes that come without any."""

import colorsys


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """As many colours as wanted, neighbours far apart: hues at steps of the golden ratio.

    Args:
      count: how many.

    Returns:
      RGB in 0..255 each; the first ones do not depend on `count`.

    Example:
      >>> default_colors(2)
      ((217, 76, 76), (76, 117, 217))
    """
    return tuple(_color(index * 0.618034 % 1.0) for index in range(count))


def _color(hue: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)
