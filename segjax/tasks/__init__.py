"""Tasks: what joins a model, its objective and its metrics."""

from segjax.tasks.semantic import SemanticLoss, SemanticTask
