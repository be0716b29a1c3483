"""Semantic segmentation: classification of each pixel."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from segjax import losses, ops
from segjax.labels import valid_labels
from segjax.mapping import map_shards
from segjax.models import SemanticOutput
from segjax.numerics import Average, accumulation_dtype
from segjax.objectives.records import counted_pixels
from segjax.typing import Array, Record


@dataclasses.dataclass(frozen=True)
class PixelObjective:
    """Objective of semantic segmentation: cross-entropy, Dice and Lovász-softmax loss.

    `Σ_heads h (cross_entropy CE + dice Dice + lovasz Lovász)`, where the weight h of a head is 1
    for the logits and `auxiliary / 2ⁱ` for auxiliary head i = 0, 1, …. Most papers train with the
    cross-entropy alone: `PixelObjective(dice=0.0)`.

    Attributes:
      cross_entropy: Weight of the softmax cross-entropy, a mean over pixels.
      dice: Weight of the Dice loss, a mean over the classes present in each image.
      lovasz: Weight of the Lovász-softmax loss, a mean over images.
      auxiliary: Weight of the first auxiliary head; each further one has half the weight.
      label_smoothing: Label smoothing of the cross-entropy, in 0..1.
      class_weights: Weights of the classes in the cross-entropy, one for each class. By default all
        are 1.
      focal_gamma: Exponent of the focal loss, which replaces the cross-entropy; 0 keeps the
        cross-entropy. Not with label smoothing.

    References:
      Dice: Milletari et al., "V-Net", 2016; Lovász: Berman et al., "The Lovász-softmax loss", 2018;
      focal: Lin et al., "Focal loss for dense object detection", 2017; auxiliary heads: Zhao et
      al., "Pyramid scene parsing network", 2017.

    Example:
      >>> from segjax import objectives
      >>> import jax.numpy as jnp
      >>> from segjax.models import SemanticOutput
      >>> from segjax.typing import Record
      >>> labels = jnp.array([[[0, 1]]])
      >>> outputs = SemanticOutput(jnp.zeros((1, 1, 2, 2)))
      >>> terms = objectives.PixelObjective()(outputs, labels, Record(labels=labels))
      >>> {name: round(float(term.value), 3) for name, term in terms.items()}
      {'cross_entropy': 0.693, 'dice': 0.5}
    """

    tasks: ClassVar[tuple[str, ...]] = ("semantic",)

    cross_entropy: float = 1.0
    dice: float = 1.0
    lovasz: float = 0.0
    auxiliary: float = 0.5
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.focal_gamma and self.label_smoothing:
            raise ValueError(
                f"label_smoothing: expected 0 with focal_gamma {self.focal_gamma}, got "
                f"{self.label_smoothing}"
            )

    def __call__(
        self,
        outputs: SemanticOutput,
        targets: Array,
        record: Record,
        key: jax.Array | None = None,
    ) -> dict[str, Average]:
        """Computes the weighted loss terms.

        Args:
          outputs: Logits of the model and of its auxiliary heads, of any height and width.
          targets: Labels `[b, h, w]`; labels outside 0..classes−1 are void.
          record: Batch, of which `where` and `valid` are read.
          key: Not used.

        Returns:
          Averages `cross_entropy`, `dice` and `lovasz`, unless their weight is 0. Terms of
          auxiliary heads have the prefixes `auxiliary_1/`, `auxiliary_2/` and so on. The weights of
          the averages depend on the labels alone.
        """
        num_classes = outputs.logits.shape[-1]
        labels, where = valid_labels(targets, num_classes, where=counted_pixels(record))
        heads = [("", 1.0, outputs.logits)]
        for i, logits in enumerate(outputs.auxiliary):
            heads.append((f"auxiliary_{i + 1}/", self.auxiliary / 2**i, logits))
        terms = {}
        present = map_shards(lambda y, counts: _present(y, counts, num_classes), labels, where)
        pixel_weights = self._pixel_weights(labels, where, num_classes)
        for prefix, weight, logits in heads:
            pixel_losses, class_losses = self._losses(logits, labels, where)
            if self.cross_entropy:
                average = Average(jnp.sum(pixel_losses), jnp.sum(pixel_weights))
                terms[f"{prefix}cross_entropy"] = average * (weight * self.cross_entropy)
            if self.dice:
                # Classes that are absent from an image are left to the cross-entropy.
                average = Average.of(class_losses, where=present)
                terms[f"{prefix}dice"] = average * (weight * self.dice)
            if self.lovasz:
                full_size = ops.resize(logits, (labels.shape[-2], labels.shape[-1]))
                average = _lovasz(full_size, labels, where)
                terms[f"{prefix}lovasz"] = average * (weight * self.lovasz)
        return terms

    def _losses(
        self, logits: jax.Array, labels: jax.Array, where: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The weighted cross-entropy (or focal loss) of each pixel, and the Dice loss by class."""
        shape, num_classes = (labels.shape[-2], labels.shape[-1]), logits.shape[-1]
        is_plain = not (self.focal_gamma or self.label_smoothing)
        if is_plain and logits.shape[-3:-1] != shape:
            # Fused over blocks of rows, so that the resized logits are never stored as a whole.
            fused = losses.resized_cross_entropy_and_dice
            together = lambda x, y, where: fused(x, y, where=where)
            pixel_losses, class_losses = map_shards(together, logits, labels, where)
            return pixel_losses * self._pixel_weights(labels, where, num_classes), class_losses
        logits = ops.resize(logits, shape)
        class_weights = None if self.class_weights is None else jnp.array(self.class_weights)
        options = {"class_weights": class_weights, "where": where}
        if gamma := self.focal_gamma:
            pixel_losses = losses.softmax_focal_loss(logits, labels, gamma=gamma, **options)
        else:
            smoothing = self.label_smoothing
            pixel_losses = losses.softmax_cross_entropy(
                logits, labels, label_smoothing=smoothing, **options
            )
        one_hot = labels[..., None] == jnp.arange(num_classes)
        class_losses = losses.dice_loss(
            _probs(logits, where), one_hot, axis=(-3, -2), where=where[..., None]
        )
        return pixel_losses, class_losses

    def _pixel_weights(self, labels: Array, where: Array, num_classes: int) -> jax.Array:
        weights = jnp.array(self.class_weights or [1.0] * num_classes)
        return losses.pixel_weights(labels, weights, where=where)


def _present(labels: Array, where: Array, num_classes: int) -> jax.Array:
    """`[b, classes]`: whether an image has pixels of a class."""
    nowhere = jnp.zeros(num_classes, bool)
    return jax.vmap(lambda y, counts: nowhere.at[y].max(counts))(labels, where)


def _lovasz(logits: jax.Array, labels: jax.Array, where: jax.Array) -> Average:
    loss = jax.vmap(lambda p, y, w: losses.lovasz_softmax_loss(p, y, where=w))
    return Average.of(loss(_probs(logits, where), labels, where), where=where.any((-2, -1)))


def _probs(logits: Array, where: Array) -> jax.Array:
    logits = jnp.where(where[..., None], logits, 0)  # keeps NaNs at void pixels out of gradients
    return jax.nn.softmax(logits.astype(accumulation_dtype(logits)))
