import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.analysis import (
    bilinear_gradient_ratio,
    dice_loss_gradient,
    gradient_field,
    gradient_norms,
    hessian_spectrum,
    hessian_vector_product,
    jaccard_gradient,
    mask_problem,
)
from segjax.losses import dice_loss, jaccard_loss, soft_dice, soft_jaccard
from segjax.ops import sample

CLOSED_FORMS = [(jaccard_gradient, soft_jaccard), (dice_loss_gradient, dice_loss)]
soft_masks = hnp.arrays(np.float32, (2, 4), elements=st.floats(0, 1, width=32))


@pytest.mark.parametrize(("closed_form", "function"), CLOSED_FORMS)
def test_closed_forms_are_what_autodiff_finds(closed_form, function):
    """On soft and hard targets, empty masks, void pixels and each mask of several."""
    automatic = jax.jit(
        jax.grad(lambda p, y, where: function(p, y, axis=1, where=where).sum()),
    )
    in_one = jax.jit(lambda p, y, where: closed_form(p, y, axis=1, where=where))

    @given(soft_masks, soft_masks, hnp.arrays(bool, (2, 4)))
    def check(p, y, where):
        expected = automatic(p, y, where)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(in_one(p, y, where), expected, rtol=1e-4, atol=1e-5 * scale)

    check()


def test_the_gradients_are_parallel():
    """`J = D / (2 − D)`, so `∇J = 2 / (2 − D)² ∇D`: half of it at D = 0, twice it at D = 1."""
    key = jax.random.key(0)
    for margin in (0.0, 1.0, 4.0):
        probs, targets = mask_problem(key, 50, foreground=0.2, margin=margin, noise=1.0)
        factor = 2 / (2 - soft_dice(probs, targets)) ** 2
        np.testing.assert_allclose(
            jaccard_gradient(probs, targets),
            -factor * dice_loss_gradient(probs, targets),
            rtol=1e-4,
            atol=1e-7,
        )


def test_problems_are_as_asked_for():
    probs, targets = mask_problem(
        jax.random.key(0), 1000, foreground=0.2, alignment=0.75, margin=3.0, noise=0.0
    )
    predicted = np.asarray(probs > 0.5)
    assert targets.sum() == 200
    assert predicted.sum() == 200
    assert (predicted & np.asarray(targets)).sum() == 150
    logits = np.log(probs) - np.log1p(-probs)
    np.testing.assert_allclose(np.abs(logits), 3, rtol=1e-4)


def test_noise_of_problems_is_of_its_size_and_of_its_key():
    draw = functools.partial(mask_problem, num_pixels=10_000, margin=0.0, noise=0.5)
    (probs, _), (same, _), (other, _) = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_allclose(np.std(np.log(probs) - np.log1p(-probs)), 0.5, rtol=0.05)
    np.testing.assert_array_equal(probs, same)
    assert (probs != other).any()


def test_field_and_norms_are_those_of_each_problem():
    alignments = jnp.linspace(0, 1, 3)
    draw = lambda alignment: mask_problem(jax.random.key(0), 30, alignment=alignment, noise=0.1)
    probs, targets = jax.jit(jax.vmap(draw))(alignments)
    field = jax.jit(functools.partial(gradient_field, dice_loss))(probs, targets)
    for i in range(3):
        expected = dice_loss_gradient(probs[i], targets[i])
        np.testing.assert_allclose(field[i], expected, rtol=1e-4, atol=1e-7)
    norms = gradient_norms(dice_loss, probs, targets)
    np.testing.assert_allclose(norms, np.linalg.norm(field, axis=-1), rtol=1e-5)


def test_curvature_is_that_of_the_dense_hessian():
    probs, targets = mask_problem(jax.random.key(0), 6, margin=1.0, noise=0.5)
    dense = jax.hessian(jaccard_loss)(probs, targets)
    tangent = jnp.arange(6.0)
    product = hessian_vector_product(jaccard_loss, probs, targets, tangent)
    np.testing.assert_allclose(product, dense @ tangent, rtol=1e-4, atol=1e-5)
    spectrum = hessian_spectrum(jaccard_loss, probs.reshape(2, 3), targets.reshape(2, 3))
    np.testing.assert_allclose(spectrum, np.linalg.eigvalsh(dense), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [dice_loss, jaccard_loss])
def test_overlap_losses_curve_both_ways(loss):
    """Neither is convex: one direction of more curvature, one of less, and flat in all others."""
    probs, targets = mask_problem(jax.random.key(0), 8, margin=1.0, noise=0.5)
    spectrum = hessian_spectrum(loss, probs, targets)
    assert spectrum[0] < -1e-3
    assert spectrum[-1] > 1e-3
    np.testing.assert_allclose(spectrum[1:-1], 0, atol=1e-5)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_bilinear_sampling_passes_on_as_much_of_a_gradient_as_told(alpha, beta):
    alpha, beta = jnp.array(alpha), jnp.array(beta)
    point = 1.5 + jnp.stack([alpha, beta])

    def squared_norm(method):
        gradient = jax.grad(lambda features: sample(features, point, method=method)[0])
        return jnp.sum(gradient(jnp.zeros((4, 4, 1))) ** 2)

    ratio = squared_norm("bilinear") / squared_norm("nearest")
    np.testing.assert_allclose(bilinear_gradient_ratio(alpha, beta), ratio, rtol=1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("function", [jaccard_gradient, dice_loss_gradient])
def test_errors_name_the_argument(function):
    probs = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"targets: expected .*got \(3,\)"):
        function(probs, probs[0])
    with pytest.raises(TypeError, match=r"where: expected .*got int64"):
        function(probs, probs, where=np.ones(3, int))
