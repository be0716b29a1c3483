"""Drawing of labels, objects, predictions and training curves, with NumPy and Matplotlib."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.viz.confusion import draw_confusion
    from segjax.viz.curves import training_curves
    from segjax.viz.labels import colorize, draw_labels, overlay
    from segjax.viz.objects import draw_instances, draw_panoptic
    from segjax.viz.pictures import save_image
    from segjax.viz.rows import Row, compare_instances, compare_labels, compare_segments, page
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
