"""The U-Nets on ResNets: sizes, options; that their numbers are right, their parity test shows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import create

KEY = jax.random.key(0, impl="rbg")  # which compiles in a fifth of the time


def _shapes(model, shape):
    return jax.eval_shape(model.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("shape", [(33, 70, 3), (2, 1, 5, 1), (1, 2, 64, 96, 4)])
def test_logits_have_the_size_of_the_image_whatever_it_is(shape):
    output, _ = _shapes(create("unet_resnet18", 5), shape)
    assert output.logits.shape == (*shape[:-1], 5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("unet_resnet18", 14_328_209), ("unet_resnet34", 24_436_369), ("unet_resnet50", 32_521_105)],
)
def test_parameters_are_as_many_as_the_original_s(name, parameters):
    _, variables = _shapes(create(name, 1), (1, 32, 32, 3))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters


def test_bfloat16_is_for_the_computation_alone():
    output, variables = _shapes(create("unet_resnet18", 2, dtype=jnp.bfloat16), (1, 32, 32, 3))
    assert output.logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_remat_changes_no_parameter():
    plain, remat = (create("unet_resnet18", 2, remat=remat) for remat in (False, True))
    variables = _shapes(plain, (1, 32, 32, 3))
    assert variables == _shapes(remat, (1, 32, 32, 3))
