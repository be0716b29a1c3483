import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, special

from segjax.losses import (
    active_boundary_loss,
    balanced_edge_cross_entropy,
    boundary_loss,
    edge_weighted_cross_entropy,
    hausdorff_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from segjax.ops import label_edges, signed_distance

hard_masks = hnp.arrays(bool, (7, 9))
soft_masks = hnp.arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32))


def _distance_to_border(mask):
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)


@given(hard_masks, hard_masks)
def test_of_all_masks_the_true_one_has_the_least_boundary_loss(target, other):
    distance = signed_distance(target)
    target_loss, other_loss = (
        boundary_loss(mask.astype(np.float32), distance).sum() for mask in (target, other)
    )
    if target.any() and not target.all() and (target != other).any():
        assert target_loss < other_loss
    else:
        assert target_loss <= other_loss


@given(soft_masks, hard_masks)
def test_the_gradient_of_the_boundary_loss_is_the_signed_distance(probs, target):
    distance = signed_distance(target)
    gradient = jax.grad(lambda probs: boundary_loss(probs, distance).sum())(probs)
    np.testing.assert_array_equal(gradient, distance)


@given(soft_masks, hard_masks, st.sampled_from([0.5, 1.0, 2.0]))
def test_hausdorff_weighs_squared_errors_by_both_distances(probs, target, alpha):
    distances = _distance_to_border(probs > 0.5), _distance_to_border(target)
    weights = sum(distance**alpha for distance in distances)
    losses = hausdorff_loss(probs, target, alpha=alpha)
    # Below the least normal number there is only 0 on the device.
    np.testing.assert_allclose(losses, (probs - target) ** 2 * weights, rtol=1e-5, atol=1e-37)
    gradient = jax.grad(lambda probs: hausdorff_loss(probs, target, alpha=alpha).sum())(probs)
    np.testing.assert_allclose(gradient, 2 * (probs - target) * weights, rtol=1e-5, atol=1e-37)


def test_a_stray_pixel_costs_more_the_farther_it_is():
    target = np.zeros((5, 20), np.float32)
    target[1:4, 1:4] = 1
    losses = []
    for column in (5, 10, 15):
        probs = target.copy()
        probs[2, column] = 0.9
        losses.append(float(hausdorff_loss(probs, target).sum()))
    assert losses == sorted(losses)
    assert losses[0] < losses[2] / 10


def test_a_void_band_between_mask_and_background_is_no_border():
    """What void pixels hold decides no distance: neither as background nor as mask."""
    where = np.array([[True, True, False, False, True, True]])
    target = np.array([[True, True, False, False, False, False]])
    probs = np.where(target, 0.75, 0.25).astype(np.float32)
    losses = hausdorff_loss(probs, target, alpha=1.0, where=where)
    np.testing.assert_allclose(losses, [[0.5, 0.375, 0, 0, 0.375, 0.5]])


@given(hard_masks, hnp.arrays(np.float32, (7, 9), elements=st.floats(-20, 20, width=32)))
def test_balanced_edges_are_a_weighted_cross_entropy(edges, logits):
    beta = (~edges).mean()
    expected = np.where(edges, beta, 1 - beta) * sigmoid_cross_entropy(
        logits, edges.astype(np.float32)
    )
    losses = balanced_edge_cross_entropy(logits, edges)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)


@given(hard_masks)
def test_edges_weigh_as_much_as_all_the_rest_picture_by_picture(edges):
    batch = np.stack([edges, ~edges])
    losses = balanced_edge_cross_entropy(np.zeros(batch.shape, np.float32), batch)
    edge_sum, rest_sum = (np.where(m, losses, 0).sum(axis=(1, 2)) for m in (batch, ~batch))
    np.testing.assert_allclose(edge_sum, rest_sum, rtol=1e-5)


def test_soft_edges_have_both_terms():
    logits, edges = np.float32([[0.3, -1.2]]), np.float32([[0.25, 0.5]])
    beta = 1 - edges.mean()
    positive, negative = (np.log(special.expit(sign * logits)) for sign in (1, -1))
    expected = -beta * edges * positive - (1 - beta) * (1 - edges) * negative
    np.testing.assert_allclose(balanced_edge_cross_entropy(logits, edges), expected, rtol=1e-5)


def test_sure_and_wrong_edges_cost_their_logit():
    losses = balanced_edge_cross_entropy(
        jnp.array([[-1e4, -1e4, 1e4, -1e4]]), jnp.array([[True, True, False, False]])
    )
    np.testing.assert_allclose(losses, [[5e3, 5e3, 5e3, 0]])


