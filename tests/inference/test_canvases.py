"""What a model says of a picture on a larger canvas, beside what it says on the picture's own."""

import jax
import jax.numpy as jnp
import numpy as np

from segjax import models
from segjax.tasks import SemanticTask

SHAPE, OWN, LARGE = (90, 60), (96, 64), (128, 96)


def test_convolutions_see_the_same_except_near_the_border():
    """As far from it as the receptive field reaches, here less than 40 pixels, nothing differs."""
    model, task = models.unet(3, widths=(4, 8, 8), norm="batch"), SemanticTask(3)
    image = np.random.default_rng(0).random((9, 6, 3), np.float32).repeat(10, 0).repeat(10, 1)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *OWN, 3)))

    @jax.jit
    def predict(images):
        return task.predict(model, variables, images)[0, : SHAPE[0], : SHAPE[1]]

    def on(canvas):
        margins = [(0, new - old) for new, old in zip(canvas, SHAPE, strict=True)]
        return np.asarray(predict(np.pad(image, (*margins, (0, 0)), mode="edge")[None]))

    own, large = on(OWN), on(LARGE)
    far = np.s_[: OWN[0] - 40, : OWN[1] - 40]
    np.testing.assert_allclose(large[far], own[far], atol=1e-5)
    assert np.abs(large - own).mean() < 0.02
