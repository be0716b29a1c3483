"""Losses image by image and object by object: on a CPU in loops, elsewhere all at once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.numerics import Average
from segjax.padding import of_valid
from segjax.sharding import each_shard
from segjax.typing import Array


def sum_images(image_terms: Callable, batch: tuple[int, ...], *arrays: Any) -> dict[str, Average]:
    """The sum over all images of their terms: on a CPU one image after the other."""

    def list_images(x):
        return jax.lax.collapse(x, 0, len(batch))

    def in_turn(*arrays):
        return jax.lax.map(lambda image: image_terms(*image), arrays)

    def all_terms(*arrays):
        together = jax.vmap(image_terms)
        return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=together)

    terms = each_shard(all_terms, *jax.tree.map(list_images, arrays))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), terms)


# Objects that a CPU takes at a time, their values of a pixel beside one another.
_CHUNK = 8


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def of_each_object(
    function: Callable, logits: Array, valid: Array, masks: Array, others: Any
) -> tuple[jax.Array, ...]:
    """Numbers `[n]` that `function` tells of each object's logits `[n, h, w]` and mask `[n, H, W]`.

    A loop under differentiation keeps what each of its turns went through. So the slopes of the
    numbers are taken along with them, and they are all that is kept.
    """
    return of_valid(lambda *arrays: function(*arrays, *others), valid, logits, masks, chunk=_CHUNK)


@of_each_object.defjvp
def _(function, primals, tangents):
    """A number of one object has no slope by the logits of another."""
    logits, valid, masks, others = primals

    def with_slopes(logits, masks):
        numbers, pull_back = jax.vjp(lambda x: function(x, masks, *others), logits)
        ones = [
            tuple(jnp.full_like(x, i == k) for k, x in enumerate(numbers))
            for i in range(len(numbers))
        ]
        return numbers, tuple(pull_back(one)[0] for one in ones)

    numbers, slopes = of_valid(with_slopes, valid, logits, masks, chunk=_CHUNK)
    changes = (jnp.sum(slope * tangents[0], axis=(-2, -1)) for slope in slopes)
    return numbers, tuple(c.astype(x.dtype) for c, x in zip(changes, numbers, strict=True))
