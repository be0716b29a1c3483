"""Numerically safe arithmetic, masked sums, and averages that add up over devices."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.typing import Array


def accumulation_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype in which sums, logarithms and divisions are computed: at least float32.

    Args:
      *arrays: Arrays of any shape; bfloat16, float16, integers and booleans count as float32.

    Returns:
      float32, or float64 if one of the arrays is float64 and 64 bits are enabled in JAX.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import accumulation_dtype
      >>> accumulation_dtype(jnp.zeros(3, jnp.bfloat16))
      dtype('float32')
    """
    dtypes = (jax.dtypes.canonicalize_dtype(a.dtype) for a in arrays)
    return jnp.result_type(jnp.float32, *(d for d in dtypes if jnp.issubdtype(d, jnp.floating)))


def safe_divide(
    numerator: Num[Array, "..."], denominator: Num[Array, "..."], *, default: float = 0.0
) -> Float[jax.Array, "..."]:
    """Division with a default: `numerator / denominator`, or `default` where that divides by 0.

    Args:
      numerator: Any shape.
      denominator: Broadcasts against `numerator`.
      default: Result, with gradient 0, where the denominator is 0.

    Returns:
      The quotient, of the broadcast shape, at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import safe_divide
      >>> safe_divide(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]), default=1.0)
      Array([0.5, 1. ], dtype=float32)
    """
    dtype = accumulation_dtype(numerator, denominator)
    numerator, denominator = numerator.astype(dtype), denominator.astype(dtype)
    defined = denominator != 0
    quotient = _divide(numerator, jnp.where(defined, denominator, 1))
    return jnp.where(defined, quotient, jnp.asarray(default, dtype))


@jax.custom_jvp
def _divide(numerator, denominator):
    return numerator / denominator


@_divide.defjvp
def _(primals, tangents):
    """`d(x/y) = (dx − (x/y) dy) / y`; JAX's own rule divides by y², which underflows to 0."""
    denominator, quotient = primals[1], _divide(*primals)
    return quotient, _divide(tangents[0] - quotient * tangents[1], denominator)


def log1mexp(x: Float[Array, "..."]) -> Float[jax.Array, "..."]:
    """`log(1 − eˣ)` for `x ≤ 0`, to full precision at both ends.

    Computed as `log(−expm1(x))` near 0 and as `log1p(−eˣ)` below; each formula loses all digits
    where the other is accurate.

    Args:
      x: Any shape, logarithms of probabilities, at most 0.

    Returns:
      Logarithms of the complementary probabilities, the same shape, at least float32. `x` is
      clipped at minus the smallest normal number, with gradient 0: so 0 gives −87.3 in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import log1mexp
      >>> jnp.exp(log1mexp(jnp.log(jnp.array([0.25, 0.5]))))
      Array([0.75, 0.5 ], dtype=float32)

    References:
      Mächler, "Accurately computing log(1 − exp(−|a|))", 2012.
    """
    dtype = accumulation_dtype(x)
    x = jnp.minimum(x.astype(dtype), -jnp.finfo(dtype).tiny)
    near = x > -jnp.log(2)
    # Each formula gets only its own half, as the derivative of the other may be 0/0 there.
    close = jnp.log(-jnp.expm1(jnp.where(near, x, -1)))
    far = jnp.log1p(-jnp.exp(jnp.where(near, -1, x)))
    return jnp.where(near, close, far)


@jax.custom_jvp
def softplus_pair(x: Float[Array, "*b"]) -> tuple[Float[jax.Array, "*b"], Float[jax.Array, "*b"]]:
    """Both softplus terms of a logit, `log(1 + eˣ)` and `log(1 + e⁻ˣ)`, at the cost of one.

    They are the binary cross-entropies for target 0 and for target 1: `max(x, 0)` and `max(−x, 0)`,
    plus the same term `log(1 + e^−|x|)`.

    Args:
      x: Any shape, logits.

    Returns:
      Both terms, each of the same shape, at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import softplus_pair
      >>> absent, present = softplus_pair(jnp.array([0.0, 1e4]))
      >>> present.round(2)
      Array([0.69, 0.  ], dtype=float32)

    References:
      Bishop, "Pattern recognition and machine learning", 2006, eq. 4.90.
    """
    x = x.astype(accumulation_dtype(x))
    # log(1 + e) = 2 artanh(z) = 2 (z + z³/3 + z⁵/5 + …) with z ≤ 1/3: on a CPU many times faster
    # than log1p. Each term is at most 1/9 of the previous one.
    e = jnp.exp(-jnp.abs(x))
    z = e / (2 + e)
    terms = math.ceil(math.log(jnp.finfo(x.dtype).eps, 1 / 9))
    series = jnp.zeros_like(z)
    for k in reversed(range(terms)):
        series = series * jnp.square(z) + 1 / (2 * k + 1)
    shared = 2 * z * series
    return jnp.maximum(x, 0) + shared, jnp.maximum(-x, 0) + shared


