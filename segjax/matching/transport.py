"""Soft assignment by entropic optimal transport (Sinkhorn)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.typing import Array


def sinkhorn(
    cost: Num[Array, "*b n m"],
    *,
    temperature: float,
    iterations: int,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b n m"]:
    """Sinkhorn's algorithm: the entropy-regularised optimal transport plan.

    `min_P Σ P·cost + T·ΣP(log P − 1)`, where all rows with an allowed pair have the same sum, all
    such columns too, and the total is 1. The solution is `P = exp((f_i + g_j − cost_ij)/T)`; f and
    g are updated in turn, in the log domain.

    Differentiable. For small `temperature` it approaches the optimal assignment if that is unique,
    with 1/n for each of its pairs.

    Args:
      cost: `[*b, n, m]`; pairs that cost NaN or ±inf are forbidden.
      temperature: `T` in the units of `cost`, positive.
      iterations: Number of updates of f and g, at least 1; smaller temperatures need more.
      where: Broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything.

    Returns:
      `[*b, n, m]`, at least float32; 0 for forbidden pairs. The sums of columns are exact,
      those of rows converge.

    Raises:
      ValueError: If `cost` has fewer than 2 axes, `where` does not fit, `temperature` is not
        positive or `iterations` less than 1.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import matching
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> matching.sinkhorn(cost, temperature=0.1, iterations=10).round(3)
      Array([[0.5, 0. ],
             [0. , 0.5]], dtype=float32)

    References:
      Cuturi, "Sinkhorn distances", 2013; Peyré and Cuturi, "Computational optimal transport",
      2019, section 4.4.
    """
    if cost.ndim < 2:
        raise ValueError(f"cost: expected shape [*b, n, m], got {cost.shape}")
    if temperature <= 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    allowed = broadcast_where(where, cost.shape) & jnp.isfinite(cost)
    scores = jnp.where(allowed, -cost.astype(accumulation_dtype(cost)) / temperature, 0)

    return _plan(scores, allowed, iterations)


@functools.partial(jax.jit, static_argnames="iterations")
def _plan(scores: jax.Array, allowed: jax.Array, iterations: int) -> jax.Array:
    # Each iteration is computed again for its gradient; otherwise it would store a matrix.
    @jax.checkpoint
    def fit(g, _):
        f = _fit(scores + g, allowed, axis=-1)
        return _fit(scores + f, allowed, axis=-2), f

    g = jnp.zeros_like(scores, shape=(*scores.shape[:-2], 1, scores.shape[-1]))
    g, f = jax.lax.scan(fit, g, length=iterations)
    return jnp.where(allowed, jnp.exp(jnp.where(allowed, scores + f[-1] + g, 0)), 0)


def _fit(scores: jax.Array, allowed: jax.Array, axis: int) -> jax.Array:
    """What to add along an axis so that all sums are equal and add up to 1; 0 without any pair."""
    has_any = jnp.any(allowed, axis=axis, keepdims=True)
    members = jnp.sum(has_any, axis=-3 - axis, keepdims=True)
    scores = jnp.where(allowed, scores, jnp.where(has_any, -jnp.inf, 0))
    log_sum = jax.nn.logsumexp(scores, axis=axis, keepdims=True)
    return jnp.where(has_any, -jnp.log(jnp.maximum(members, 1)) - log_sum, 0)
