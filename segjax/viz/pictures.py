"""Conversion, resizing and writing of pictures."""

from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8, UInt16

from segjax.files import write_file
from segjax.typing import Array


def save_image(
    path: str | Path,
    array: UInt8[Array, "h w"] | UInt16[Array, "h w"] | UInt8[Array, "h w c"],
) -> None:
    """Writes a picture or a label map to a file.

    Args:
      path: file to write; its suffix gives the format, such as `.png`, which is lossless, or
        `.jpg`.
      array: RGB `[h, w, 3]` in 0..255, or grey values or class ids `[h, w]`.

    Raises:
      ValueError: if the format is unknown; it names the file.
      TypeError: if `array` is neither uint8 nor uint16.
      OSError: if the file cannot be written.

    Example:
      >>> import numpy as np
      >>> from segjax import viz
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     viz.save_image(f"{folder}/labels.png", np.zeros((4, 6), np.uint8))
    """
    pixels = np.asarray(array)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(as_rgb(pixels), cv2.COLOR_RGB2BGR)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"array: expected uint8 or uint16, got {pixels.dtype}")
    try:
        _, data = cv2.imencode(Path(path).suffix, pixels)
    except cv2.error as error:
        raise ValueError(f"{path}: expected an image format such as .png or .jpg") from error
    write_file(path, data.tobytes())


def as_rgb(image: Array) -> np.ndarray:
    """Converts a grey or RGB image, uint8 or floating in 0..1, to uint8 RGB."""
    pixels = np.asarray(image)
    if pixels.ndim < 3 or pixels.shape[-1] not in (1, 3):
        raise ValueError(f"image: expected shape [*b, h, w, 1 or 3], got {pixels.shape}")
    if jnp.issubdtype(pixels.dtype, jnp.floating):  # knows bfloat16 too
        pixels = np.rint(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise TypeError(f"image: expected uint8 or floating in 0..1, got {pixels.dtype}")
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def resize_picture(
    pixels: np.ndarray, size: tuple[int, int], *, nearest: bool = False
) -> np.ndarray:
    """Resizes `[h, w, 3]` to (height, width): shrinks by areas, enlarges cubic or nearest."""
    if pixels.shape[:2] == size:
        return pixels
    shrinks = size[0] < pixels.shape[0]
    enlarge = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    how = cv2.INTER_AREA if shrinks else enlarge
    return cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=how)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes `[h, w]`, boolean or integer, to (height, width) by the nearest pixel."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]
