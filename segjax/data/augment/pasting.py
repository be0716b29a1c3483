"""Copy-paste: objects of one example are pasted into another."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Key

from segjax.data.instances import of_things, panoptic_to_instances, segment_areas
from segjax.ops.masks import masks_to_boxes
from segjax.typing import Array, Instances, Panoptic, Record

_MOVED = {"image", "labels", "where", "size", "instances", "panoptic", "index", "valid"}


def copy_paste(
    keys: Key[jax.Array, "b"],
    batch: Record,
    *,
    things: Sequence[bool] | None = None,
    probability: float = 0.5,
) -> Record:
    """Copy-paste augmentation between examples 2k and 2k + 1 of a batch.

    With P the pixels of the pasted masks, an image becomes `where(P, other, image)`, and so do its
    labels; its own masks lose P, and those that lose all of their pixels become invalid. Boxes and
    areas are computed from the masks. A pasted object takes an invalid row of the table; where none
    is left it is not pasted, so tables need spare rows. Crowds are never pasted.

    If the batch has panoptic segments, the segments of things are pasted, and instances are
    recomputed from them. Otherwise its instances are pasted.

    Args:
      keys: `[b]`, a random key for each example.
      batch: record of an even number b of examples on one canvas, already augmented, so that the
        pasted objects have moved too.
      things: by class, whether its objects may be pasted; None or empty: all may.
      probability: probability of each object to be pasted, in 0..1.

    Returns:
      The batch, with those labels that can be pasted: maps, instances and segments.

    Raises:
      ValueError: if b is odd, there are no masks of objects, or `probability` is out of 0..1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from segjax import data
      >>> from segjax.typing import Panoptic
      >>> from segjax.typing import Record
      >>> segments = jnp.array([[[0, 0, 0]], [[0, 1, 1]]])
      >>> table = jnp.array([[0, 0], [0, 1]]), jnp.array([[True, False], [True, True]])
      >>> batch = Record(image=jnp.zeros((2, 1, 3, 3)), panoptic=Panoptic(segments, *table))
      >>> keys = jax.random.split(jax.random.key(0))
      >>> pasted = data.copy_paste(keys, batch, things=(False, True), probability=1.0)
      >>> pasted.panoptic.segments[0]
      Array([[0, 1, 1]], dtype=int32)

    References:
      Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance
      segmentation", 2021, section 3.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability: expected 0 to 1, got {probability}")
    if (b := batch.require("image").shape[0]) % 2:
        raise ValueError(f"batch: expected an even number of examples, got {b}")
    if batch.panoptic is None and batch.require("instances").masks is None:
        raise ValueError("batch.instances.masks: expected masks, got None")
    batch = batch.replace(
        **{f.name: None for f in dataclasses.fields(batch) if f.name not in _MOVED}
    )
    return _paste_pairs(keys, batch, things=tuple(things or ()), probability=probability)


@functools.partial(jax.jit, static_argnames="things")
def _paste_pairs(
    keys: jax.Array, batch: Record, *, things: tuple[bool, ...], probability: Any
) -> Record:
    others = jax.tree.map(_swap_pairs, batch)
    paste = functools.partial(_paste, things=things, probability=probability)
    return jax.vmap(paste)(keys, batch, others)


def _swap_pairs(x: jax.Array) -> jax.Array:
    """Swaps examples 2k and 2k + 1, which lie on one device however the batch is sharded."""
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _paste(
    key: jax.Array, record: Record, other: Record, *, things: tuple[bool, ...], probability: Any
) -> Record:
    instances, panoptic = record.instances, record.panoptic
    if panoptic is not None:
        theirs = other.require("panoptic")
        rows = _draw_rows(key, panoptic, theirs, things, probability)
        panoptic, pasted = _paste_segments(panoptic, theirs, rows)
        if instances is not None:
            instances = panoptic_to_instances(
                panoptic, things=things, max_instances=instances.valid.shape[-1]
            )
    else:
        ours, theirs = record.require("instances"), other.require("instances")
        rows = _draw_rows(key, ours, theirs, things, probability)
        instances, pasted = _paste_instances(ours, theirs, rows)

    over = functools.partial(jnp.where, pasted)
    return record.replace(
        image=jnp.where(pasted[..., None], other.require("image"), record.require("image")),
        labels=jax.tree.map(over, other.labels, record.labels),
        where=jax.tree.map(over, other.where, record.where),
        instances=instances,
        panoptic=panoptic,
    )


def _draw_rows(
    key: jax.Array,
    ours: Instances | Panoptic,
    theirs: Instances | Panoptic,
    things: Sequence[bool],
    probability: jax.Array,
) -> Int[jax.Array, "n"]:
    """The invalid row of ours that each of their objects takes; n for those not pasted."""
    n = theirs.valid.shape[-1]
    chosen = theirs.valid & of_things(theirs.classes, things)
    if theirs.crowd is not None:
        chosen &= ~theirs.crowd
    chosen &= jax.random.uniform(key, (n,)) < probability
    free = jnp.nonzero(~ours.valid, size=n, fill_value=n)[0]
    return jnp.where(chosen, free[jnp.cumsum(chosen) - 1], n)


def _paste_instances(
    ours: Instances, theirs: Instances, rows: Int[jax.Array, "n"]
) -> tuple[Instances, Bool[jax.Array, "h w"]]:
    before, added = jnp.asarray(ours.masks), jnp.asarray(theirs.masks)
    pasted = jnp.any(added, axis=0, where=(rows < rows.size)[:, None, None])
    masks = _set(before & ~pasted, rows, added)
    pixels = jnp.sum(masks, axis=(1, 2), dtype=jnp.float32)
    instances = dataclasses.replace(
        ours,
        boxes=masks_to_boxes(masks),
        classes=_set(ours.classes, rows, theirs.classes),
        valid=_set(ours.valid, rows, True) & (pixels > 0),
        masks=masks,
        crowd=None if ours.crowd is None else _set(ours.crowd, rows, False),
        areas=None if ours.areas is None else pixels,
    )
    return instances, pasted


def _paste_segments(
    ours: Panoptic, theirs: Panoptic, rows: Int[jax.Array, "n"]
) -> tuple[Panoptic, Bool[jax.Array, "h w"]]:
    row = jnp.append(rows, rows.size)[theirs.segments]  # void, -1, picks the last
    pasted = row < rows.size
    segments = jnp.where(pasted, row, ours.segments).astype(jnp.int32)
    seen = segment_areas(segments, rows.size) > 0
    panoptic = dataclasses.replace(
        ours,
        segments=segments,
        classes=_set(ours.classes, rows, theirs.classes),
        valid=_set(ours.valid, rows, True) & seen,
        crowd=None if ours.crowd is None else _set(ours.crowd, rows, False),
    )
    return panoptic, pasted


def _set(table: Array, rows: Int[jax.Array, "n"], values: Array | bool) -> jax.Array:
    return jnp.asarray(table).at[rows].set(values, mode="drop")
