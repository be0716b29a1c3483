import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import semantic_labels, semantic_probs

LOGITS = jax.random.normal(jax.random.key(0), (2, 4, 5, 3)) * 3


def test_probabilities_at_the_logits_own_size_are_their_softmax():
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    np.testing.assert_allclose(semantic_probs(LOGITS, (4, 5)), expected, rtol=1e-5)


def test_the_border_between_two_classes_is_where_their_logits_cross():
    # Logit differences +1 and -3 at pixel centres 0.5 and 1.5 cross a quarter of the way between.
    logits = jnp.array([[[[1.0, 0.0], [-3.0, 0.0]]]])
    labels = semantic_labels(semantic_probs(logits, (1, 64)))[0, 0]
    assert int((labels == 0).sum()) == (0.5 + 0.25) * 64 / 2


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_probabilities_are_float32_and_sum_to_1(dtype):
    probs = semantic_probs((LOGITS * 1e3).astype(dtype), (9, 7))
    assert probs.dtype == jnp.float32
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-6)


def test_labels_are_the_most_probable_class_and_ties_go_to_the_smallest():
    probs = jnp.array([[[[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]]])
    labels = semantic_labels(probs)
    assert labels.dtype == jnp.int32
    np.testing.assert_array_equal(labels, [[[1, 0, 1]]])


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"logits: expected .* got \(5, 3\)"):
        semantic_probs(LOGITS[0, 0], (2, 2))
    with pytest.raises(ValueError, match=r"probs: expected .* got \(3,\)"):
        semantic_labels(LOGITS[0, 0, 0])
