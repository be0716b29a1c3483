"""What training carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Bool, Int, UInt32

from segjax.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of training: all that a checkpoint must hold.

    Random numbers are functions of `key`, the step and each example's place in the stream, so
    nothing else about them needs saving.

    Attributes:
      step: int32 `[]`, steps taken.
      params: the parameters.
      model_state: the model's other variables (batch statistics), by collection.
      opt_state: the optimizer's.
      average: exponential moving averages of params and model_state; None if not kept.
      key: uint32 `[2]`, the data of the run's random key.
      finite: bool `[]`; False once a loss or gradient was not finite: then nothing moves any more.
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: Any
    average: Any
    key: UInt32[Array, "2"]
    finite: Bool[Array, ""]

    @property
    def variables(self) -> dict:
        """What to evaluate and predict with: the moving averages where they are kept."""
        if self.average is not None:
            return self.average
        return {"params": self.params, **self.model_state}


def create_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images: Array,
    *,
    average: bool = False,
    variables: dict | None = None,
) -> TrainState:
    """A state at step 0.

    Args:
      key: a random key.
      model: the Flax module.
      optimizer: whose state to make.
      images: `[b, h, w, c]`, an example of what the model takes; only its shape and dtype matter.
      average: whether to keep moving averages of the variables.
      variables: of the model, to start from; None draws them.

    Returns:
      The state.
    """
    init_key, run_key = jax.random.split(key)
    variables = dict(model.init(init_key, images) if variables is None else variables)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        # A copy: a donated state must not hold one buffer twice.
        average=jax.tree.map(jnp.copy, {"params": params, **variables}) if average else None,
        key=jax.random.key_data(run_key),
        finite=jnp.ones((), bool),
    )
