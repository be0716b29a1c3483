"""Semantic segmentation by texts: each pixel gets the class with the most similar name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from segjax.models import Clip, SemanticOutput, dense_clip
from segjax.models.training_free import DenseMethod
from segjax.ops import cosine_similarity, resize
from segjax.tasks.inputs import scaled
from segjax.tasks.semantic import SemanticTask
from segjax.text import merge_names
from segjax.text.names import Merge
from segjax.typing import Array


@dataclasses.dataclass(frozen=True)
class TextTask(SemanticTask):
    """Predictions and metrics of semantic segmentation with a CLIP model, without training.

    The logit of a name at a patch is `logit_scale · cos(feature, text)`. The logits of all names of
    a class are merged, and the scores of the classes are interpolated to the pixels.

    Attributes:
      num_classes: Number of classes.
      objective: Not used, as there is no training.
      scale: Factor by which images are resized before the model; probabilities are resized back.
      mean: Mean of each channel of images in 0..1, subtracted from the inputs.
      std: Standard deviation of each channel, by which the inputs are divided.
      needs: Inputs of the model in addition to images: none.
      window: (height, width) in pixels of the sliding window for prediction; None predicts the
        whole image at once.
      overlap: Overlap of neighbouring windows as a share of their size, at least 0 and below 1.
      scales: Test-time augmentation: average the predictions for the image resized by these
        factors.
      flip: Test-time augmentation: average the predictions for the image and its mirror image.
      vectors: `[n, d]`, embedding of each name.
      groups: Class of each name, as in `ClassNames.groups`.
      method: Change of the last block that makes patch features local, as in `models.dense_clip`.
      merge: How the logits of a class's names are merged, as in `text.merge_names`.
      logit_scale: Factor of the cosine similarities.
      background: Class of pixels without a confident prediction; None if there is no such class.
      threshold: Pixels whose highest probability is below this value, in 0..1, are background.
    """

    vectors: Float[np.ndarray, "n d"] = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    groups: tuple[int, ...] = ()
    method: DenseMethod = "sclip"
    merge: Merge = "max_probability"
    logit_scale: float = 40.0
    background: int | None = None
    threshold: float = 0.0

    def canvas_invariant(self, model: nn.Module) -> bool:
        """False, as every patch attends to the padding."""
        return False

    def outputs(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None
    ) -> SemanticOutput:
        """Computes the logits of the classes at each patch.

        Args:
          model: CLIP model.
          variables: Variables of the model.
          images: `[b, h, w, c]`, uint8 or floating in 0..1.
          sizes: Not used.

        Returns:
          Logits `[b, rows, columns, classes]`.

        Raises:
          ValueError: If the model is not a `Clip`.
        """
        if not isinstance(model, Clip):
            raise ValueError(f"model: expected a CLIP, got {type(model).__name__}")
        inputs = self.inputs(images)
        if self.scale != 1:
            shape = scaled((images.shape[-3], images.shape[-2]), self.scale)
            inputs = resize(inputs, shape, antialias=True)
        features = dense_clip(model, variables, inputs, method=self.method).features
        logits = self.logit_scale * cosine_similarity(features, self.vectors)
        scores = merge_names(logits, self.groups, method=self.merge)
        if self.merge == "max_probability":
            scores = jnp.log(jnp.maximum(scores, jnp.finfo(scores.dtype).tiny))
        if self.background is not None:
            unsure = jax.nn.softmax(scores).max(-1, keepdims=True) < self.threshold
            is_background = jnp.arange(scores.shape[-1]) == self.background
            certain = jnp.where(is_background, 0.0, -self.logit_scale)
            scores = jnp.where(unsure, certain, scores)
        return SemanticOutput(scores)