def _scene(seed=0, shape=(9, 11), num_classes=3):
    """Logits, and labels of a few smooth regions."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, num_classes)).astype(np.float32)
    fields = ndimage.gaussian_filter(rng.normal(size=(num_classes, *shape)), (0, 2, 2))
    return logits, fields.argmax(axis=0).astype(np.int32)


def test_the_weight_falls_off_with_the_distance_to_a_border():
    logits, labels = _scene()
    weights = edge_weighted_cross_entropy(logits, labels, edge_weight=4.0, sigma=2.0)
    weights /= softmax_cross_entropy(logits, labels)
    distance = ndimage.distance_transform_edt(~np.asarray(label_edges(labels)))
    np.testing.assert_allclose(weights, 1 + 4 * np.exp(-(distance**2) / 8), rtol=1e-5)


def test_a_picture_without_borders_has_the_plain_cross_entropy():
    logits, labels = _scene()
    np.testing.assert_array_equal(
        edge_weighted_cross_entropy(logits, 0 * labels, sigma=100.0),
        softmax_cross_entropy(logits, 0 * labels),
    )


def _active_boundary(logits, labels, where, border):
    """The definition, pixel by pixel, of the pixels that lie on the predicted border."""
    probs, log_probs = special.softmax(logits, axis=-1), special.log_softmax(logits, axis=-1)
    edges = np.asarray(label_edges(labels, where=where))
    distance = ndimage.distance_transform_edt(~edges)
    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    losses = np.zeros(labels.shape)
    for pixel in zip(*np.nonzero(border & where), strict=True):
        divergences, distances = np.zeros(8), np.full(8, np.inf)
        for k, step in enumerate(steps):
            j = pixel[0] + step[0], pixel[1] + step[1]
            if 0 <= j[0] < labels.shape[0] and 0 <= j[1] < labels.shape[1] and where[j]:
                divergences[k] = np.sum(probs[j] * (log_probs[j] - log_probs[pixel]))
                distances[k] = distance[j]
        if distances.min() < distance[pixel]:
            costs = -special.log_softmax(divergences)
            cost = 0.8 * costs[distances.argmin()] + 0.2 * costs.mean()
            losses[pixel] = min(distance[pixel], 2) / 2 * cost
    return losses


def test_active_boundary_is_its_definition():
    logits, labels = _scene()
    where = np.random.default_rng(1).random(labels.shape) < 0.9
    losses = active_boundary_loss(
        logits, labels, boundary_fraction=1.0, max_distance=2.0, where=where
    )
    expected = _active_boundary(logits, labels, where, np.ones(labels.shape, bool))
    assert (expected > 0).sum() > 10
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)


def _step(column, *, shape=(6, 16), height=4.0):
    """Labels that change at a column, and logits that would predict them."""
    labels = np.broadcast_to(np.arange(shape[1]) >= column, shape).astype(np.int32)
    return height * np.eye(2, dtype=np.float32)[labels], labels


# A sixteenth of the image: just the pixels before the step.
active_boundary = jax.jit(functools.partial(active_boundary_loss, boundary_fraction=1 / 16))
active_boundary_gradient = jax.jit(jax.grad(lambda x, y: active_boundary(x, y).sum()))


def test_only_pixels_at_the_predicted_border_move():
    logits, _ = _step(4)
    losses = active_boundary(logits, _step(12)[1])
    moving = np.zeros(losses.shape, bool)
    moving[:, 2:5] = True  # column 3 differs from the next one; around it lie 2 and 4
    np.testing.assert_array_equal(losses > 0, moving)


@pytest.mark.parametrize(("true", "column", "gains"), [(12, 6, 0), (2, 5, 1)])
def test_descent_moves_the_predicted_border_towards_the_true_one(true, column, gains):
    """The first pixel that has to change its class is drawn to the class on its other side."""
    logits, _ = _step(6)
    labels = _step(true)[1]
    gradient = active_boundary_gradient(logits, labels)
    assert (gradient[:, column, gains] < 0).all()
    assert (gradient[:, column, 1 - gains] > 0).all()


def test_a_border_costs_more_the_farther_it_is_from_the_true_one():
    logits, _ = _step(3)
    totals = [float(active_boundary(logits, _step(c)[1]).sum()) for c in (4, 8, 14)]
    assert totals == sorted(totals)
    assert totals[0] < totals[2] / 4


def test_detached_neighbours_change_the_gradient_and_not_the_value():
    logits, _ = _step(4)
    labels = _step(12)[1]

    def attached(logits):
        losses = active_boundary_loss(
            logits, labels, boundary_fraction=1 / 16, detach_neighbors=False
        )
        return losses.sum(), losses

    attached_gradient, losses = jax.jit(jax.grad(attached, has_aux=True))(logits)
    np.testing.assert_allclose(active_boundary(logits, labels), losses, rtol=1e-6)
    assert not active_boundary_gradient(logits, labels)[losses == 0].any()
    assert attached_gradient[losses == 0].any()


@pytest.mark.parametrize("constant", ["logits", "labels"])
def test_without_a_border_nothing_moves(constant):
    logits, labels = _step(4)
    if constant == "logits":
        logits = np.zeros_like(logits)
    else:
        labels = np.zeros_like(labels)
    assert not active_boundary(logits, labels).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: boundary_loss(x, x[1:]), r"distance: expected .*got \(8, 11, 3\)"),
        (lambda x, y: hausdorff_loss(x[..., 0], y[1:]), "targets: expected"),
        (lambda x, y: hausdorff_loss(x[..., 0], y, alpha=0.0), r"alpha: expected .*got 0.0"),
        (lambda x, y: balanced_edge_cross_entropy(x[..., 0], y[1:]), "edges: expected"),
        (lambda x, y: edge_weighted_cross_entropy(x, y[1:]), "labels: expected"),
        (lambda x, y: edge_weighted_cross_entropy(x, y, sigma=0.0), r"sigma: expected .*got 0.0"),
        (
            lambda x, y: active_boundary_loss(x, y, boundary_fraction=0.0),
            "boundary_fraction: expected",
        ),
        (
            lambda x, y: active_boundary_loss(x, y, max_distance=-1.0),
            r"max_distance: expected .*got -1.0",
        ),
        (lambda x, y: active_boundary_loss(x, y[:2]), r"labels: expected .*got \(2, 11\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(*_scene())


@pytest.mark.parametrize("loss", [edge_weighted_cross_entropy, active_boundary_loss])
@pytest.mark.usefixtures("unchecked_shapes")
def test_labels_are_integers(loss):
    logits, labels = _scene()
    with pytest.raises(TypeError, match="labels: expected integers, got float64"):
        loss(logits, labels.astype(np.float64))
