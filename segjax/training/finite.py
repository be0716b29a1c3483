"""Finds the origin of a loss or gradient that is NaN or infinite."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from segjax.tasks import Task
from segjax.training.state import TrainState
from segjax.training.step import Prepare, augmentation_keys
from segjax.typing import Record


def find_non_finite(
    task: Task, model: nn.Module, state: TrainState, batch: Record, *, prepare: Prepare
) -> str:
    """Describes the first place where a training step met NaN or infinity.

    It repeats the step and looks, in this order, at the images, the parameters, the output of each
    layer of the model, the terms of the loss and the gradients.

    Args:
      task: Task that is trained.
      model: Flax module that is trained.
      state: State before the step, on this process.
      batch: Batch of the step: the examples of this process.
      prepare: Rendering and augmentation of the step, as in `make_train_step`.

    Returns:
      Description of the place, such as "the output of layer decoder/conv".
    """
    state = jax.tree.map(jnp.asarray, state)
    batch = jax.jit(prepare)(augmentation_keys(state, batch), batch)
    stages = [("parameter", state.params), ("batch statistic", state.model_state)]
    bad = np.flatnonzero(~np.isfinite(np.asarray(batch.image)).all((1, 2, 3)))
    if bad.size:
        numbers = ", ".join(str(number) for number in np.asarray(batch.index)[bad])
        return f"the image of example {numbers} of the stream"

    order: list[tuple[str, ...]] = []  # of the layers' calls; Flax returns outputs sorted by name

    def note_order(layer, args, kwargs, context):
        outputs = layer(*args, **kwargs)
        if context.method_name == "__call__":
            order.append(context.module.path)
        return outputs

    @jax.jit
    def forward(params):
        with nn.intercept_methods(note_order):
            outputs, changed = task.apply(
                model,
                {"params": params, **state.model_state},
                batch,
                jax.random.key(0),
                mutable=[*state.model_state, "intermediates"],
                capture_intermediates=True,
                rngs={"dropout": jax.random.key(0)},
            )
        losses = task.losses(outputs, batch, jax.random.key(0))
        terms = {k: a.value for k, a in losses.items()}
        return sum(terms.values()), (terms, changed["intermediates"])

    (_, (terms, layers)), gradients = jax.value_and_grad(forward, has_aux=True)(state.params)
    for path in order:
        output = functools.reduce(operator.getitem, path, layers)["__call__"]
        stages.append((f"output of layer {'/'.join(path)}" if path else "output", output))
    stages += [("term", terms), ("gradient of", gradients)]
    for kind, tree in stages:
        for path, value in jax.tree.leaves_with_path(tree):
            if not np.isfinite(np.asarray(value)).all():
                names = [str(getattr(p, "key", getattr(p, "name", ""))) for p in path]
                return f"the {kind} {'/'.join(names)}".rstrip("/ ")
    return "nothing in this process's part of the batch, outside the compiled step"
