"""COCO's run-length encoding of masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from segjax.data.checked import short
from segjax.data.errors import DataError

_FIRST = 48  # the character of 0; each stands for 6 bits
_DIGIT, _SIGN, _MORE = 0b11111, 0b10000, 0b100000


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> str:
    """Encodes a mask as compressed text, `counts` in COCO's JSON.

    The mask is read column by column; its runs of False and True, in turn from False on, are
    counted. From the fourth on, a count is written as its difference from the last but one. Each
    number is written in digits of 5 bits, the lowest first, of which all but the last are marked.

    Args:
      mask: `[h, w]`, boolean.

    Returns:
      The text.

    Example:
      >>> import numpy as np
      >>> from segjax import data
      >>> data.encode_rle(np.array([[False, True], [True, True]]))
      '13'

    References:
      the format of cocodataset/cocoapi, common/maskApi.c, rleEncode and rleToString.
    """
    return _to_text(_runs(mask))


def decode_rle(
    counts: str | Sequence[int] | Int64[np.ndarray, "runs"], shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Decodes `counts` in COCO's JSON, compressed or not, to a mask.

    Args:
      counts: the text, or the lengths of the runs.
      shape: (h, w) of the mask.

    Returns:
      `[h, w]`, boolean.

    Raises:
      DataError: if the text is malformed, a run is negative, or the runs do not fill the mask.

    Example:
      >>> from segjax import data
      >>> data.decode_rle("13", (2, 2))
      array([[False,  True],
             [ True,  True]])
    """
    runs = run_lengths(counts, shape)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(shape, order="F")


def run_lengths(
    counts: str | Sequence[int] | Int64[np.ndarray, "runs"], shape: tuple[int, int]
) -> Int64[np.ndarray, "runs"]:
    """The run lengths of `counts`, with the checks of `decode_rle`."""
    runs = _of_text(counts) if isinstance(counts, str) else _as_integers(counts)
    pixels = shape[0] * shape[1]
    least, most = int(runs.min(initial=0)), int(runs.max(initial=0))
    if least < 0 or most > pixels or runs.sum() != pixels:  # no sum of larger ones: it may wrap
        raise DataError(
            f"counts: expected runs that fill {shape[0]} x {shape[1]} pixels (height x width), got "
            f"runs of {least} to {most}"
        )
    return runs


def _runs(mask: np.ndarray) -> np.ndarray:
    """Column by column, the first of False; only that may be 0."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    return np.diff(np.concatenate([[0], changes, [pixels.size]])).astype(np.int64)


def _to_text(runs: np.ndarray) -> str:
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    digits = []  # of every number the lowest, of every number the next ...
    written = np.ones(len(numbers), bool)
    while written.any():
        digit, numbers = numbers & _DIGIT, numbers >> 5
        rest = np.where(digit & _SIGN, -1, 0)  # nothing but the sign is left
        more = written & (numbers != rest)
        digits.append(np.where(written, digit + _MORE * more + _FIRST, 0))
        written = more
    characters = np.stack(digits, axis=1).astype(np.uint8)
    return characters[characters > 0].tobytes().decode("ascii")


def _of_text(text: str) -> np.ndarray:
    characters = (
        np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - _FIRST
    )
    if characters.min(initial=0) < 0 or characters.max(initial=0) >= 2 * _MORE:
        raise DataError("counts: expected run-length text, got a character that it does not have")
    ends = np.flatnonzero(characters < _MORE)
    if len(characters) and (not len(ends) or ends[-1] + 1 < len(characters)):
        raise DataError("counts: expected run-length text, got one that ends within a number")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max(initial=0) > 8:
        raise DataError("counts: expected numbers of at most 40 bits, got a longer one")
    starts = ends + 1 - lengths
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    digits = (characters & _DIGIT) << (5 * place)
    numbers = np.add.reduceat(digits, starts) if len(starts) else digits
    negative = characters[ends] & _SIGN > 0
    numbers = numbers - np.where(negative, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _as_integers(counts: Any) -> np.ndarray:
    if isinstance(counts, np.ndarray) and counts.ndim == 1 and counts.dtype.kind in "iu":
        return counts.astype(np.int64)
    kinds = set(map(type, counts))
    if bool in kinds or not all(issubclass(kind, int | np.integer) for kind in kinds):
        raise DataError(f"counts: expected a list of integers, got {short(counts)}")
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise DataError("counts: expected a list of integers of up to 64 bits") from None
