"""What all tasks share: how images go into a model, in training and in prediction."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from segjax import models, ops
from segjax.data import as_float
from segjax.models.layers import inside
from segjax.numerics import Average
from segjax.objectives import Objective
from segjax.objectives.records import example_keys
from segjax.registry import Need, default_objective, find_entry
from segjax.typing import Array, Record

AnyTask = TypeVar("AnyTask", bound="ImageTask")


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """Inputs and losses of a model; its predictions and metrics are up to the tasks.

    Attributes:
      num_classes: Number of classes of the labels.
      objective: The terms that the model is trained on.
      scale: Factor by which images are resized before the model; predictions are resized back.
      mean: Mean of images in 0..1 by channel, from the start again where there are more channels;
        it is subtracted before the model.
      std: Standard deviation likewise, by which what is left is divided.
      needs: What the model takes beside images, as its entry in `segjax.registry` says.
    """

    num_classes: int
    objective: Objective
    _: dataclasses.KW_ONLY
    scale: float = 1.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    needs: tuple[Need, ...] = ()

    @classmethod
    def for_model(
        cls: type[AnyTask],
        name: str,
        num_classes: int,
        *,
        objective: Objective | None = None,
        **options: Any,
    ) -> AnyTask:
        """The task for a model of the registry, with its objective and its input statistics.

        Args:
          name: Name of the model.
          num_classes: Number of classes of the labels.
          objective: Another objective than the model's own.
          **options: Further attributes of the task.

        Returns:
          The task.

        Raises:
          ValueError: for an unknown name, with those that come near, or a backbone.
        """
        entry = find_entry(name)
        return cls(
            num_classes,
            default_objective(name) if objective is None else objective,
            **{"mean": entry.mean, "std": entry.std, "needs": entry.needs} | options,
        )

    def targets(self, record: Record) -> Any:
        """What the model is to find in a batch."""
        raise NotImplementedError

    def inputs(self, images: Array) -> Float[jax.Array, "*b h w c"]:
        """The model's inputs, from images `[*b, h, w, c]` (uint8, or floating in 0..1)."""
        return standardize(images, self.mean, self.std)

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """The model on a batch in training, as in `Task.apply`."""
        inputs = self.inputs(record.require("image"))
        options |= self._of_pictures(inputs, record.size)
        if "targets" in self.needs:
            options |= {"targets": self.targets(record), "keys": example_keys(key, record)}
        return model.apply(variables, inputs, train=True, **options)

    def losses(
        self, outputs: Any, record: Record, key: jax.Array | None = None
    ) -> dict[str, Average]:
        """The terms of the objective, as in `Task.losses`."""
        return self.objective(outputs, self.targets(record), record, key)

    def outputs(self, model: nn.Module, variables: dict, images: Array, sizes: Array | None) -> Any:
        """The model's outputs for images of any size, with arguments as in `Task.predict`."""
        inputs, canvas = self.inputs(images), (images.shape[-3], images.shape[-2])
        blind_to = sizes if self.canvas_invariant(model) else None
        if self.scale != 1:
            shape = scaled(canvas, self.scale)
            inputs = ops.resize(inputs, shape, antialias=True)
            if sizes is not None:
                sizes = -(-jnp.asarray(sizes) * jnp.array(shape) // jnp.array(canvas))
        with models.blind_beyond(blind_to, (inputs.shape[-3], inputs.shape[-2])):
            return model.apply(variables, inputs, **self._of_pictures(inputs, sizes))

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether the model is canvas-invariant, and no picture is rescaled for it."""
        return self.scale == 1 and models.is_canvas_invariant(model)

    def _of_pictures(self, inputs: Array, sizes: Array | None) -> dict[str, Any]:
        """What the model is told of the pictures that lie on the inputs' canvases."""
        known: dict[str, Any] = {"sizes": sizes}
        if sizes is not None:
            known["where"] = inside(sizes, (inputs.shape[-3], inputs.shape[-2]))
        return {need: known[need] for need in self.needs if need in known}


def scaled(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, at least one pixel each."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def standardize(
    images: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[jax.Array, "*b h w c"]:
    """`(image − mean) / std` of images in 0..1, by channel; from the start again where more."""
    channels = (images.shape[-1],)
    means, stds = (jnp.resize(jnp.array(x), channels) for x in (mean, std))
    return (as_float(images) - means) / stds
