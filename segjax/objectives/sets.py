"""What objectives of a set share: each object is matched with a query, after every layer."""

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
    """The terms of the last layer of the decoder, and those of all earlier layers together.

    `Σ_terms w L(last layer) + auxiliary Σ_layers Σ_terms w L(layer)`, each layer with a matching
    of its own. A paper's objective is a subclass with its weights and its `layer_terms`.

    Attributes:
      no_object: Weight of the queries without an object within the cross-entropy.
      auxiliary: Weight of the same terms after each earlier layer of the decoder.
      matches: Queries that each object is matched with. One makes a set; with more, one-to-many,
        each object gets several predictions, of which suppression has to choose.
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
        """The weighted terms of one layer by name.

        Args:
          outputs: Outputs of the layer, without auxiliary ones.
          targets: Padded objects `[b, n]`, each as often as it is matched.
          record: The batch.
          where: `[b, h, w]`, the pixels at which masks are compared.
          keys: `[b]` random keys, one for each example; None where no key was given.

        Returns:
          Averages by name, of which the weights depend on the targets alone.
        """
        raise NotImplementedError

    def __call__(
        self,
        outputs: QueryOutput,
        targets: Instances,
        record: Record,
        key: jax.Array | None = None,
    ) -> dict[str, Average]:
        """The weighted terms by name, those of all earlier layers together.

        Args:
          outputs: Outputs of the model in training, batch axis first.
          targets: Padded objects `[b, n]`, with masks `[b, n, h, w]` if the model predicts masks.
          record: The batch: its `image`, `where`, `size`, `index` and `valid`.
          key: Random key, the same on all devices; needed where points are drawn.

        Returns:
          Averages by name; those of earlier layers have the prefix `auxiliary/`.
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

        # A loop over layers that are alike, so that the matching is compiled once for them. DETR's
        # last one alone may have masks.
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
