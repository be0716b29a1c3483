"""Semantic segmentation by texts: each pixel has the class whose name is most similar."""

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
    """Predictions and metrics of a CLIP that labels pixels by texts, without training.

    The logit of a name at a patch is `logit_scale · cos(feature, text)`; the names of a class
    become one score, and the scores are interpolated to the pixels. Predictions may be means over
    windows and over several views of a picture, as in `SemanticTask`.

    Attributes:
      num_classes: Number of classes.
      objective: Not used: nothing is trained.
      scale: Factor by which images are resized before the model; probabilities are resized back.
      mean: Mean of images in 0..1 by channel; it is subtracted before the model.
      std: Standard deviation likewise, by which what is left is divided.
      needs: What the model takes beside images: nothing.
      window: (height, width) in pixels of the windows that slide over larger pictures.
      overlap: Share of a window's sides that it has in common with the next.
      scales: Predictions are the mean over the picture resized by each of these factors.
      flip: Predictions are the mean over the picture and its mirror image.
      vectors: `[n, d]`, the embedding of each name.
      groups: Class of each name, as in `ClassNames.groups`.
      method: How the last block is changed so that patches stay local, as in `models.dense_clip`.
      merge: How the scores of a class's names become one, as in `text.merge_names`.
      logit_scale: Factor of the cosines.
      background: Class of the pixels of which no class is sure; None where all have another.
      threshold: Largest probability below which a pixel is of the background, in 0..1.
    """

    vectors: Float[np.ndarray, "n d"] = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    groups: tuple[int, ...] = ()
    method: DenseMethod = "sclip"
    merge: Merge = "max_probability"
    logit_scale: float = 40.0
    background: int | None = None
    threshold: float = 0.0

    def canvas_invariant(self, model: nn.Module) -> bool:
        """False: every patch of the canvas is attended to."""
        return False

    def outputs(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None
    ) -> SemanticOutput:
        """Logits of the classes at each patch, with arguments as in `Task.predict`."""
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
