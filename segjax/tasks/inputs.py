"""What all tasks share: the inputs of a model, in training and in prediction."""

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
    """Base class of tasks: inputs and losses of a model. Subclasses add predictions and metrics.

    Attributes:
      num_classes: Number of classes.
      objective: Training objective.
      scale: Factor by which images are resized before the model; predictions are resized back.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs. It is repeated for
        images with more channels.
      std: Standard deviation of each channel, by which the inputs are divided. Repeated like mean.
      needs: Inputs of the model in addition to images, as in `segjax.registry.Entry`.
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
        """Creates the task for a model, with the model's objective and input statistics.

        Args:
          name: Name of the model.
          num_classes: Number of classes.
          objective: Training objective; None takes the model's default.
          **options: Other attributes of the task.

        Returns:
          The task.

        Raises:
          ValueError: If the name is unknown, or that of a backbone.
        """
        entry = find_entry(name)
        return cls(
            num_classes,
            default_objective(name) if objective is None else objective,
            **{"mean": entry.mean, "std": entry.std, "needs": entry.needs} | options,
        )

    def targets(self, record: Record) -> Any:
        """The targets of the objective: what the model should predict for a batch."""
        raise NotImplementedError

    def inputs(self, images: Array) -> Float[jax.Array, "*b h w c"]:
        """Standardizes images `[*b, h, w, c]` (uint8, or floating in 0..1) for the model."""
        return standardize(images, self.mean, self.std)

    def apply(
        self, model: nn.Module, variables: dict, record: Record, key: jax.Array, **options: Any
    ) -> Any:
        """Applies the model to a batch in training.

        Args:
          model: Flax module.
          variables: Variables of the model.
          record: Batch.
          key: Random key, the same as that of `losses`.
          **options: Options of `model.apply`, such as `mutable` and `rngs`.

        Returns:
          The result of `model.apply`.
        """
        inputs = self.inputs(record.require("image"))
        options |= self._image_sizes(inputs, record.size)
        if "targets" in self.needs:
            options |= {"targets": self.targets(record), "keys": example_keys(key, record)}
        return model.apply(variables, inputs, train=True, **options)

    def losses(
        self, outputs: Any, record: Record, key: jax.Array | None = None
    ) -> dict[str, Average]:
        """Computes the weighted loss terms of the objective.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          record: Batch.
          key: Random key, the same on all devices.

        Returns:
          Averages by name. The loss is the sum of their values.
        """
        return self.objective(outputs, self.targets(record), record, key)

    def outputs(self, model: nn.Module, variables: dict, images: Array, sizes: Array | None) -> Any:
        """Applies the model to images of any size for prediction.

        Args:
          model: Flax module.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: int `[b, 2]`, (height, width) of each image without the padding at its bottom and
            right; None if there is no padding.

        Returns:
          Outputs of the model.
        """
        inputs, canvas = self.inputs(images), (images.shape[-3], images.shape[-2])
        blind_to = sizes if self.canvas_invariant(model) else None
        if self.scale != 1:
            shape = scaled(canvas, self.scale)
            inputs = ops.resize(inputs, shape, antialias=True)
            if sizes is not None:
                sizes = -(-jnp.asarray(sizes) * jnp.array(shape) // jnp.array(canvas))
        with models.blind_beyond(blind_to, (inputs.shape[-3], inputs.shape[-2])):
            return model.apply(variables, inputs, **self._image_sizes(inputs, sizes))

    def canvas_invariant(self, model: nn.Module) -> bool:
        """Whether predictions do not depend on padding.

        Args:
          model: Flax module.

        Returns:
          Whether `models.is_canvas_invariant` holds and images are not rescaled.
        """
        return self.scale == 1 and models.is_canvas_invariant(model)

    def _image_sizes(self, inputs: Array, sizes: Array | None) -> dict[str, Any]:
        """The model's arguments that say which part of each input is not padding."""
        known: dict[str, Any] = {"sizes": sizes}
        if sizes is not None:
            known["where"] = inside(sizes, (inputs.shape[-3], inputs.shape[-2]))
        return {need: known[need] for need in self.needs if need in known}


def scaled(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Multiplies (height, width) by `scale` and rounds them to at least one pixel."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def standardize(
    images: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[jax.Array, "*b h w c"]:
    """`(image − mean) / std` per channel; mean and std are repeated if there are more channels."""
    channels = (images.shape[-1],)
    means, stds = (jnp.resize(jnp.array(x), channels) for x in (mean, std))
    return (as_float(images) - means) / stds
