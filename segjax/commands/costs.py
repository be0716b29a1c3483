"""What models cost and how far they see, by tracing them: nothing is computed or compiled.

`python -m segjax.commands.costs` writes `models.json`, from which `segjax models` answers at once.
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
_COUNTED = "counted:"  # marks those that a layer's own count stands for


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module of a model.

    Attributes:
      path: names of the modules around it and its own, such as "backbone/stem"; "" is the model.
      kind: name of its class.
      shapes: of its outputs.
      parameters: number of them, with those of the modules inside it.
      multiply_adds: of one call of the model, likewise.
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
      name: of the model.
      size: (height, width) of the image; None takes what the model is published for.
      num_classes: of its outputs.

    Returns:
      Parameters, multiply-adds, size, receptive field (None: the whole image) and paper, by name.
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
      model: that describes its layers by `layer_specs()`; one that does not, or answers with a
        ValueError, sees everything (by attention, or as it pools over the picture).

    Returns:
      The side; None for the whole picture.
    """
    layer_specs = getattr(model, "layer_specs", None)
    if layer_specs is None:
        return None
    try:
        return ops.receptive_field(layer_specs()).size
    except ValueError:
        return None


def costs(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of parameters, and how many multiply-adds a prediction takes.

    Args:
      model: the Flax module.
      shape: of the images, `(b, h, w, c)`.

    Returns:
      Both numbers.
    """
    whole = trace(model, shape)[0]
    return whole.parameters, whole.multiply_adds


def trace(model: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """The modules of a model and what each costs.

    A layer counts as what it means, `outputs · kernel / features`, whichever way it is computed;
    of all else the matrix products count, such as attention's.

    Args:
      model: the Flax module.
      shape: of the images, `(b, h, w, c)`.

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
            # Branches are forms of one thing, or one of them does nothing.
            inner = [max(inner, key=lambda counts: sum(counts.values()))]
        for counts in inner:
            for name, number in counts.items():
                own[name] = own.get(name, 0) + number


def _write_table() -> None:
    rows = (f"{json.dumps(name)}: {json.dumps(describe(name))}" for name in models.MODELS)
    Path(TABLE).write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    _write_table()
