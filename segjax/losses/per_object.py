"""Terms of a loss summed over images, and numbers computed for each object."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.mapping import map_examples, map_shards, map_valid
from segjax.numerics import Average
from segjax.typing import Array


def sum_images(image_terms: Callable, batch: tuple[int, ...], *arrays: Any) -> dict[str, Average]:
    """The sum of the terms of all images, which lie on the axes `batch`."""
    images = jax.tree.map(lambda x: jax.lax.collapse(x, 0, len(batch)), arrays)
    terms = map_shards(functools.partial(map_examples, image_terms), *images)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), terms)


# Objects that a CPU processes at a time, with their values of a pixel adjacent in memory.
_CHUNK = 8


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def map_objects(
    function: Callable, logits: Array, valid: Array, masks: Array, others: Any
) -> tuple[jax.Array, ...]:
    """`function(logits, masks, *others)`: numbers `[n]` from logits `[n, h, w]` and masks.

    A differentiated loop stores the intermediates of every iteration. To store the gradients only,
    they are computed together with the numbers.
    """
    return map_valid(lambda *arrays: function(*arrays, *others), valid, logits, masks, chunk=_CHUNK)


@map_objects.defjvp
def _(function, primals, tangents):
    """The numbers of one object do not depend on the logits of another."""
    logits, valid, masks, others = primals

    def with_gradients(logits, masks):
        numbers, pull_back = jax.vjp(lambda x: function(x, masks, *others), logits)
        ones = [
            tuple(jnp.full_like(x, i == k) for k, x in enumerate(numbers))
            for i in range(len(numbers))
        ]
        return numbers, tuple(pull_back(one)[0] for one in ones)

    numbers, gradients = map_valid(with_gradients, valid, logits, masks, chunk=_CHUNK)
    changes = (jnp.sum(gradient * tangents[0], axis=(-2, -1)) for gradient in gradients)
    return numbers, tuple(c.astype(x.dtype) for c, x in zip(changes, numbers, strict=True))
