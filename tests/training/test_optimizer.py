"""Optimizers: what each option does to one update."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax.models import MODELS, create, unet
from segjax.pretrained.recipes import DEFAULT
from segjax.registry import ENTRIES
from segjax.training import OptimizerConfig, learning_rate, make_optimizer
from segjax.training.optimizer import frozen_paths, rate_factors
from segjax.training.optimizer_config import fill_options

PLAIN = {"name": "sgd", "momentum": 0.0, "schedule": "constant", "warmup": 0, "clip": 0.0}
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


# The trace after two gradients g is (1 + m) g; looking ahead adds m times it to g.
@pytest.mark.parametrize(("name", "step"), [("sgd", 1 + 0.5), ("nesterov", 1 + 0.5 * (1 + 0.5))])
def test_sgd_has_momentum(name, step):
    options = {"name": name, "learning_rate": 1.0, "momentum": 0.5}
    update = _update(KERNEL_AND_BIAS, KERNEL_AND_BIAS, updates=2, **options)
    assert_allclose(update["bias"], -2.0 * step)


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


def test_steps_drop_the_rate_to_a_tenth_at_shares_of_the_training():
    config = OptimizerConfig(learning_rate=2.0, schedule="step", drops=(0.5, 0.9), warmup=10)
    rates = [float(learning_rate(config, 100)(step)) for step in (10, 49, 51, 89, 91)]
    assert_allclose(rates, [2, 2, 0.2, 0.2, 0.02], rtol=1e-6)
    with pytest.raises(ValueError, match=r"^optimizer\.drops: expected shares"):
        learning_rate(OptimizerConfig(schedule="step"), 100)


def test_the_backbone_warms_up_after_the_rest():
    config = OptimizerConfig(schedule="poly", learning_rate=2.0, warmup=10, backbone_warmup=20)
    rate = learning_rate(config, 80, backbone=True)
    assert_allclose([float(rate(i)) for i in (0, 10, 20, 30)], [0, 0, 1, 2])
    assert_allclose(float(rate(55)), 2 * 0.5**0.9, rtol=1e-6)
    options = PLAIN | {"learning_rate": 2.0, "warmup": 1, "backbone_warmup": 2}
    update = lambda updates: _update(_vit(), _vit(), updates=updates, **options)
    moves = [update(i)["encoder"]["block1"]["fc1"]["bias"][0] for i in (1, 2, 3, 4)]
    assert_allclose(moves, [0, 0, -1, -2])
    assert_allclose(update(2)["decoder"]["fc1"]["bias"], -2)


def _vit():
    """The names of a segmenter on a vision transformer of 3 blocks."""
    dense = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    norm = {"scale": jnp.ones(2), "bias": jnp.ones(2)}
    blocks = {f"block{i}": {"fc1": dense, "norm1": norm} for i in range(3)}
    encoder = blocks | {"position_embedding": jnp.ones((4, 2)), "norm": norm}
    return {"encoder": encoder, "decoder": {"class_embedding": jnp.ones((3, 2)), "fc1": dense}}


def test_learning_rates_fall_from_block_to_block_and_in_the_backbone():
    update = _update(_vit(), _vit(), learning_rate=1.0, layer_decay=0.5, backbone=0.1)
    rate = lambda *path: -float(functools.reduce(dict.__getitem__, path, update).ravel()[0])
    rates = [rate("encoder", f"block{i}", "fc1", "kernel") for i in range(3)]
    assert_allclose(rates, [0.025, 0.05, 0.1], rtol=1e-6)
    assert_allclose(rate("encoder", "position_embedding"), 0.025, rtol=1e-6)
    assert_allclose(rate("encoder", "norm", "scale"), 0.1, rtol=1e-6)
    assert_allclose(rate("decoder", "fc1", "kernel"), 1.0)


def test_auxiliary_heads_have_a_rate_of_their_own():
    params = {name: KERNEL_AND_BIAS for name in ("head", "auxiliary_head")}
    update = _update(params, params, learning_rate=1.0, auxiliary=10.0)
    assert_allclose(update["head"]["bias"], -2)
    assert_allclose(update["auxiliary_head"]["bias"], -20)


def test_embeddings_do_not_decay():
    update = _update(
        jax.tree.map(jnp.zeros_like, _vit()), _vit(), learning_rate=1.0, weight_decay=0.5
    )
    assert_array_equal(update["encoder"]["position_embedding"], 0)
    assert_array_equal(update["decoder"]["class_embedding"], 0)
    assert_allclose(update["decoder"]["fc1"]["kernel"], -0.5)


@pytest.mark.parametrize("freeze", ["backbone", "encoder", "encoder/*", "*/block*", "*norm*"])
def test_what_is_frozen_neither_moves_nor_has_a_state(freeze):
    options = {"name": "adamw", "weight_decay": 0.1, "freeze": (freeze,)}
    update = _update(_vit(), _vit(), learning_rate=1.0, **options)
    frozen = frozen_paths((freeze,), _vit())
    moved = {
        "/".join(k.key for k in path): bool(jnp.any(x))
        for path, x in jax.tree.leaves_with_path(update)
    }
    assert {path for path, moves in moved.items() if not moves} == frozen != set()
    state = make_optimizer(OptimizerConfig(**options), 100).init(_vit())
    arrays = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(arrays) == 2 * (len(moved) - len(frozen))


def test_a_frozen_backbone_may_have_settings():
    # As `--optimizer.freeze backbone` beside a recipe that has them.
    options = {"backbone": 0.1, "layer_decay": 0.5, "backbone_warmup": 2, "freeze": ("backbone",)}
    update = _update(_vit(), _vit(), learning_rate=1.0, **options)
    assert_array_equal(update["encoder"]["block0"]["fc1"]["bias"], 0)
    assert_allclose(update["decoder"]["fc1"]["bias"], -1)


def test_the_norm_that_clips_is_that_of_what_learns():
    gradients = {"a": {"bias": jnp.array([3.0, 4.0])}, "b": {"bias": jnp.array([100.0, 0.0])}}
    update = _update(gradients, gradients, learning_rate=1.0, clip=5.0, freeze=("b",))
    assert_allclose(update["a"]["bias"], [-3.0, -4.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"freeze": ("decodr",)},
            r"optimizer\.freeze: unknown parameters 'decodr': did you mean",
        ),
        ({"backbone": 0.1}, r"optimizer\.backbone: expected 1 for a model without a backbone"),
        ({"backbone_warmup": 5}, r"optimizer\.backbone_warmup: expected 0 for a model without a b"),
        ({"layer_decay": 0.8}, r"optimizer\.layer_decay: expected 1 for a model without transf"),
        ({"freeze": ("backbone",)}, r"optimizer\.freeze: unknown parameters 'backbone'"),
    ],
)
def test_groups_that_a_model_does_not_have_are_refused(options, message):
    params = {"decoder": {"kernel": jnp.ones(2)}}
    with pytest.raises(ValueError, match=message):
        make_optimizer(OptimizerConfig(**options), 100).init(params)


def test_a_training_shorter_than_its_warm_up_has_a_schedule_too():
    rates = [float(learning_rate(OptimizerConfig(warmup=50), 3)(step)) for step in range(4)]
    assert_array_equal(np.diff(rates) > 0, True)


def test_what_is_given_goes_before_the_recipe_s():
    recipe = ENTRIES["fcn_resnet50"].recipe
    filled = fill_options(OptimizerConfig(clip=2.0), recipe, steps=50, batch_size=16)
    assert (filled.name, filled.clip, filled.weight_decay) == ("sgd", 2.0, 1e-3)
    assert filled.learning_rate == 0.01  # half the batch
    assert fill_options(filled, steps=50, batch_size=1) == filled
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate: expected one for adamw"):
        fill_options(OptimizerConfig(name="adamw"), recipe, steps=50, batch_size=16)


def test_warm_ups_are_at_most_a_tenth_of_the_steps_unless_they_are_given():
    recipe = ENTRIES["eomt_small"].recipe
    filled = [
        fill_options(config, recipe, steps=steps, batch_size=1)
        for config in (OptimizerConfig(), OptimizerConfig(warmup=70, backbone_warmup=80))
        for steps in (100, 160_000)
    ]
    warmups = [(config.warmup, config.backbone_warmup) for config in filled]
    assert warmups == [(10, 10), (500, 1000), (70, 80), (70, 80)]


# A model of each published family.
FAMILIES = {
    (id(entry.table), entry.recipe.source): name
    for name, entry in reversed(ENTRIES.items())
    if name in MODELS and entry.table is not None
}


@pytest.mark.parametrize("name", FAMILIES.values())
def test_a_published_model_has_a_recipe_with_a_source_and_what_it_speaks_of(name):
    recipe = ENTRIES[name].recipe
    assert (recipe is DEFAULT) == (name == "unet")
    assert recipe is DEFAULT or re.match(r"[\w-]+/[\w.-]+, |\w+ et al\. \d+, ", recipe.source)
    config = fill_options(OptimizerConfig(), recipe, steps=100, batch_size=8)
    assert 0 < config.learning_rate < 3e-3 or config.name == "sgd"
    model = create(name, 3)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    factors = set(jax.tree.leaves(rate_factors(config, params)))
    neutral = config.backbone == config.auxiliary == config.layer_decay == 1
    assert (len(factors) == 1) == neutral
    jax.eval_shape(make_optimizer(config, 100).init, params)
