"""Tasks: what joins a model, its objective and its metrics."""

from segjax.tasks.semantic import SemanticLoss, SemanticTask
from segjax.tasks.task import Metric, Task
