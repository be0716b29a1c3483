"""`segjax models`."""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segjax.suggestions import unknown_name

if TYPE_CHECKING:  # imported late, as the table does not need JAX
    from segjax.commands.costs import Layer

CLASSES = 21  # of the models in the table
TABLE = pathlib.Path(__file__).with_suffix(".json")


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists the models, with their costs, receptive fields and papers.

    If a single model is named, its layers are listed too. Multiply-adds are those of convolutions
    and matrix products for one image, including auxiliary heads and products with zero padding. The
    receptive field is that of one output pixel.

    Attributes:
      names: Names of the models; by default all are listed.
      size: Height and width of the image in pixels; by default that of each published model.
      num_classes: Number of classes of the models' outputs.
      depth: Depth down to which the modules of a single model are listed; 0 lists none.
      json: Print JSON.
    """

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME [NAME ...]]")
    ] = ()
    size: tuple[int, int] | None = None
    num_classes: int = CLASSES
    depth: int = 2
    json: bool = False


def run(options: Options) -> int:
    """Prints the table."""
    entries = _entries(options)
    layers: list[Layer] = []
    if len(options.names) == 1 and options.depth > 0:
        layers = _layers(options, entries[options.names[0]]["size"])
    if options.json:
        content: Any = {"num_classes": options.num_classes, "models": entries}
        if layers:
            content["layers"] = [dataclasses.asdict(layer) for layer in layers]
        print(json.dumps(content, indent=2))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has room for all columns
    console.print(_model_table(entries, options.num_classes))
    if layers:
        console.print(_layer_table(layers))
    return 0


def _entries(options: Options) -> dict[str, dict[str, Any]]:
    """The rows of the table, computed anew for another size or number of classes."""
    known = json.loads(TABLE.read_text())
    for name in options.names:
        if name not in known:
            raise ValueError(unknown_name("model", name, known))
    if options.num_classes == CLASSES and options.size is None:
        return {name: known[name] for name in options.names or known}
    for option in ("num_classes", *(("size",) if options.size else ())):
        value = getattr(options, option)
        if min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{option}: expected at least 1, got {value}")
    if not options.names:
        raise ValueError(
            f"names: expected models to compute this for, got none; all {len(known)} take a minute"
        )
    from segjax.commands import costs

    return {
        name: costs.describe(name, size=options.size, num_classes=options.num_classes)
        for name in options.names
    }


def _layers(options: Options, size: list[int]) -> "list[Layer]":
    """The model and its modules, down to `options.depth`."""
    from segjax import models
    from segjax.commands import costs

    model = models.create(options.names[0], options.num_classes)
    layers = costs.trace(model, (1, *size, 3))
    return [layer for layer in layers if len(layer.path.split("/")) <= options.depth]


def _model_table(entries: dict[str, dict[str, Any]], num_classes: int) -> Table:
    table = Table(title=f"with {num_classes} classes")
    table.add_column("model", no_wrap=True)
    for heading in ("parameters", "multiply-adds", "image", "receptive field"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paper")
    for name, entry in entries.items():
        table.add_row(
            name,
            f"{entry['parameters'] / 1e6:.1f} M",
            f"{entry['multiply_adds'] / 1e9:.1f} G",
            " x ".join(map(str, entry["size"])),
            str(entry["receptive_field"] or "all"),
            entry["paper"],
        )
    return table


def _layer_table(layers: "list[Layer]") -> Table:
    """A row for each module, indented by its depth, with the model as the footer."""
    table = Table(show_footer=True)
    whole, *parts = layers
    columns = {
        "layer": "total",
        "kind": whole.kind,
        "output": "",
        "parameters": f"{whole.parameters:,}",
        "multiply-adds": f"{whole.multiply_adds:,}",
    }
    for heading, footer in columns.items():
        number = heading in ("parameters", "multiply-adds")
        table.add_column(heading, footer, justify="right" if number else "left", no_wrap=True)
    for part in parts:
        *around, name = part.path.split("/")
        table.add_row(
            Text("  " * len(around) + name),
            part.kind,
            _shapes(part.shapes),
            f"{part.parameters:,}",
            f"{part.multiply_adds:,}",
        )
    return table


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    """The first shape without its batch axis, and the number of others."""
    if not shapes:
        return ""
    first = " x ".join(map(str, shapes[0][1:]))
    return first if len(shapes) == 1 else f"{first}  + {len(shapes) - 1}"
