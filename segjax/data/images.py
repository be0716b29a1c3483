"""Encoded image files to NumPy arrays, and what their headers say without decoding."""

import dataclasses
import io
import stat
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from segjax.data.errors import DataError, naming

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _GREY_ALPHA = 0, 3, 4  # colour types of a PNG; the others are RGB and RGBA
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_EXIF_ORIENTATION = 0x0112
MOST_PIXELS = 178_956_970  # of an image: Pillow opens no larger one


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself.

    Attributes:
      stored: (height, width) of the pixels in the file.
      orientation: EXIF's, 1..8; 1 where the file has none, or is a TIFF: that is always turned.
      deep: whether it is a PNG or TIFF of 16 bits a channel.
    """

    stored: tuple[int, int]
    orientation: int
    deep: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) once turned as the orientation says: 5 to 8 swap rows and columns."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


def image_header(data: bytes) -> ImageHeader:
    """Reads the header of an image file, and makes sure that the file is whole.

    Args:
      data: the file's bytes.

    Returns:
      Its size and orientation.

    Raises:
      DataError: it is empty, no image, cut short, or of more than 178,956,970 pixels.

    Example:
      >>> image_header(cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes()).stored
      (2, 3)
    """
    if not data:
        raise DataError("is empty")
    return _header(io.BytesIO(data), data=data)


def peek_header(path: str | Path) -> ImageHeader:
    """Reads the header of an image file, and nothing behind it.

    Args:
      path: of the file.

    Returns:
      Its size and orientation.

    Raises:
      DataError: it cannot be read, is no image, or of more than 178,956,970 pixels; does not name
        the file yet.

    Example:
      >>> peek_header("no.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: No such file or directory
    """
    try:
        _check_regular(path)
        with open(path, "rb") as file:
            return _header(file)
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error


def _header(file: Any, *, data: bytes | None = None) -> ImageHeader:
    """The header of a file, which must be whole if its `data` is given."""
    try:
        with Image.open(file) as image:
            # Not image.getexif(): for a PNG it decodes every pixel to look behind them.
            orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
            if image.format == "TIFF" or orientation not in range(1, 9):
                orientation = 1
            width, height = image.size
            deep = any(";16" in str(tile[3]) for tile in image.tile)
            end = _ENDS.get(image.format or "")
            if data is not None and (end is None or not data.endswith(end)):
                image.load()
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise DataError("is no readable image (of no known format)") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise DataError(f"is no readable image ({_first_line(error)})") from error
    return ImageHeader((height, width), orientation, deep)


def is_drawn_upright(header: ImageHeader, size: tuple[int, ...], *, where: str) -> bool:
    """Whether annotations were drawn on an image as its EXIF orientation turns it.

    Args:
      header: of the image.
      size: (height, width) of what was drawn.
      where: that size stands, for the message.

    Returns:
      True where that is the image's size once turned, False where it is the size of the image as
      it is stored.

    Raises:
      DataError: it is neither; or both, so that nothing tells which.

    Example:
      >>> is_drawn_upright(ImageHeader((4, 5), orientation=6), (5, 4), where="its mask")
      True
    """
    if size not in (header.stored, header.upright):
        raise DataError(f"is {pixels(header.stored)}, {where} {pixels(size)}")
    if header.orientation > 1 and header.stored == header.upright:
        raise DataError(
            f"has the EXIF orientation {header.orientation}, and {where} the same size turned or "
            "not: save the image upright, without the orientation"
        )
    return size == header.upright


def decode_image(
    data: bytes, *, upright: bool = True, max_value: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a grey, colour, transparent or 16-bit image to 8-bit RGB.

    Grey is repeated, and transparency dropped.

    Args:
      data: the file's bytes.
      upright: turn the picture as its EXIF orientation says, as every viewer does.
      max_value: what becomes 255 in an image of 16 bits, such as 4095 where it holds 12; None
        keeps the upper 8 bits.

    Returns:
      RGB in 0..255, `[h, w, 3]`.

    Raises:
      DataError: OpenCV cannot decode it.

    Example:
      >>> decode_image(cv2.imencode(".png", np.full((2, 3), 7, np.uint8))[1].tobytes()).shape
      (2, 3, 3)
    """
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    image = _decode(data, flags if max_value is None else flags | cv2.IMREAD_ANYDEPTH)
    if max_value is not None and image.dtype == np.uint16:
        scaled = np.rint(np.arange(2**16) * (255 / max_value))
        image = np.minimum(scaled, 255).astype(np.uint8)[image]
    elif image.dtype != np.uint8:  # of 32 bits, which no range is for
        image = _decode(data, flags)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_mask(
    data: bytes,
) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """Decodes a PNG mask to the values that stand in it.

    The indices of a palette PNG are its values, not the colours they are shown in; and 1, 2 and 4
    bits are values from 0 on, not shades up to 255.

    Args:
      data: the file's bytes.

    Returns:
      The values `[h, w]`, or RGB `[h, w, 3]` of a colour mask.

    Raises:
      DataError: it is no PNG or cannot be decoded.

    Example:
      >>> decode_mask(cv2.imencode(".png", np.array([[3, 300]], np.uint16))[1].tobytes())
      array([[  3, 300]], dtype=uint16)
    """
    image_header(data)
    if not data.startswith(_PNG_SIGNATURE):
        raise DataError("is no PNG (masks must be: other formats change the values)")
    bits, color_type = data[24], data[25]
    if color_type == _PALETTE:  # OpenCV would give the colours
        return _palette_indices(data)
    pixels = _decode(data, cv2.IMREAD_UNCHANGED)
    if color_type == _GREY:
        return pixels // (255 // (2**bits - 1)) if bits < 8 else pixels
    if color_type == _GREY_ALPHA:
        return np.ascontiguousarray(pixels[..., 0])
    return decode_image(data, upright=False)


def check_max_value(max_value: int | None) -> None:
    """A ValueError where it is not what white can be in 16 bits."""
    if max_value is not None and not 1 <= max_value <= 65535:
        raise ValueError(f"max_value: expected 1..65535 or None, got {max_value}")


def warn_of_shades(path: str | Path) -> None:
    """Warns of a 16-bit image of which the upper 8 bits hold but few shades.

    Args:
      path: of an image file.

    Raises:
      DataError: it cannot be read; names the file.
    """
    with naming(path):
        most = int(_decode(read_bytes(path), cv2.IMREAD_UNCHANGED).max(initial=0))
    if most < 2**14:
        warnings.warn(
            f"{path}: has 16 bits, but no value above {most}, of which the upper 8 bits keep "
            f"{most // 256 + 1} shades; if that is true of all, take max_value "
            f"{2 ** most.bit_length() - 1}",
            stacklevel=2,
        )


def read_image(path: str | Path, *, max_value: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an image file as 8-bit RGB, turned upright.

    Args:
      path: of a file in any format that OpenCV decodes.
      max_value: what becomes 255 in an image of 16 bits; None keeps the upper 8 bits.

    Returns:
      RGB in 0..255, `[h, w, 3]`.

    Raises:
      DataError: it cannot be read; names the file.

    Example:
      >>> read_image("no.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no.png: No such file or directory
    """
    with naming(path):
        data = read_bytes(path)
        image_header(data)
        return decode_image(data, max_value=max_value)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file. A failure is a DataError, which does not name the file yet.

    Args:
      path: of the file.

    Returns:
      Its content.

    Raises:
      DataError: the system does not give it.

    Example:
      >>> read_bytes("no.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: No such file or directory
    """
    try:
        _check_regular(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error


def _check_regular(path: str | Path) -> None:
    """Whether reading comes to an end, which of a pipe or a device it may not."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError("is no regular file")


def _decode(data: bytes, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # of more pixels than OpenCV decodes
        raise DataError(f"cannot be decoded ({error.err})") from error
    if pixels is None:
        raise DataError("cannot be decoded")
    return pixels


def _palette_indices(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    except Exception as error:
        raise DataError(f"cannot be decoded ({_first_line(error)})") from error


def pixels(size: tuple[int, ...]) -> str:
    """A size for people."""
    return f"{size[0]} x {size[1]} pixels (height x width)"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
