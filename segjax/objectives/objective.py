"""What every objective is: a function from outputs and a batch to terms."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax

from segjax.numerics import Average
from segjax.typing import Record


@runtime_checkable
class Objective(Protocol):
    """The terms that a model is trained on: a frozen dataclass of their weights.

    Attributes:
      tasks: Names of the tasks that it serves: "semantic", "instance", "panoptic".
    """

    tasks: ClassVar[tuple[str, ...]]

    def __call__(
        self, outputs: Any, targets: Any, record: Record, key: jax.Array | None = None
    ) -> dict[str, Average]:
        """The weighted terms by name.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          targets: What the task asks the model to find in the batch: labels `[b, h, w]`, or padded
            objects `[b, n]`.
          record: The batch: of it an objective reads `where`, `valid`, `size` and `index`.
          key: Random key, the same on all devices; the key of an example follows from its `index`.

        Returns:
          Averages by name. The loss is the sum of their values; over devices, totals and weights
          are summed before they are divided. No gradient flows through the weights.
        """
