"""Tasks: semantic, instance and panoptic segmentation, each with predictions and metrics."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.tasks.inputs import ImageTask
    from segjax.tasks.instance import InstanceTask
    from segjax.tasks.panoptic import PanopticTask
    from segjax.tasks.semantic import SemanticMetric, SemanticTask
    from segjax.tasks.task import Metric, Task
    from segjax.tasks.text import TextTask
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
