"""Pictures of labels, objects, predictions and training runs: NumPy and Matplotlib on the host."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.viz.curves import training_curves
    from segjax.viz.labels import colorize, overlay, side_by_side
    from segjax.viz.objects import draw_instances, draw_panoptic, truth_and_prediction
    from segjax.viz.pictures import figure_image, save_image
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
