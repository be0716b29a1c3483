"""Optimizers and schedules by their options."""

import dataclasses
from typing import Literal

import jax
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, and how its learning rate goes.

    Attributes:
      name: The optimizer: AdamW, or SGD with Nesterov momentum.
      learning_rate: Learning rate at its peak.
      schedule: Decay after the warm-up: a half cosine to 0, a polynomial (power 0.9) to 0, or none.
      warmup: Steps of linear warm-up.
      weight_decay: Decoupled weight decay, times the learning rate; norms and biases have none.
      momentum: Momentum of SGD, or the first of AdamW's.
      clip: Largest global norm of a gradient, which is clipped above it; None does not clip.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: int = 50
    weight_decay: float = 1e-2
    momentum: float = 0.9
    clip: float | None = 1.0


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate by step.

    Args:
      config: of the optimizer.
      steps: of the whole training.

    Returns:
      The schedule, a function of the step.

    Example:
      >>> config = OptimizerConfig(learning_rate=1.0, warmup=10)
      >>> schedule = learning_rate(config, 110)
      >>> [round(float(schedule(step)), 3) for step in (0, 10, 60, 110)]
      [0.0, 1.0, 0.5, 0.0]
    """
    peak, rest = config.learning_rate, max(1, steps - config.warmup)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "poly": optax.polynomial_schedule(peak, 0.0, 0.9, rest),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, peak, config.warmup)
    return optax.join_schedules([warmup, after], [config.warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a configuration.

    Args:
      config: of the optimizer.
      steps: of the whole training.

    Returns:
      The optax transformation: clipping, the optimizer, decoupled weight decay on kernels alone,
      and the schedule.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """
    directions = {
        "adamw": optax.scale_by_adam(b1=config.momentum),
        "sgd": optax.trace(config.momentum, nesterov=True),
    }
    return optax.chain(
        optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip),
        directions[config.name],
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )


def decayed(params):
    """Which parameters decay: kernels, not the scales and biases, which have one axis."""
    return jax.tree.map(lambda p: p.ndim > 1, params)
