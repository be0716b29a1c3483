"""Weighted sums of the losses of several tasks."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.typing import Array


def fixed_weighting(
    losses: Mapping[str, Float[Array, ""]], weights: Mapping[str, Float[Array, ""] | float]
) -> Float[jax.Array, ""]:
    """Weighted sum of named losses: `Σ_i w_i L_i`.

    Args:
      losses: Scalars by name.
      weights: Numbers or scalars by the same names.

    Returns:
      A scalar, at least float32.

    Raises:
      ValueError: If the names differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> terms = {"region": jnp.array(0.5), "edges": jnp.array(2.0)}
      >>> float(losses.fixed_weighting(terms, {"region": 1.0, "edges": 0.25}))
      1.0

    References:
      Kendall et al., "Multi-task learning using uncertainty to weigh losses for scene
      geometry and semantics", 2018, equation 1.
    """
    _check_names("weights", weights, losses)
    terms = [_widen(weights[name]) * _widen(losses[name]) for name in losses]
    return jnp.sum(jnp.stack(terms))


def uncertainty_weighting(
    losses: Mapping[str, Float[Array, ""]], log_variances: Mapping[str, Float[Array, ""]]
) -> Float[jax.Array, ""]:
    """Sum of named losses weighted by learned uncertainties: `Σ_i exp(−s_i) L_i + s_i/2`.

    `s_i = log σ_i²` are parameters, trained together with the model; the optimum for a given loss
    is `s_i = log 2L_i`, where the term is `½ + ½ log 2L_i`. This is the form for cross-entropies;
    pass half of a mean squared error.

    Args:
      losses: Scalars by name.
      log_variances: Scalars `s_i` by the same names.

    Returns:
      A scalar, at least float32; it can be negative.

    Raises:
      ValueError: If the names differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> terms = {"region": jnp.array(0.5), "edges": jnp.array(2.0)}
      >>> log_variances = {"region": jnp.array(0.0), "edges": jnp.array(0.0)}
      >>> float(losses.uncertainty_weighting(terms, log_variances))
      2.5

    References:
      Kendall et al., "Multi-task learning using uncertainty to weigh losses for scene
      geometry and semantics", 2018, equation 10 (with `log σ = s/2`).
    """
    _check_names("log_variances", log_variances, losses)
    terms = []
    for name in losses:
        loss, s = _widen(losses[name]), _widen(log_variances[name])
        terms.append(jnp.exp(-s) * loss + s / 2)
    return jnp.sum(jnp.stack(terms))


def _widen(value: Array | float) -> jax.Array:
    value = jnp.asarray(value)
    return value.astype(accumulation_dtype(value))


def _check_names(argument: str, given: Mapping, losses: Mapping) -> None:
    if not losses:
        raise ValueError("losses: expected at least one loss, got none")
    if given.keys() != losses.keys():
        raise ValueError(
            f"{argument}: expected the names of losses, {sorted(losses)}, got {sorted(given)}"
        )
