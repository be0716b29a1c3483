"""Convolution, with faster forms on a CPU for some shapes and gradients.

It is a primitive, so that its gradients too are lowered by platform.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from segjax.mapping import map_examples
from segjax.models.layers.forms import (
    ROLES,
    Geometry,
    Role,
    cpu_form,
    library_form,
    project,
    result_type,
)


def convolve(
    x: Float[jax.Array, "..."],
    kernel: Float[jax.Array, "..."],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[jax.Array, "..."]:
    """Convolution as in torch, channels last: `y_i = Σ_k x_{s i + d k − p} w_k`.

    Args:
      x: `[*b, *spatial, in]`.
      kernel: `[*kernel, in / groups, out]`; its rank determines the number of spatial axes.
      stride: `s`, along every spatial axis.
      dilation: `d`, along every spatial axis.
      padding: `p`, the number of zeros on each side.
      groups: Number of groups of channels that are convolved separately.

    Returns:
      `[*b, *new_spatial, out]`.

    Raises:
      ValueError: If the numbers of channels do not match, or the kernel is larger than the padded
        image.
    """
    dimensions = kernel.ndim - 2
    channels, features = x.shape[-1], kernel.shape[-1]
    if channels != groups * kernel.shape[-2] or features % groups:
        raise ValueError(
            f"kernel: expected shape [*kernel, in / groups, out] with in = {channels}, groups = "
            f"{groups} and out a multiple of groups, got {kernel.shape}"
        )
    if kernel.shape[:-2] == (1,) * dimensions and stride == 1 and padding == 0 and groups == 1:
        return project(x, kernel.reshape(kernel.shape[-2:]))
    lead, size = x.shape[: -1 - dimensions], x.shape[-1 - dimensions : -1]
    geometry = Geometry(
        size, kernel.shape[:-2], channels, features, stride, dilation, padding, groups
    )
    if min(geometry.output_size) < 1:
        raise ValueError(
            f"x: expected a spatial size of at least the kernel's {kernel.shape[:-2]} at dilation "
            f"{dilation}, got {size} with padding {padding}"
        )
    # Inside shard_map both must vary over the same devices.
    zero = jnp.zeros_like(x, shape=()) + jnp.zeros_like(kernel, shape=())
    image = x.reshape(-1, *size, channels) + zero
    y = _convolution_p.bind(image, kernel + zero, role="output", geometry=geometry)
    return y.reshape(*lead, *y.shape[1:])


def _transpose(
    place: int, cotangent: Any, a: Any, b: Any, *, role: Role, geometry: Geometry
) -> jax.Array:
    """The gradient by the operand at `place`: the cotangent is now the operand `role`."""
    first, second = (r for r in ROLES if r != role)
    known = {role: cotangent, **({second: b} if place == 0 else {first: a})}
    target = (first, second)[place]
    operands = [known[r] for r in ROLES if r != target]
    return _convolution_p.bind(*operands, role=target, geometry=geometry)


def _batch(
    operands: Sequence, axes: Sequence, *, role: Role, geometry: Geometry
) -> tuple[jax.Array, int]:
    """A new axis is joined with the batch; with a kernel for each of its entries, it is mapped."""
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    operands = [
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(operands, axes, strict=True)
    ]
    names = [r for r in ROLES if r != role]
    bind = functools.partial(_convolution_p.bind, role=role, geometry=geometry)
    if role == "kernel" or axes[names.index("kernel")] is not None:
        library = functools.partial(library_form, role=role, geometry=geometry)
        return map_examples(bind, *operands, together=jax.vmap(library)), 0
    operands = [
        x[0] if name == "kernel" else x.reshape(-1, *x.shape[2:])
        for name, x in zip(names, operands, strict=True)
    ]
    result = bind(*operands)
    return result.reshape(size, -1, *result.shape[1:]), 0


# `Σ output · (image * kernel)` is linear in each of the three. The primitive is its derivative by
# one of them, `role`, at the other two, in their order; its transposes are the same primitive.
_convolution_p = Primitive("convolution")
_convolution_p.def_impl(jax.jit(_convolution_p.bind, static_argnames=("role", "geometry")))
_convolution_p.def_abstract_eval(result_type)
mlir.register_lowering(_convolution_p, mlir.lower_fun(library_form, multiple_results=False))
mlir.register_lowering(
    _convolution_p, mlir.lower_fun(cpu_form, multiple_results=False), platform="cpu"
)
ad.defbilinear(
    _convolution_p,
    lambda cotangent, a, b, **params: _transpose(0, cotangent, a, b, **params),
    lambda cotangent, a, b, **params: _transpose(1, cotangent, a, b, **params),
)
batching.primitive_batchers[_convolution_p] = _batch
