"""Cases of `segjax.inference`."""

import jax
from arguments import Case, fraction, real

from segjax.numerics import accumulation_dtype


def _predict(images: jax.Array) -> jax.Array:
    return jax.nn.softmax(images.astype(accumulation_dtype(images)))


CASES = [
    Case("inference.semantic_probs", lambda h, w: {"logits": real(h, w, 3)}, {"shape": (2 * 4, 7)}),
    Case("inference.semantic_labels", lambda h, w: {"probs": fraction(h, w, 3)}),
    Case(
        "inference.sliding_window",
        lambda h, w: {"images": real(1, h, w, 3)},
        {"predict": _predict, "window": (2, 3)},
    ),
    Case(
        "inference.average_over_views",
        lambda h, w: {"images": real(1, h, w, 3)},
        {"predict": _predict, "scales": (1.0, 1.5)},
        rounding=1e-2,  # `predict` sees the resized images in their own dtype
    ),
]
