"""What the models return."""

import dataclasses

import jax
from jaxtyping import Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SemanticOutput:
    """The output of a semantic segmentation model.

    Attributes:
      logits: `[*b, h, w, classes]` (`[*b, d, h, w, classes]` for volumes); of the image's size or
        a fraction of it.
      auxiliary: logits of auxiliary heads, from the most important to the least, each of its own
        size. Under `jit` they cost nothing where nobody asks for them.
      attention: on request, the attention of each block, `[*b, heads, queries, keys]`, from the
        first to the last.
    """

    logits: Float[jax.Array, "*b h w classes"]
    auxiliary: tuple[Float[jax.Array, "*b ah aw classes"], ...] = ()
    attention: tuple[Float[jax.Array, "*b heads queries keys"], ...] = ()
