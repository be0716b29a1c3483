"""`segjax models`."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import Jaxpr, jaxprs_in_params
from rich.console import Console
from rich.table import Table

from segjax import ops
from segjax.models import MODELS, create, layers
from segjax.pretrained import PUBLISHED

_COUNTED = "counted"  # the scope of operations that a layer's own count stands for


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists the models, with what they cost, how far they see, and where they come from.

    Multiply-adds are those of convolutions and matrix products, for one image and with auxiliary
    heads; products with a border's zeros count. The receptive field is of one output pixel.

    Attributes:
      size: HEIGHT WIDTH of the image in pixels; None takes for each model what it is published for.
      num_classes: of the models' outputs.
      names: of the models; none stands for all.
    """

    size: tuple[int, int] | None = None
    num_classes: int = 21
    names: tuple[str, ...] = ()


def run(options: Options) -> int:
    """Prints the table."""
    table = Table(title=f"with {options.num_classes} classes")
    table.add_column("model", no_wrap=True)
    for heading in ("parameters", "multiply-adds", "image", "sees"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paper")
    for name in options.names or MODELS:
        model = create(name, options.num_classes)
        published = PUBLISHED.get(name)
        size = options.size or (published.size if published else (256, 256))
        parameters, multiply_adds = costs(model, (1, *size, 3))
        table.add_row(
            name,
            f"{parameters / 1e6:.1f} M",
            f"{multiply_adds / 1e9:.1f} G",
            f"{size[0]} x {size[1]}",
            field_of_view(model),
            published.paper if published else "",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has room for all columns
    console.print(table)
    return 0


def field_of_view(model: nn.Module) -> str:
    """The side of the receptive field in pixels.

    Args:
      model: that describes its layers by `layer_specs()`; one that does not, or answers with a
        ValueError, sees everything (by attention, or as it pools over the picture).

    Returns:
      A number, or "all".
    """
    layer_specs = getattr(model, "layer_specs", None)
    if layer_specs is None:
        return "all"
    try:
        return str(ops.receptive_field(layer_specs()).size)
    except ValueError:
        return "all"


def costs(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of parameters, and how many multiply-adds a prediction takes.

    Nothing is computed or compiled. A layer counts as what it means, `outputs · kernel / features`,
    whichever way it is computed; of all else the matrix products count, such as attention's.

    Args:
      model: the Flax module.
      shape: of the images, `(b, h, w, c)`.

    Returns:
      Both numbers.
    """
    total = 0

    def count(next_function, args, kwargs, context):
        nonlocal total
        module = context.module
        if not isinstance(module, layers.Conv | layers.Dense):
            return next_function(*args, **kwargs)
        with jax.named_scope(_COUNTED):
            y = next_function(*args, **kwargs)
        kernel = module.get_variable("params", "kernel")
        total += y.size * kernel.size // kernel.shape[-1]
        return y

    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with nn.intercept_methods(count):
        trace = jax.make_jaxpr(model.init_with_output, return_shape=True)
        program, (_, variables) = trace(jax.random.key(0), images)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return parameters, total + _products(program.jaxpr)


def _products(jaxpr: Jaxpr) -> int:
    """The multiply-adds of the matrix products that no layer has counted."""
    total = 0
    for equation in jaxpr.eqns:
        if _COUNTED in str(equation.source_info.name_stack):
            continue
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inputs: Any = equation.invars[0].aval
            outputs: Any = equation.outvars[0].aval
            total += outputs.size * math.prod(inputs.shape[axis] for axis in contracted)
        inner = [_products(program) for program in jaxprs_in_params(equation.params)]
        # Branches are forms of one thing, or one of them does nothing.
        together = max(inner) if equation.primitive.name == "cond" else sum(inner)
        total += together * equation.params.get("length", 1)
    return total
