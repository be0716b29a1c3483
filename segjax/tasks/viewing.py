"""Semantic segmentation in windows, and from several views of a picture."""

import dataclasses

import jax
import numpy as np
from flax import linen as nn

from segjax.data import as_float
from segjax.inference import average_over_views, sliding_window
from segjax.tasks.semantic import SemanticTask
from segjax.typing import Array


@dataclasses.dataclass(frozen=True)
class ViewingTask(SemanticTask):
    """A semantic task that predicts in windows, and from several views.

    Attributes:
      window: (height, width) in pixels of the windows that slide over larger pictures; None sees
        the whole picture at once.
      overlap: share of a window's sides that it has in common with the next, 0 up to below 1.
      scales: the mean over the picture resized by each of these factors.
      flip: the mean over the picture and its mirror image.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def canvas_invariant(self, model: nn.Module) -> bool:
        """As `Task.canvas_invariant`: where the picture is seen as a whole, once."""
        is_whole = self.window is None and self.scales == (1.0,) and not self.flip
        return is_whole and super().canvas_invariant(model)

    def predict(
        self, model: nn.Module, variables: dict, images: Array, sizes: Array | None = None
    ) -> jax.Array:
        """As `SemanticTask.predict`, the mean over windows and views."""

        def whole(images):
            return super(ViewingTask, self).predict(model, variables, images, sizes)

        def windowed(images):
            if self.window is None:
                return whole(images)
            height, width = np.minimum(self.window, images.shape[1:3]).tolist()
            return sliding_window(whole, images, window=(height, width), overlap=self.overlap)

        return average_over_views(windowed, as_float(images), scales=self.scales, flip=self.flip)
