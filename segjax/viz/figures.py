"""Writing of Matplotlib figures."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from segjax.files import write_file


def write_figure(path: str | Path, figure: Figure) -> None:
    """Writes a Matplotlib figure to a file.

    Args:
      path: file to write; its suffix gives the format, such as `.png`.
      figure: the figure.

    Raises:
      OSError: if the file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:] or None)
    write_file(path, content.getvalue())