@softplus_pair.defjvp
def _(primals, tangents):
    """`σ(x) dx` and `−σ(−x) dx`, which are smooth at 0, unlike the maxima."""
    (x,), (dx,) = primals, tangents
    pair = softplus_pair(x)
    dx = dx.astype(pair[0].dtype)
    up, down = jax.nn.sigmoid(x.astype(dx.dtype)), jax.nn.sigmoid(-x.astype(dx.dtype))
    return pair, (up * dx, -down * dx)


def broadcast_where(
    where: Bool[Array, "..."] | None, shape: Sequence[int], *, name: str = "where"
) -> Bool[jax.Array, "..."]:
    """Broadcast a mask to `shape`; None stands for all True.

    Args:
      where: boolean, broadcasts to `shape`; or None.
      shape: Shape of the masked array.
      name: Name of `where` in errors.

    Returns:
      Booleans of `shape`.

    Raises:
      ValueError: If `where` does not broadcast to `shape`.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import broadcast_where
      >>> broadcast_where(jnp.array([True, False]), (2, 2))
      Array([[ True, False],
             [ True, False]], dtype=bool)
    """
    if where is None:
        return jnp.ones(shape, bool)
    if where.dtype != bool:
        raise TypeError(f"{name}: expected bool, got {where.dtype}")
    try:
        return jnp.broadcast_to(where, shape)
    except ValueError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(shape)}, got {where.shape}"
        ) from None


def masked_sum(
    values: Num[Array, "..."],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "..."]:
    """Sum over the values where `where` is True, in at least float32.

    NaN and inf under `where=False` reach neither the sum nor the gradient with respect to `values`.

    Args:
      values: Any shape.
      axis: As in `jnp.sum`.
      where: Broadcasts to `values`; None for all True.

    Returns:
      Sums, `values`' shape without `axis`.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import masked_sum
      >>> float(masked_sum(jnp.array([1.0, jnp.nan]), where=jnp.array([True, False])))
      1.0
    """
    dtype = accumulation_dtype(values)
    if where is not None:
        values = jnp.where(where, values, 0)
    return jnp.sum(values, axis=axis, dtype=dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """A weighted mean as total and weight, which are divided only at the end.

    Averages of devices, hosts or batches are added (`+`), so the mean does not depend on how the
    examples are distributed, unlike a mean of means.

    Attributes:
      total: Weighted sum of the values.
      weight: Sum of the weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.numerics import Average
      >>> a = Average.of(jnp.array([1.0, 3.0])) + Average.of(jnp.array([8.0]))
      >>> float(a.value)
      4.0
    """

    total: Float[Array, "..."]
    weight: Float[Array, "..."]

    @classmethod
    def of(
        cls,
        values: Num[Array, "..."],
        *,
        weights: Num[Array, "..."] | None = None,
        where: Bool[Array, "..."] | None = None,
    ) -> "Average":
        """The weighted average of `values` over those where `where` is True."""
        dtype = accumulation_dtype(values)
        weights = jnp.ones((), dtype) if weights is None else weights.astype(dtype)
        weights = jnp.broadcast_to(weights, values.shape)
        return cls(
            masked_sum(values.astype(dtype) * weights, where=where),
            masked_sum(
                weights, where=where if where is None else jnp.broadcast_to(where, values.shape)
            ),
        )

    @property
    def value(self) -> Float[jax.Array, "..."]:
        """The mean, or 0 where the weight is 0."""
        return safe_divide(self.total, self.weight)

    def __add__(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.weight + other.weight)

    def __mul__(self, factor: float) -> "Average":
        return Average(self.total * factor, self.weight)
