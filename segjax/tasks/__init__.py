"""Tasks: what joins a model, its objective and its metrics."""

from segjax.tasks.instance import InstanceTask
from segjax.tasks.panoptic import PanopticTask
from segjax.tasks.queries import QueryTask, SetLoss
from segjax.tasks.semantic import SemanticLoss, SemanticMetric, SemanticTask
from segjax.tasks.task import Metric, Task
