import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from segjax.losses.weak import box_projection_loss, pairwise_affinity_loss

BOX = np.array([[1.0, 2.0, 5.0, 4.0]], np.float32)  # columns 1 to 4, rows 2 and 3


def _mask(rows, cols, shape=(6, 7)):
    mask = np.zeros((1, *shape), np.float32)
    mask[0, rows, cols] = 1
    return mask


def test_a_mask_that_fills_its_box_costs_nothing_and_so_does_its_diagonal():
    np.testing.assert_array_equal(box_projection_loss(_mask(slice(2, 4), slice(1, 5)), BOX), [0])
    np.testing.assert_array_equal(box_projection_loss(_mask([2, 2, 3, 3], [1, 2, 3, 4]), BOX), [0])


def test_projection_loss_is_two_dice_losses():
    probs = np.random.default_rng(0).uniform(size=(1, 6, 7))
    inside = _mask(slice(2, 4), slice(1, 5))
    expected = 0
    for axis in (0, 1):
        p, b = probs[0].max(axis), inside[0].max(axis)
        expected += 1 - 2 * (p * b).sum() / ((p**2).sum() + (b**2).sum())
    loss = jax.jit(box_projection_loss)(probs.astype(np.float32), BOX)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)


def test_projection_gradient_shrinks_outside_and_grows_inside():
    probs = jnp.full((1, 6, 7), 0.5)
    gradient = jax.jit(jax.grad(lambda p: box_projection_loss(p, BOX).sum()))(probs)[0]
    assert (gradient[2:4, 1:5] < 0).all()
    assert (gradient[0, 5:] > 0).all()


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_padded_box_pulls_at_nothing(level):
    objective = lambda p: box_projection_loss(p, np.zeros((1, 4), np.float32)).sum()
    gradient = jax.jit(jax.grad(objective))(jnp.full((1, 6, 7), level))
    np.testing.assert_array_equal(gradient, 0)


def test_void_pixels_cast_no_shadow():
    where = np.ones((6, 7), bool)
    where[2] = where[0, 5] = False
    probs = np.where(where, _mask(3, slice(1, 5)), np.nan)
    value, gradient = jax.value_and_grad(lambda p: box_projection_loss(p, BOX, where=where).sum())(
        probs
    )
    assert value == 0
    np.testing.assert_array_equal(gradient[0, ~where], 0)


def _affinity(logits, image, box, dilation, threshold, distance):
    """By its definition, pair by pair."""
    height, width = logits.shape
    m = special.expit(logits)
    losses = []
    inside = lambda y, x: box[1] <= y + 0.5 < box[3] and box[0] <= x + 0.5 < box[2]
    for y in range(height):
        for x in range(width):
            for dy, dx in [(0, 1), (1, -1), (1, 0), (1, 1)]:
                v, u = y + dilation * dy, x + dilation * dx
                if not (0 <= v < height and 0 <= u < width) or not (inside(y, x) or inside(v, u)):
                    continue
                if np.exp(-distance(image[y, x], image[v, u]) / 2) >= threshold:
                    p, q = m[y, x], m[v, u]
                    losses.append(-np.log(p * q + (1 - p) * (1 - q)))
    return np.mean(losses)


@pytest.mark.parametrize("dilation", [1, 2])
def test_affinity_is_the_mean_over_pairs_of_like_colour(dilation):
    """Greys, whose CIELAB distance is that of their lightness."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 6, 7)).astype(np.float32)
    grey = rng.choice([0.5, 0.51, 0.53, 0.9], size=(6, 7)).astype(np.float32)

    def lightness(value):
        return 116 * np.cbrt(((value + 0.055) / 1.055) ** 2.4) - 16

    expected = _affinity(logits[0], lightness(grey), BOX[0], dilation, 0.3, lambda a, b: abs(a - b))
    image = np.repeat(grey[..., None], 3, axis=-1)
    loss = jax.jit(functools.partial(pairwise_affinity_loss, dilation=dilation))(logits, image, BOX)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.02, 0.02, 0.02), (1.40, 0, 0)),
    ],
)
def test_colours_are_compared_in_cielab(rgb, lab):
    """Beside black: the pair counts up to the similarity that these known coordinates give."""
    image = jnp.array([[(0.0, 0.0, 0.0), tuple(map(float, rgb))]])
    logits, box = jnp.array([[[3.0, -3.0]]]), jnp.array([[0.0, 0.0, 2.0, 1.0]])
    similarity = np.exp(-np.linalg.norm(lab) / 2)
    below, above = (
        pairwise_affinity_loss(logits, image, box, dilation=1, threshold=float(similarity * factor))
        for factor in (0.98, 1.02)
    )
    assert below > 0
    assert above == 0


def test_affinity_does_not_saturate():
    """Sure and opposed: linear in the logit."""
    logits = jnp.array([[[1e4, -1e4]]])
    objective = lambda x: pairwise_affinity_loss(
        x, jnp.ones((1, 2, 3)), jnp.array([[0.0, 0.0, 2.0, 1.0]]), dilation=1
    ).sum()
    value, gradient = jax.jit(jax.value_and_grad(objective))(logits)
    np.testing.assert_allclose(value, 1e4 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(gradient).sum(), 1, rtol=1e-3)


def test_a_mask_without_pairs_costs_nothing():
    image = jnp.ones((1, 2, 3))
    for boxes, dilation in [(jnp.zeros((1, 4)), 1), (jnp.array([[0.0, 0.0, 2.0, 1.0]]), 5)]:
        loss = pairwise_affinity_loss(jnp.ones((1, 1, 2)), image, boxes, dilation=dilation)
        np.testing.assert_array_equal(loss, [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, i: box_projection_loss(p[0], BOX), r"probs: expected .*got \(6, 7\)"),
        (lambda p, i: box_projection_loss(p, BOX[0]), r"boxes: expected .*got \(4,\)"),
        (lambda p, i: pairwise_affinity_loss(p, i[1:], BOX), r"image: expected .*got \(5, 7, 3\)"),
        (lambda p, i: pairwise_affinity_loss(p, i, BOX, dilation=0), "dilation: expected"),
        (lambda p, i: pairwise_affinity_loss(p, i, BOX, threshold=2.0), "threshold: expected"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((1, 6, 7), np.float32), np.ones((6, 7, 3), np.float32))
