"""Models by name."""

import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from segjax import models
from segjax.suggestions import unknown_name


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Creates a model by its name.

    Args:
      name: A key of `MODELS`.
      num_classes: Number of classes.
      **options: Attributes of the model's module, or options of its constructor.

    Returns:
      The Flax module.

    Raises:
      ValueError: For an unknown name or option; the message suggests similar ones.

    Example:
      >>> from segjax import models
      >>> models.create("unet_tiny", 5, norm="group").norm
      'group'
    """
    if name not in MODELS:
        raise ValueError(unknown_name("model", name, MODELS))
    constructor = MODELS[name]
    fields = inspect.signature(type(constructor(num_classes))).parameters
    accepted = fields | inspect.signature(constructor).parameters
    known = sorted(accepted.keys() - {"parent", "name", "num_classes", "options"})
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of {name}", option, known))
    return constructor(num_classes, **options)


def _is_model(name: str) -> bool:
    """Whether a public name is a function whose first parameter is the number of classes."""
    value = getattr(models, name)
    parameters = inspect.signature(value).parameters if inspect.isfunction(value) else ()
    return next(iter(parameters), None) == "num_classes"


# The functions that `segjax.models` exports: a model is listed there and nowhere else.
MODELS: dict[str, Callable[..., nn.Module]] = {
    name: getattr(models, name) for name in dir(models) if name.islower() and _is_model(name)
}
