"""Optimizers: what each option does to one update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import unet
from segjax.training import OptimizerConfig, learning_rate, make_optimizer

PLAIN = {"name": "sgd", "momentum": 0.0, "schedule": "constant", "warmup": 0, "clip": None}
KERNEL_AND_BIAS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)}


def _update(gradients, params, *, updates=1, **options):
    """The last of several updates by the same gradients."""
    optimizer = make_optimizer(OptimizerConfig(**PLAIN | {"weight_decay": 0.0} | options), 100)
    state = optimizer.init(params)
    for _ in range(updates):
        update, state = optimizer.update(gradients, state, params)
    return update


def test_sgd_goes_against_the_gradient():
    update = _update(KERNEL_AND_BIAS, KERNEL_AND_BIAS, learning_rate=0.5)
    assert_allclose(update["kernel"], -1.0)


def test_sgd_has_nesterov_s_momentum():
    # The trace after two gradients g is (1 + m) g; looking ahead adds m times it to g.
    update = _update(KERNEL_AND_BIAS, KERNEL_AND_BIAS, learning_rate=1.0, momentum=0.5, updates=2)
    assert_allclose(update["bias"], -2.0 * (1 + 0.5 * (1 + 0.5)))


def test_adamw_takes_steps_of_the_learning_rate():
    update = _update(KERNEL_AND_BIAS, KERNEL_AND_BIAS, name="adamw", learning_rate=0.1)
    assert_allclose(update["kernel"], -0.1, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_is_decoupled_and_spares_norms_and_biases(name):
    model = unet(3, widths=(2, 4), norm="batch")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    params = jax.tree.map(lambda s: jnp.ones(s.shape), shapes)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = _update(zeros, params, name=name, learning_rate=0.5, weight_decay=0.1)
    decayed = set()
    for path, update in jax.tree.leaves_with_path(updates):
        decays = path[-1].key == "kernel"
        assert_allclose(update, -0.5 * 0.1 if decays else 0.0, rtol=1e-6, err_msg=str(path))
        decayed.add(path[-1].key)
    assert decayed == {"kernel", "scale", "bias"}


@pytest.mark.parametrize(("size", "clipped"), [(10.0, 1.5), (1.0, 1.0)])
def test_clipping_bounds_the_global_norm_and_keeps_the_direction(size, clipped):
    gradients = jax.tree.map(lambda g: g * size / optax.tree.norm(KERNEL_AND_BIAS), KERNEL_AND_BIAS)
    update = _update(gradients, KERNEL_AND_BIAS, learning_rate=1.0, clip=1.5)
    assert_allclose(optax.tree.norm(update), clipped, rtol=1e-5)
    assert_allclose(update["kernel"] / update["kernel"][0, 0], 1.0)


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_every_schedule_warms_up_linearly_to_its_peak(schedule):
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup=10)
    rates = [float(learning_rate(config, 50)(step)) for step in range(11)]
    assert_allclose(rates, np.arange(11) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "rest"),
    [
        ("cosine", lambda done: (1 + np.cos(np.pi * done)) / 2),
        ("poly", lambda done: (1 - done) ** 0.9),
        ("constant", lambda done: np.ones_like(done)),
    ],
)
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_after_the_warm_up(schedule, rest, warmup):
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup=warmup)
    steps = np.arange(warmup, 51)
    rates = [float(learning_rate(config, 50)(step)) for step in steps]
    assert_allclose(rates, 2 * rest((steps - warmup) / (50 - warmup)), atol=1e-6)


def test_a_training_shorter_than_its_warm_up_has_a_schedule_too():
    rates = [float(learning_rate(OptimizerConfig(warmup=50), 3)(step)) for step in range(4)]
    assert_array_equal(np.diff(rates) > 0, True)
