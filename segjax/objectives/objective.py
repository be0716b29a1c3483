"""The interface of training objectives."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax

from segjax.numerics import Average
from segjax.typing import Record


@runtime_checkable
class Objective(Protocol):
    """A training objective: a frozen dataclass whose fields are the weights of its loss terms.

    Attributes:
      tasks: Names of the tasks that it can be used for: "semantic", "instance", "panoptic".
    """

    tasks: ClassVar[tuple[str, ...]]

    def __call__(
        self, outputs: Any, targets: Any, record: Record, key: jax.Array | None = None
    ) -> dict[str, Average]:
        """Computes the weighted loss terms.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          targets: Targets of the task: labels `[b, h, w]`, or padded objects `[b, n]`.
          record: Batch, of which an objective reads `where`, `valid`, `size` and `index`.
          key: Random key, the same on all devices. The key of an example is derived from it and the
            example's `index`.

        Returns:
          Averages by name. The loss is the sum of their values. Over devices, totals and weights
          are summed before they are divided. The weights have no gradient.
        """
