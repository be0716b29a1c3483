"""Mask annealing: masked attention that is phased out in the course of training."""

import dataclasses

import jax.numpy as jnp

from segjax.models import annealed_mask_probs
from segjax.training.state import TrainState


def anneal_masks(state: TrainState, steps: int) -> TrainState:
    """Sets the probability of masked attention in each block of an `EoMT` for the current step.

    Training is divided into `b + 2` equal parts, where b is the number of blocks that use masks.
    The probability in block i falls from 1 to 0 during part `i + 1`.

    Args:
      state: State before the step. The state of any other model is returned unchanged.
      steps: Number of steps of the whole training.

    Returns:
      The state with the probabilities of this step.

    References:
      Kerssies et al., "Your ViT is secretly an image segmentation model", 2025, section 3.3.
    """
    if "annealing" not in state.model_state:
        return state
    blocks = state.model_state["annealing"]["mask_probs"].shape[0]
    bounds = steps * jnp.arange(1, blocks + 2) / (blocks + 2)
    probs = annealed_mask_probs(state.step, bounds[:-1], bounds[1:])
    model_state = {**state.model_state, "annealing": {"mask_probs": probs}}
    return dataclasses.replace(state, model_state=model_state)
