"""The training step and the evaluation step: pure functions, the same on any devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array

from segjax.numerics import safe_divide
from segjax.objectives.records import example_keys
from segjax.tasks import Metric, Task
from segjax.training.state import TrainState
from segjax.typing import Record

Metrics = dict[str, Array]
Prepare = Callable[[Array, Record], Record]


def make_train_step(
    task: Task,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    prepare: Prepare | None = None,
    accumulate: int = 1,
    average_decay: float | None = None,
    axis_name: str | None = None,
) -> Callable[[TrainState, Record], tuple[TrainState, Metrics]]:
    """Makes the training step, a pure function `(state, batch) -> (state, metrics)`.

    The loss is the sum of the task's terms, each a total divided by a weight. Weights are summed
    over all devices, and over the parts of an accumulated batch, before the division. So loss and
    gradient are those of the whole batch, however it is distributed.

    Args:
      task: Task, such as a `SemanticTask`.
      model: Flax module.
      optimizer: Optax transformation.
      prepare: Function `(keys, batch) -> batch` that renders and augments the examples on the
        device. The key of an example depends only on the key of the run and its `index`.
      accumulate: Number of parts that the batch is split into; gradients are accumulated over them.
      average_decay: Decay of the moving averages in the state, which start as plain means.
      axis_name: Name of the mapped axis that the batch is split over by `pmap`; None otherwise.

    Returns:
      The step. Its metrics are scalars: `loss`, each term by name, `gradient_norm` and `finite`.
      If `finite` is False, neither this step nor any later one changes the state.

    Raises:
      ValueError: If the batch size is not a multiple of `accumulate`.
    """
    if axis_name is not None:
        model = model.clone(axis_name=axis_name)

    def sum_devices(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def apply(params, model_state, record, keys):
        return task.apply(
            model,
            {"params": params, **model_state},
            record,
            keys.loss,
            mutable=list(model_state),
            rngs={"dropout": keys.dropout},
        )

    def term_weights(state, record, keys):
        """The weight of each term; the compiler removes everything that it does not depend on."""
        outputs, _ = apply(state.params, state.model_state, record, keys)
        return {name: a.weight for name, a in task.losses(outputs, record, keys.loss).items()}

    def objective(params, model_state, record, keys, weights):
        """The share of this part in the loss; losses and gradients of all parts add up."""
        outputs, model_state = apply(params, model_state, record, keys)
        terms = task.losses(outputs, record, keys.loss)
        if weights is None:  # there is only one part
            weights = sum_devices({k: jax.lax.stop_gradient(a.weight) for k, a in terms.items()})
        shares = {name: safe_divide(a.total, weights[name]) for name, a in terms.items()}
        return sum(shares.values()), (shares, model_state)

    differentiate = jax.value_and_grad(objective, has_aux=True)

    def step(state: TrainState, batch: Record) -> tuple[TrainState, Metrics]:
        if prepare is not None:
            batch = prepare(augmentation_keys(state, batch), batch)
        parts = split_batch(batch, accumulate)
        keys = _part_keys(state, accumulate, axis_name)

        if accumulate == 1:  # no loop: inside one, convolutions on CPUs are many times slower
            part, key = jax.tree.map(lambda x: x[0], (parts, keys))
            (_, (shares, model_state)), gradients = differentiate(
                state.params, state.model_state, part, key, None
            )
        else:
            weights = jax.lax.map(lambda part: term_weights(state, *part), (parts, keys))
            weights = sum_devices(jax.tree.map(lambda w: w.sum(0), weights))

            def accumulate_part(carry, part):
                gradients, shares, model_state = carry
                (_, (more, model_state)), gradient = differentiate(
                    state.params, model_state, *part, weights
                )
                add = lambda a, b: jax.tree.map(jnp.add, a, b)
                return (add(gradients, gradient), add(shares, more), model_state), None

            zeros = jax.tree.map(jnp.zeros_like, (state.params, weights))
            carry, _ = jax.lax.scan(accumulate_part, (*zeros, state.model_state), (parts, keys))
            gradients, shares, model_state = carry
        gradients, shares = sum_devices((gradients, shares))

        loss, norm = sum(shares.values()), optax.tree.norm(gradients)
        finite = state.finite & jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        moved = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            average=_update_average(state, {"params": params, **model_state}, average_decay),
            key=state.key,
            finite=finite,
        )
        stayed = TrainState(**{**vars(state), "finite": finite})
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, stayed)
        return state, {"loss": loss, **shares, "gradient_norm": norm, "finite": finite}

    return step


def make_eval_step(
    task: Task,
    model: nn.Module,
    *,
    render: Callable[[Record], Record],
    axis_name: str | None = None,
) -> Callable[[dict, Record], tuple[Metric, Any]]:
    """Makes the evaluation step, a pure function `(variables, batch) -> (metric, predictions)`.

    Args:
      task: Task, such as a `SemanticTask`.
      model: Flax module.
      render: The source's `render`, for one example.
      axis_name: Name of the mapped axis that the batch is split over by `pmap`; None otherwise.

    Returns:
      The step. The metric covers the examples of all devices, the predictions those of this one.
    """

    def step(variables, batch):
        batch = jax.vmap(render)(batch)
        predictions = task.predict(model, variables, batch.image, batch.size)
        metric = task.measure(predictions, batch)
        return metric if axis_name is None else metric.all_reduce(axis_name), predictions

    return step


def augmentation_keys(state: TrainState, batch: Record) -> Array:
    """`[b]` random keys, one for each example; they depend only on the run and its `index`."""
    key, _ = jax.random.split(jax.random.wrap_key_data(jnp.asarray(state.key)))
    return example_keys(key, batch)


def split_batch(batch: Record, parts: int) -> Record:
    """Reshapes `[b, ...]` to `[parts, b / parts, ...]`, with every `parts`-th example in a part.

    So every device, which holds consecutive examples, contributes equally to each part.
    """

    def split(x):
        if x.shape[0] % parts:
            raise ValueError(
                f"accumulate: expected a divisor of the {x.shape[0]} examples per device, got "
                f"{parts}"
            )
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


class _Keys(NamedTuple):
    dropout: Array
    loss: Array


def _part_keys(state: TrainState, parts: int, axis_name: str | None) -> _Keys:
    """`[parts]` keys of a step: dropout keys differ between devices, loss keys do not."""
    _, key = jax.random.split(jax.random.wrap_key_data(jnp.asarray(state.key)))
    key = jax.random.fold_in(key, state.step)
    loss = jnp.broadcast_to(jax.random.fold_in(key, parts), (parts,))
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    return _Keys(jax.random.split(key, parts), loss)


def _update_average(state: TrainState, variables: dict, decay: float | None) -> Any:
    """`average += (1 − decay) (variables − average)`; in the first steps it is the plain mean."""
    if state.average is None or decay is None:
        return state.average
    rate = jnp.maximum(1 - decay, 1 / (state.step + 1.0))
    return jax.tree.map(lambda a, v: a + rate * (v - a), state.average, variables)
