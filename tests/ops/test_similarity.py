import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.ops import cosine_similarity, zero_shot_labels


def _random(d=5, c=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, 2, d)).astype(np.float32), rng.normal(size=(c, d)).astype(np.float32)


def test_it_is_the_cosine():
    features, text = _random()
    lengths = np.linalg.norm(features, axis=-1)[..., None] * np.linalg.norm(text, axis=-1)
    np.testing.assert_allclose(cosine_similarity(features, text), features @ text.T / lengths, 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_length_does_not_matter_even_where_its_square_is_no_number(scale, dtype):
    features, text = (x.astype(dtype) for x in _random())
    similarity = cosine_similarity(features, text)
    scaled = cosine_similarity((features * scale).astype(dtype), text)
    np.testing.assert_allclose(scaled, similarity, atol=1e-6 if dtype == jnp.float32 else 2e-2)
    gradient = jax.grad(lambda x: cosine_similarity(x, text).sum())
    unscaled = gradient(features).astype(jnp.float32)
    np.testing.assert_allclose(
        gradient((features * scale).astype(dtype)).astype(jnp.float32) * scale,
        unscaled,
        atol=1e-5 if dtype == jnp.float32 else 5e-2,
    )


def test_gradient_is_orthogonal_to_the_feature():
    features, text = _random()
    gradient = jax.grad(lambda x: cosine_similarity(x, text)[..., 0].sum())(features)
    np.testing.assert_allclose((gradient * features).sum(-1), 0, atol=1e-6)
    assert (np.abs(gradient).sum(-1) > 0.01).all()


def test_a_vector_of_length_zero_is_like_nothing_and_at_rest():
    features, text = np.zeros((1, 5), np.float32), _random()[1]
    text[1] = 0
    gradients = jax.grad(lambda *x: cosine_similarity(*x).sum(), argnums=(0, 1))(features, text)
    for leaf in (cosine_similarity(features, text), *gradients):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(("d", "c"), [(1, 2), (7, 3), (33, 9), (512, 21)])
def test_equal_texts_tie_exactly_and_the_first_wins(d, c):
    """Whatever blocks the matrix product works in."""
    features, text = _random(d, c)
    text[c // 2 :] = text[0]
    similarity = np.asarray(cosine_similarity(features, text))
    for row in range(c // 2, c):
        np.testing.assert_array_equal(similarity[..., row], similarity[..., 0])
    labels = zero_shot_labels(features, text)
    np.testing.assert_array_equal(labels, similarity.argmax(-1))
    assert labels.dtype == jnp.int32
    assert (labels < max(c // 2, 1)).all()


def test_a_feature_halfway_between_two_texts_is_of_the_first():
    halfway = jnp.array([0.0, 2.0, 2.0])
    assert zero_shot_labels(halfway, jnp.eye(3)) == 1


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    features, text = _random()
    with pytest.raises(ValueError, match=r"text: expected .*got \(5,\)"):
        cosine_similarity(features, text[0])
    with pytest.raises(ValueError, match=r"features: expected .*got \(3, 2, 4\)"):
        cosine_similarity(features[..., :4], text)
