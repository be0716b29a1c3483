"""Pictures of confusion matrices."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer
from matplotlib.figure import Figure

from segjax.data.source import Classes
from segjax.typing import Array
from segjax.viz.figures import write_figure

_WRITTEN = 24  # classes, up to which cells hold their numbers


def draw_confusion(counts: Integer[Array, "c c"], classes: Classes, *, path: str | Path) -> None:
    """Draws a confusion matrix: for each label, the shares of its pixels predicted as each class.

    Classes that are neither labelled nor predicted are left out. Cells show numbers if there are at
    most 24 classes. The row of a class without labels is grey.

    Args:
      counts: `[c, c]` in pixels, a row for each label and a column for each prediction.
      classes: names of the classes.
      path: file to write; its suffix gives the format.

    Raises:
      OSError: if the file cannot be written.

    Example:
      >>> import numpy as np
      >>> from segjax import data, viz
      >>> import tempfile
      >>> classes = data.Classes(("sky", "road"), ((86, 180, 233), (150, 150, 150)))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = f"{folder}/confusion.png"
      ...     viz.draw_confusion(np.array([[3, 1], [0, 4]]), classes, path=path)
    """
    counts = np.asarray(counts)
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    names, number = [classes.names[c] for c in shown], len(shown)
    counts = counts[np.ix_(shown, shown)].astype(float)
    labelled = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, labelled, out=np.full_like(counts, np.nan), where=labelled > 0)

    has_numbers = number <= _WRITTEN
    cell = 0.42 if has_numbers else 0.12  # in inches
    side, margin = max(2.0, cell * number), 0.8 + 0.08 * max(map(len, names), default=0)
    figure = Figure((side + margin + 0.8, side + margin), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = 8 if has_numbers else 6
    axes.set_xticks(range(number), names, rotation=90, fontsize=size)
    axes.set_yticks(range(number), names, fontsize=size)
    axes.tick_params(length=2 if has_numbers else 0)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1 if has_numbers else 0.3)
    axes.tick_params(which="minor", length=0)
    if has_numbers:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                color = "white" if share > 55 else "black"
                text = axes.text(column, row, f"{share:.0f}", fontsize=8, color=color)
                text.set(ha="center", va="center")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=30)
    bar.set_label("% of the label's pixels")
    write_figure(path, figure)
