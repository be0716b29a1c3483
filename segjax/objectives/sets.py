"""Set prediction: queries are matched with objects, after every layer of the decoder."""

import dataclasses
import itertools
import operator
from typing import ClassVar

import jax
import jax.numpy as jnp

from segjax.models import QueryOutput
from segjax.numerics import Average
from segjax.objectives.records import example_keys, mask_pixels
from segjax.typing import Instances, Record


@dataclasses.dataclass(frozen=True)
class SetObjective:
    """Base class of set prediction objectives: loss terms after every decoder layer.

    `Σ_terms w L(last layer) + auxiliary Σ_layers Σ_terms w L(layer)`. Queries and objects are
    matched anew for each layer. The objective of a paper is a subclass with its weights and its
    `layer_terms`.

    Attributes:
      no_object: Weight of queries without an object in the classification loss.
      auxiliary: Weight of the loss terms of each earlier decoder layer.
      matches: Number of queries that each object is matched with. With more than one, an object
        gets several predictions, of which non-maximum suppression keeps one.

    References:
      Carion et al., "End-to-end object detection with transformers", 2020, sections 3.1 and A.2.
    """

    tasks: ClassVar[tuple[str, ...]] = ("instance", "panoptic")

    no_object: float = 0.1
    auxiliary: float = 1.0
    matches: int = 1

    def layer_terms(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        where: jax.Array,
        keys: jax.Array | None,
    ) -> dict[str, Average]:
        """Computes the weighted loss terms of one decoder layer.

        Args:
          outputs: Outputs of the layer.
          targets: Padded objects `[b, n]`, each repeated `matches` times.
          record: Batch.
          where: `[b, h, w]`, the pixels where masks are compared.
          keys: `[b]` random keys, one for each example; None if no key was given.

        Returns:
          Averages by name. Their weights depend on the targets alone.
        """
        raise NotImplementedError

    def __call__(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        key: jax.Array | None = None,
    ) -> dict[str, Average]:
        """Computes the weighted loss terms of all decoder layers.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          targets: Padded objects `[b, n]`, with masks `[b, n, h, w]` if the model predicts masks.
          record: Batch, of which `image`, `where`, `size`, `index` and `valid` are read.
          key: Random key, the same on all devices; needed if points are sampled.

        Returns:
          Averages by name. Terms of the earlier layers are summed and have the prefix `auxiliary/`.
        """
        where = mask_pixels(record, targets)
        if self.matches > 1:
            targets = jax.tree.map(lambda x: jnp.repeat(x, self.matches, axis=1), targets)
        layers = [
            dataclasses.replace(layer, auxiliary=(), attention=())
            for layer in (*outputs.auxiliary, outputs)
        ]

        def numbered_terms(numbered):
            number, layer = numbered
            keys = None if key is None else example_keys(jax.random.fold_in(key, number), record)
            return self.layer_terms(layer, targets, record, where, keys)

        # A loop over layers with the same outputs, so that the matching is compiled once for them.
        # In DETR only the last layer may have masks.
        by_layer: list[dict[str, Average]] = []
        for _, group in itertools.groupby(enumerate(layers), lambda x: jax.tree.structure(x[1])):
            numbers, alike = zip(*group, strict=True)
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *alike)
            looped = jax.lax.map(numbered_terms, (jnp.array(numbers), stacked))
            by_layer += [jax.tree.map(operator.itemgetter(i), looped) for i in range(len(alike))]
        *earlier, terms = by_layer
        for name in earlier[0] if earlier else ():
            # The weight is the same in each layer.
            totals = jnp.stack([layer[name].total for layer in earlier])
            total = self.auxiliary * jnp.sum(totals)
            terms[f"auxiliary/{name}"] = Average(total, earlier[0][name].weight)
        return terms
