"""Decoding of image files to NumPy arrays, and reading of their headers alone."""

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

from segjax.data.errors import DataError, prefix_errors

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _GREY_ALPHA = 0, 3, 4  # colour types of a PNG; the others are RGB and RGBA
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_EXIF_ORIENTATION = 0x0112
MOST_PIXELS = 178_956_970  # of an image: Pillow opens no larger one


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """Size, orientation and depth of an image file, from its header.

    Attributes:
      stored: (height, width) of the pixels in the file.
      orientation: EXIF orientation, 1..8; 1 for files without one, and for TIFFs, which are always
        turned.
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
      DataError: if it is empty, not an image, truncated, or has more than 178,956,970 pixels.

    Example:
      >>> import cv2
      >>> import numpy as np
      >>> from segjax.data.images import image_header
      >>> image_header(cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes()).stored
      (2, 3)
    """
    if not data:
        raise DataError("expected an image, got an empty file")
    return _header(io.BytesIO(data), data=data)


def peek_header(path: str | Path) -> ImageHeader:
    """Reads the header of an image file and nothing else.

    Args:
      path: path of the file.

    Returns:
      Its size and orientation.

    Raises:
      DataError: if it cannot be read, is not an image, or has more than 178,956,970 pixels. The
        message does not name the file yet.

    Example:
      >>> from segjax.data.images import peek_header
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
    """The header of a file; checks that the file is whole if its `data` is given."""
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
        raise DataError("expected an image, got a file of unknown format") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors
        raise DataError(f"expected an image ({_first_line(error)})") from error
    return ImageHeader((height, width), orientation, deep)


def is_drawn_upright(header: ImageHeader, size: tuple[int, ...], *, where: str) -> bool:
    """Whether annotations were drawn on the image after turning it by its EXIF orientation.

    Args:
      header: header of the image.
      size: (height, width) of what was drawn.
      where: where that size is from, for the message.

    Returns:
      True where that is the image's size once turned, False where it is the size of the image as
      it is stored.

    Raises:
      DataError: if it is neither, or both, so that it is ambiguous.

    Example:
      >>> from segjax.data.images import ImageHeader
      >>> from segjax.data.images import is_drawn_upright
      >>> is_drawn_upright(ImageHeader((4, 5), orientation=6), (5, 4), where="its mask")
      True
    """
    if size not in (header.stored, header.upright):
        raise DataError(f"expected {pixels(size)}, as {where}, got {pixels(header.stored)}")
    if header.orientation > 1 and header.stored == header.upright:
        raise DataError(
            f"expected an upright image, got the EXIF orientation {header.orientation}, of which "
            "the size does not tell whether it applies: save the image without it"
        )
    return size == header.upright


def decode_image(
    data: bytes, *, upright: bool = True, max_value: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a grey, colour, transparent or 16-bit image to 8-bit RGB.

    Grey is repeated, and transparency dropped.

    Args:
      data: the file's bytes.
      upright: whether to turn the picture by its EXIF orientation, as viewers do.
      max_value: value that becomes 255 in a 16-bit image, such as 4095 for 12-bit content; None
        keeps the upper 8 bits.

    Returns:
      RGB in 0..255, `[h, w, 3]`.

    Raises:
      DataError: if OpenCV cannot decode it.

    Example:
      >>> import cv2
      >>> import numpy as np
      >>> from segjax.data.images import decode_image
      >>> decode_image(cv2.imencode(".png", np.full((2, 3), 7, np.uint8))[1].tobytes()).shape
      (2, 3, 3)
    """
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    image = _decode(data, flags if max_value is None else flags | cv2.IMREAD_ANYDEPTH)
    if max_value is not None and image.dtype == np.uint16:
        scaled = np.rint(np.arange(2**16) * (255 / max_value))
        image = np.minimum(scaled, 255).astype(np.uint8)[image]
    elif image.dtype != np.uint8:  # 32 bits, to which max_value does not apply
        image = _decode(data, flags)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_mask(
    data: bytes,
) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """Decodes a PNG mask to the values stored in it.

    The values of a palette PNG are its indices, not its colours; those of 1, 2 or 4 bits are
    counted from 0 on, not scaled to 255.

    Args:
      data: the file's bytes.

    Returns:
      The values `[h, w]`, or RGB `[h, w, 3]` of a colour mask.

    Raises:
      DataError: if it is not a PNG or cannot be decoded.

    Example:
      >>> import cv2
      >>> import numpy as np
      >>> from segjax.data.images import decode_mask
      >>> decode_mask(cv2.imencode(".png", np.array([[3, 300]], np.uint16))[1].tobytes())
      array([[  3, 300]], dtype=uint16)
    """
    image_header(data)
    if not data.startswith(_PNG_SIGNATURE):
        raise DataError("expected a PNG, as other formats change the values")
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
    """Raises a ValueError unless `max_value` is None or in 1..65535."""
    if max_value is not None and not 1 <= max_value <= 65535:
        raise ValueError(f"max_value: expected 1..65535 or None, got {max_value}")


def warn_of_shades(path: str | Path) -> None:
    """Warns of a 16-bit image whose upper 8 bits hold only a few shades.

    Args:
      path: path of an image file.

    Raises:
      DataError: if it cannot be read; it names the file.
    """
    with prefix_errors(path):
        most = int(_decode(read_bytes(path), cv2.IMREAD_UNCHANGED).max(initial=0))
    if most < 2**14:
        warnings.warn(
            f"{path}: this 16-bit image has no value above {most}, of which the upper 8 bits keep "
            f"{most // 256 + 1} shades; if all images are so, set max_value to "
            f"{2 ** most.bit_length() - 1}",
            stacklevel=2,
        )


def read_image(path: str | Path, *, max_value: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an image file as 8-bit RGB, turned upright.

    Args:
      path: path of a file in any format that OpenCV decodes.
      max_value: value that becomes 255 in a 16-bit image; None keeps the upper 8 bits.

    Returns:
      RGB in 0..255, `[h, w, 3]`.

    Raises:
      DataError: if it cannot be read; it names the file.

    Example:
      >>> from segjax import data
      >>> data.read_image("no.png")
      Traceback (most recent call last):
      segjax.data.errors.DataError: no.png: No such file or directory
    """
    with prefix_errors(path):
        data = read_bytes(path)
        image_header(data)
        return decode_image(data, max_value=max_value)


def read_bytes(path: str | Path) -> bytes:
    """Reads the bytes of a file.

    Args:
      path: path of the file.

    Returns:
      Its content.

    Raises:
      DataError: if it cannot be read. The message does not name the file yet.

    Example:
      >>> from segjax.data.images import read_bytes
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
    """Refuses pipes and devices, of which reading may not end."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError("expected a regular file")


def _decode(data: bytes, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # of more pixels than OpenCV decodes
        raise DataError(f"expected an image that can be decoded ({error.err})") from error
    if pixels is None:
        raise DataError("expected an image that can be decoded")
    return pixels


def _palette_indices(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    except Exception as error:
        raise DataError(f"expected an image that can be decoded ({_first_line(error)})") from error


def pixels(size: tuple[int, ...]) -> str:
    """An image size for messages."""
    return f"{size[0]} x {size[1]} pixels (height x width)"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
