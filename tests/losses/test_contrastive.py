import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses import pixel_text_cross_entropy


def _random(seed=0):
    rng = np.random.default_rng(seed)
    features, text = rng.normal(size=(3, 2, 5)), rng.normal(size=(4, 5))
    return features.astype(np.float32), text.astype(np.float32), rng.integers(4, size=(3, 2))


def test_it_is_minus_the_log_of_the_share_that_the_label_has():
    features, text, labels = _random()
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (features, text)]
    scores = np.exp(unit[0] @ unit[1].T / 0.2)
    share = np.take_along_axis(scores, labels[..., None], -1)[..., 0] / scores.sum(-1)
    losses = pixel_text_cross_entropy(features, text, labels, temperature=0.2)
    np.testing.assert_allclose(losses, -np.log(share), rtol=1e-4)


def test_temperature_can_be_learned():
    """Cold is right where the label's text is the nearest, warm where it is not."""
    text = jnp.eye(2)
    slope = jax.grad(
        lambda temperature, label: pixel_text_cross_entropy(
            text[0], text, label, temperature=temperature
        )
    )
    assert slope(0.5, jnp.array(0)) > 0
    assert slope(0.5, jnp.array(1)) < 0


def test_descent_turns_features_towards_their_texts():
    features, text, labels = _random()
    objective = lambda x: pixel_text_cross_entropy(x, text, labels, temperature=0.1).mean()
    step = jax.jit(lambda x: x - jax.grad(objective)(x))
    trained = features
    for _ in range(50):
        trained = step(trained)
    assert objective(trained) < 0.1 * objective(features)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument():
    features, text, labels = _random()
    with pytest.raises(ValueError, match=r"temperature: expected .*got 0\.0"):
        pixel_text_cross_entropy(features, text, labels, temperature=0.0)
    with pytest.raises(ValueError, match=r"labels: expected .*, got int\d+ \(\d,\)"):
        pixel_text_cross_entropy(features, text, labels[0])
    with pytest.raises(ValueError, match=r"where: expected .*got \(5,\)"):
        pixel_text_cross_entropy(features, text, labels, where=jnp.ones(5, bool))
