"""Mask annealing: models that need their masks less and less as training proceeds."""

import dataclasses

import jax.numpy as jnp

from segjax.models import annealed_mask_probs
from segjax.training.state import TrainState


def anneal_masks(state: TrainState, steps: int) -> TrainState:
    """Sets how probable masked attention is in each block of an `EoMT`, by the step.

    Of `b + 2` equal parts of the training, block i of b anneals in part `i + 1`.

    Args:
      state: before the step; that of another model comes back as it is.
      steps: of the whole training.

    Returns:
      The state.

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
