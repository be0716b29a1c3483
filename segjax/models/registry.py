"""Models by name."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from segjax.models.u_net import unet, unet_small, unet_tiny

MODELS: dict[str, Callable[..., nn.Module]] = {
    function.__name__: function for function in (unet, unet_small, unet_tiny)
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The model of that name.

    Args:
      name: a key of `MODELS`.
      num_classes: of its logits.
      **options: attributes of its module.

    Returns:
      The Flax module.

    Raises:
      ValueError: for an unknown name or option, with those that come near.

    Example:
      >>> create("unet_tiny", 5, norm="group").norm
      'group'
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, MODELS)}")
    model = MODELS[name](num_classes)
    fields = [f for f in inspect.signature(type(model)).parameters if f not in ("parent", "name")]
    for option in options:
        if option not in fields:
            raise ValueError(f"{name} has no option {option!r}{did_you_mean(option, fields)}")
    return MODELS[name](num_classes, **options)


def did_you_mean(name: str, known) -> str:
    """The end of an error message: the known names that come near, or else all of them."""
    near = difflib.get_close_matches(name, known, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; known: {', '.join(sorted(known))}"
