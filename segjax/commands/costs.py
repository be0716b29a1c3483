"""Costs and receptive fields of models, by tracing: nothing is computed or compiled.

`python -m segjax.commands.costs` writes `models.json`, which `segjax models` reads.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import Jaxpr, jaxprs_in_params

from segjax import models, ops
from segjax.commands.models import CLASSES, TABLE
from segjax.models import layers
from segjax.registry import find_entry

_SCOPE = "segjax:"  # marks the operations of a module, by its path
_COUNTED = "counted:"  # marks operations that are counted by their layer


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module of a model.

    Attributes:
      path: its path in the model, such as "backbone/stem"; "" is the model.
      kind: name of its class.
      shapes: shapes of its outputs.
      parameters: number of parameters, including those of modules inside it.
      multiply_adds: number of multiply-adds in a call of the model, including modules inside it.
    """

    path: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    multiply_adds: int


def describe(
    name: str, *, size: tuple[int, int] | None = None, num_classes: int = CLASSES
) -> dict[str, Any]:
    """The entry of `models.json` for a model.

    Args:
      name: name of the model.
      size: (height, width) of the image; None takes that of the published model.
      num_classes: number of classes of its outputs.

    Returns:
      A dict of parameters, multiply-adds, size, receptive field (None is the whole image) and
      paper.
    """
    model = models.create(name, num_classes)
    entry = find_entry(name)
    size = size or entry.size
    parameters, multiply_adds = costs(model, (1, *size, 3))
    return {
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "size": list(size),
        "receptive_field": receptive_field(model),
        "paper": entry.paper,
    }


def receptive_field(model: nn.Module) -> int | None:
    """The side of the receptive field in pixels.

    Args:
      model: the Flax module. If it has no `layer_specs()`, or these raise a ValueError, the field
        is the whole picture, as with attention or global pooling.

    Returns:
      The side in pixels; None for the whole picture.
    """
    layer_specs = getattr(model, "layer_specs", None)
    if layer_specs is None:
        return None
    try:
        return ops.receptive_field(layer_specs()).size
    except ValueError:
        return None


def costs(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of parameters and of multiply-adds in a prediction.

    Args:
      model: the Flax module.
      shape: shape of the images, `(b, h, w, c)`.

    Returns:
      Parameters and multiply-adds.
    """
    whole = trace(model, shape)[0]
    return whole.parameters, whole.multiply_adds


def trace(model: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Lists the modules of a model with their costs.

    A layer counts as `outputs · kernel / features`, however it is computed. Of all other operations
    matrix products count, such as those of attention.

    Args:
      model: the Flax module.
      shape: shape of the images, `(b, h, w, c)`.

    Returns:
      The model, then its modules in the order in which they are called.
    """
    own: dict[str, int] = {}  # multiply-adds, without those of the modules inside
    called: dict[str, tuple[str, Any]] = {"": (type(model).__name__, ())}

    def count(next_function, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        is_call = context.method_name == "__call__"
        if is_call:
            called.setdefault(path, (type(module).__name__, ()))
        is_layer = isinstance(module, layers.Conv | layers.Dense)
        with jax.named_scope(f"{_COUNTED if is_layer else _SCOPE}{path};"):
            y = next_function(*args, **kwargs)
        if is_layer:
            kernel = module.get_variable("params", "kernel")
            own[path] = own.get(path, 0) + y.size * kernel.size // kernel.shape[-1]
        if is_call:
            shapes = tuple(leaf.shape for leaf in jax.tree.leaves(y) if hasattr(leaf, "shape"))
            called[path] = (type(module).__name__, shapes)
        return y

    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with nn.intercept_methods(count):
        traced = jax.make_jaxpr(model.init_with_output, return_shape=True)
        program, (_, variables) = traced(jax.random.key(0), images)
    _count_products(program.jaxpr, own, "", 1)
    sizes = {
        "/".join(key.key for key in keys): leaf.size
        for keys, leaf in jax.tree.leaves_with_path(variables["params"])
    }

    def inside(numbers: dict[str, int], path: str) -> int:
        return sum(n for p, n in numbers.items() if not path or f"{p}/".startswith(f"{path}/"))

    return [
        Layer(path, kind, shapes, inside(sizes, path), inside(own, path))
        for path, (kind, shapes) in called.items()
    ]


def _count_products(jaxpr: Jaxpr, own: dict[str, int], outer: str, times: int) -> None:
    """Adds the multiply-adds of the matrix products that no layer has counted, by module."""
    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack)
        if _COUNTED in stack:
            continue
        path = stack.rpartition(_SCOPE)[2].partition(";")[0] if _SCOPE in stack else outer
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inputs: Any = equation.invars[0].aval
            outputs: Any = equation.outvars[0].aval
            products = outputs.size * math.prod(inputs.shape[axis] for axis in contracted)
            own[path] = own.get(path, 0) + times * products
        inner: list[dict[str, int]] = []
        for program in jaxprs_in_params(equation.params):
            inner.append({})
            _count_products(program, inner[-1], path, times * equation.params.get("length", 1))
        if equation.primitive.name == "cond":
            # Branches compute the same in different ways, or one of them does nothing.
            inner = [max(inner, key=lambda counts: sum(counts.values()))]
        for counts in inner:
            for name, number in counts.items():
                own[name] = own.get(name, 0) + number


def _write_table() -> None:
    rows = (f"{json.dumps(name)}: {json.dumps(describe(name))}" for name in models.MODELS)
    Path(TABLE).write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    _write_table()
