"""The training state: parameters, optimizer state and everything else that a step updates."""

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
    """State of a training: everything that a checkpoint holds.

    All random numbers follow from `key`, the step and the index of each example, so no other state
    of random generators is needed.

    Attributes:
      step: int32 `[]`, number of steps taken.
      params: Parameters of the model.
      model_state: Other variables of the model, such as batch statistics, by collection.
      opt_state: State of the optimizer.
      average: Exponential moving averages of params and model_state; None if they are not used.
      key: uint32 `[2]`, data of the random key of the run.
      finite: bool `[]`; False after a loss or gradient was not finite. Then no step changes the
        state any more.
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
        """The variables for evaluation and prediction: the moving averages if they are used."""
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
    """Creates the state at step 0.

    Args:
      key: Random key.
      model: Flax module.
      optimizer: Optax transformation.
      images: `[b, h, w, c]`, example input of the model; only its shape and dtype matter.
      average: Whether to keep moving averages of the variables.
      variables: Variables of the model to start from; None initialises them at random.

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
