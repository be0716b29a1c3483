"""`segjax models`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segjax.models import MODELS, create


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists the models, with their parameters and the multiply-adds of one image.

    Attributes:
      size: HEIGHT WIDTH of the image in pixels.
      num_classes: of the models' outputs.
    """

    size: tuple[int, int] = (256, 256)
    num_classes: int = 21


def run(options: Options) -> int:
    """Prints the table."""
    height, width = options.size
    table = Table(title=f"for an image of {height} x {width} and {options.num_classes} classes")
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    table.add_column("description")
    for name, function in MODELS.items():
        model = create(name, options.num_classes)
        parameters, multiply_adds = costs(model, (1, height, width, 3))
        description = Text((function.__doc__ or "").splitlines()[0])
        figures = f"{parameters / 1e6:.1f} M", f"{multiply_adds / 1e9:.1f} G"
        table.add_row(name, *figures, description)
    Console().print(table)
    return 0


def costs(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, float]:
    """The number of parameters, and about how many multiply-adds a prediction takes.

    Nothing is computed or compiled: XLA counts the operations of the traced program, without the
    products with a border's zeros; two of them make a multiply-add.

    Args:
      model: the Flax module.
      shape: of the images, `(b, h, w, c)`.

    Returns:
      Both numbers.
    """
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    analysis: Any = jax.jit(model.apply).lower(variables, images).cost_analysis()
    return parameters, analysis["flops"] / 2
