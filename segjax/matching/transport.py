"""Soft assignment: entropic optimal transport."""

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
    """The plan that moves mass from rows to columns at little cost and high entropy.

    `min_P Σ P·cost + T·ΣP(log P − 1)`, where every row that has any allowed pair sends the same
    mass, every such column gets the same, and all sums to 1. Its solution is
    `P = exp((f_i + g_j − cost_ij)/T)`; f and g are fitted in turn, in the log domain.

    Differentiable, and for small `temperature` near the best assignment, where that is unique: its
    pairs then weigh 1/n each.

    Args:
      cost: `[*b, n, m]`; pairs that cost NaN or ±inf are forbidden.
      temperature: `T`, above 0, in the unit of the cost.
      iterations: how often f and g are fitted; the smaller the temperature, the more it takes.
      where: broadcasts to `cost`; False for padding and forbidden pairs, whose costs may be
        anything.

    Returns:
      `[*b, n, m]`, at least float32: 0 for forbidden pairs. The columns' sums are exact, the
      rows' as near as the iterations have come.

    Raises:
      ValueError: if `cost` has fewer than 2 axes, `where` does not fit, `temperature` is not
        positive or `iterations` less than 1.
      TypeError: if `where` is not boolean.

    Example:
      >>> sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), temperature=0.1, iterations=10).round(3)
      Array([[0.5, 0. ],
             [0. , 0.5]], dtype=float32)

    References:
      Cuturi, "Sinkhorn distances", 2013; Peyré and Cuturi, "Computational optimal transport",
      2019, section 4.4.
    """
    if cost.ndim < 2:
        raise ValueError(f"cost: expected shape [*b, n, m], got {cost.shape}")
    if temperature <= 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    if iterations < 1:
        raise ValueError(f"iterations: expected 1 or more, got {iterations}")
    allowed = broadcast_where(where, cost.shape) & jnp.isfinite(cost)
    scores = jnp.where(allowed, -cost.astype(accumulation_dtype(cost)) / temperature, 0)

    return _plan(scores, allowed, iterations)


@functools.partial(jax.jit, static_argnames="iterations")
def _plan(scores: jax.Array, allowed: jax.Array, iterations: int) -> jax.Array:
    # Each turn is computed again for its gradient: it would keep a matrix otherwise.
    @jax.checkpoint
    def fit(g, _):
        f = _fit(scores + g, allowed, axis=-1)
        return _fit(scores + f, allowed, axis=-2), f

    g = jnp.zeros_like(scores, shape=(*scores.shape[:-2], 1, scores.shape[-1]))
    g, f = jax.lax.scan(fit, g, length=iterations)
    return jnp.where(allowed, jnp.exp(jnp.where(allowed, scores + f[-1] + g, 0)), 0)


def _fit(scores: jax.Array, allowed: jax.Array, axis: int) -> jax.Array:
    """What to add along an axis so that each sum is the same share of 1; 0 where there is none."""
    has_any = jnp.any(allowed, axis=axis, keepdims=True)
    members = jnp.sum(has_any, axis=-3 - axis, keepdims=True)
    scores = jnp.where(allowed, scores, jnp.where(has_any, -jnp.inf, 0))
    log_sum = jax.nn.logsumexp(scores, axis=axis, keepdims=True)
    return jnp.where(has_any, -jnp.log(jnp.maximum(members, 1)) - log_sum, 0)
