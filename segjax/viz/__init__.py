"""Pictures of labels, objects, predictions and training runs: NumPy and Matplotlib on the host."""

from segjax.viz.curves import training_curves
from segjax.viz.labels import colorize, overlay, side_by_side
from segjax.viz.objects import draw_instances, draw_panoptic, truth_and_prediction
from segjax.viz.pictures import figure_image, save_image
