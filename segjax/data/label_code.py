"""The class that each value or colour of a mask stands for."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Num

from segjax.data.errors import DataError

VOID, UNKNOWN = -1, -2
_VALUES = 2**16  # of a 16-bit mask


@dataclasses.dataclass(frozen=True)
class LabelCode:
    """Translates the values of masks to class ids from 0 on and void.

    Attributes:
      table: int32 `[65536]`, the class of each value; -1 is void, -2 is unknown.
      colors: the value of each colour (r, g, b), for masks drawn in colours.

    Example:
      >>> import numpy as np
      >>> from segjax.data.label_code import LabelCode
      >>> code = LabelCode.of([0, 4], void=[255])
      >>> code(np.array([[0, 4, 255]], np.uint8))
      (array([[0, 1, 0]], dtype=int32), array([[ True,  True, False]]))
    """

    table: Int32[np.ndarray, "values"]
    colors: Mapping[tuple[int, int, int], int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        values: Sequence[int],
        *,
        void: Collection[int] = (),
        colors: Mapping[tuple[int, int, int], int] | None = None,
    ) -> "LabelCode":
        """The code in which class k is written as `values[k]`.

        Args:
          values: value of each class, 0..65535.
          void: values that are void.
          colors: value of each colour.

        Returns:
          The code.
        """
        table = np.full(_VALUES, UNKNOWN, np.int32)
        table[list(void)] = VOID
        table[list(values)] = np.arange(len(values))
        return cls(table, colors or {})

    def __call__(
        self, mask: Num[np.ndarray, "h w *rgb"]
    ) -> tuple[Int32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Translates a mask.

        Args:
          mask: values 0..65535 `[h, w]`, or colours `[h, w, 3]`.

        Returns:
          The labels `[h, w]`, 0 in void, and where they are not void `[h, w]`.

        Raises:
          DataError: if a value or a colour is unknown.
        """
        if mask.ndim == 3:
            mask = self._values_of_colors(mask)
        classes = self.table[mask]
        if classes.min(initial=VOID) == UNKNOWN:
            row, column = np.argwhere(classes == UNKNOWN)[0]
            raise DataError(
                f"expected a class or void ({self._known()}), got the value {mask[row, column]} at "
                f"row {row}, column {column}"
            )
        return np.maximum(classes, 0), classes != VOID

    def _values_of_colors(self, mask: np.ndarray) -> np.ndarray:
        if not self.colors:
            raise DataError("expected a mask of one channel, as the classes have no colours")
        codes = _pack(mask)
        palette = _pack(np.array(list(self.colors), np.uint8))
        order = np.argsort(palette)
        nearest = order[np.searchsorted(palette, codes, sorter=order).clip(max=len(order) - 1)]
        missing = palette[nearest] != codes
        if missing.any():
            row, column = np.argwhere(missing)[0]
            color = tuple(mask[row, column].tolist())
            raise DataError(
                f"expected colours of exactly one class, got {color} at row {row}, column {column}"
            )
        return np.array(list(self.colors.values()))[nearest]

    def _known(self) -> str:
        classes, void = np.flatnonzero(self.table >= 0), np.flatnonzero(self.table == VOID)
        return f"classes: {_ranges(classes)}; void: {_ranges(void) or 'none'}"


def _pack(rgb: np.ndarray) -> np.ndarray:
    """One integer a colour."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def _ranges(values: np.ndarray) -> str:
    """Ascending integers in short: 0..10, 12."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(
        f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run)
    )
