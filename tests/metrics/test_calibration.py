import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.metrics import expected_calibration_error

BINS = 4
calibration = jax.jit(functools.partial(expected_calibration_error, bins=BINS))
# Eighths: many lie between two bins.
eighths = hnp.arrays(np.int32, (3, 4, 2), elements=st.integers(0, 8))
label_maps = hnp.arrays(np.int32, (3, 4), elements=st.integers(0, 1))
masks = hnp.arrays(bool, (3, 4))


@given(eighths, label_maps, masks)
def test_is_the_sum_over_bins_of_the_paper(eighths, labels, where):
    probs = eighths / 8
    confidence, right = probs.max(-1)[where], (probs.argmax(-1) == labels)[where]
    expected = 0.0
    for m in range(BINS):
        # The paper's bins are open below; a confidence of 0 counts in the first one.
        inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
        inside |= (m == 0) & (confidence == 0)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.sum() / where.sum() * gap
    scores = calibration(jnp.asarray(probs), labels, where=where).compute()
    np.testing.assert_allclose(scores.error, expected, atol=1e-6)
    np.testing.assert_allclose(scores.share.sum(), where.any(), atol=1e-6)


def test_three_right_of_four_at_three_quarters_is_calibrated():
    probs = jnp.tile(jnp.array([0.75, 0.25]), (3, 4, 1))
    labels = jnp.tile(jnp.array([0, 0, 0, 1]), (3, 1))
    scores = calibration(probs, labels, where=jnp.ones((3, 4), bool)).compute()
    np.testing.assert_allclose(scores.error, 0, atol=1e-6)
    np.testing.assert_allclose(scores.accuracy, [0, 0, 0.75, 0])
    np.testing.assert_allclose(scores.confidence, [0, 0, 0.75, 0])


def test_certain_and_wrong_is_1():
    probs = jnp.tile(jnp.array([1.0, 0.0]), (3, 4, 1))
    where = jnp.ones((3, 4), bool)
    assert calibration(probs, jnp.ones((3, 4), int), where=where).compute().error == 1
    assert calibration(probs, jnp.zeros((3, 4), int), where=where).compute().error == 0


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    probs, labels = jnp.zeros((2, 3, 2)), jnp.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"probs: expected .*got \(2, 3, 2\)"):
        expected_calibration_error(probs, labels[:, :2])
    with pytest.raises(ValueError, match=r"bins: expected .*got 0"):
        expected_calibration_error(probs, labels, bins=0)
