"""Tasks: what joins a model, its objective and its metrics."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.tasks.instance import InstanceTask
    from segjax.tasks.loss_weights import SemanticLoss, SetLoss
    from segjax.tasks.panoptic import PanopticTask
    from segjax.tasks.queries import QueryTask
    from segjax.tasks.semantic import SemanticMetric, SemanticTask
    from segjax.tasks.task import Metric, Task
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
