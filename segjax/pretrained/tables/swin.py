"""Swin transformers by the names of transformers 5 and 4, by their authors' and by timm's."""

import itertools
import math
import re

import numpy as np

from segjax import ops
from segjax.pretrained.keys import KeyTable, Shape
from segjax.pretrained.tables.torchvision import inside

# `SwinBackbone` of transformers 5 has new names; `MaskFormerSwinBackbone` keeps those of 4, as the
# files on the hub do. Columns of the table below, and what encoder and stages' norms are called.
NEW, OLD = 1, 2
_PARTS = {
    NEW: ("swin", ("stage1", "stage2", "stage3", "stage4")),
    OLD: ("model", ("0", "1", "2", "3")),
}
# Of a block: ours, theirs new, and old.
_BLOCK = (
    ("norm1", "layernorm_before", "layernorm_before"),
    ("attention/query", "attention.q_proj", "attention.self.query"),
    ("attention/key", "attention.k_proj", "attention.self.key"),
    ("attention/value", "attention.v_proj", "attention.self.value"),
    (
        "attention/position_bias",
        "attention.relative_position_bias.relative_position_bias_table",
        "attention.self.relative_position_bias_table",
    ),
    ("attention/output", "attention.o_proj", "attention.output.dense"),
    ("norm2", "layernorm_after", "layernorm_after"),
    ("fc1", "mlp.fc1", "intermediate.dense"),
    ("fc2", "mlp.fc2", "output.dense"),
)


def rows(version: int) -> tuple:
    """The rows of a Swin's layers, by the names of `NEW` or of `OLD`."""
    encoder, norms = _PARTS[version]
    block = tuple((names[0], names[version]) for names in _BLOCK)

    def stage(s):
        return (
            *inside(
                f"stage{s}_block{{b}}", f"{encoder}.encoder.layers.{s - 1}.blocks.{{b}}", block
            ),
            (f"stage{s}_norm", f"hidden_states_norms.{norms[s - 1]}"),
        )

    return (
        ("embedding_conv", f"{encoder}.embeddings.patch_embeddings.projection"),
        ("embedding_norm", f"{encoder}.embeddings.norm"),
        *itertools.chain(*map(stage, range(1, 5))),
        *_mergings(f"{encoder}.encoder.layers", 0),
        ("norm", f"{encoder}.layernorm"),
    )


def _mergings(layers: str, first: int) -> tuple[tuple[str, str], ...]:
    """The rows of what merges patches; `first` is the number of the first stage that holds one."""
    return tuple(
        (f"merging{i + 1}/{layer}", f"{layers}.{first + i}.downsample.{layer}")
        for i in range(3)
        for layer in ("norm", "reduction")
    )


def renames(version: int, prefix: str = "") -> tuple[tuple[str, str], ...]:
    """From all other names of a Swin to those of `version`.

    Within a model that holds it at `prefix`; keys without that are of a Swin alone.
    """
    other = OLD if version == NEW else NEW
    encoder, norms = _PARTS[version]
    start = "^" + re.escape(prefix)
    return (
        (r"^(?=(swin|embeddings|encoder\.layers|layernorm|hidden_states_norms)\.)", prefix),
        (rf"{start}((swin|model)\.)?(?=(embeddings|encoder|layernorm)\.)", f"{prefix}{encoder}."),
        *(
            (rf"{start}hidden_states_norms\.{old}\.", f"{prefix}hidden_states_norms.{new}.")
            for old, new in zip(_PARTS[other][1], norms, strict=True)
        ),
        *(
            (rf"(\.blocks\.\d+)\.{re.escape(names[other])}(?=\.|$)", rf"\1.{names[version]}")
            for names in _BLOCK
            if names[other] != names[version]
        ),
    )


def _resize_biases(table: np.ndarray, shape: Shape) -> np.ndarray:
    """The table of position biases for windows of another size, as the paper's code does it."""
    (offsets, heads), (new_offsets, _) = table.shape, shape
    side, new_side = math.isqrt(offsets), math.isqrt(new_offsets)
    square = table.reshape(side, side, heads)
    resized = np.asarray(ops.resize(square, (new_side, new_side), method="bicubic"))
    if resized.size != math.prod(shape):
        raise ValueError(f"shape: expected {heads} heads, got {shape}")
    return resized.reshape(shape)


RESIZED = ((r".*\.relative_position_bias_table", _resize_biases),)
# What follows from the size of the windows, and a classifier.
UNUSED = (r".*\.relative_position_index", r"classifier\.(weight|bias)")
# A classifier has no norm of each stage.
OPTIONAL = (r".*hidden_states_norms\..*",)

SWIN = KeyTable(
    rows(NEW),
    renames=renames(NEW),
    unused=UNUSED,
    optional=OPTIONAL,
    counters=False,
    stem="swin.embeddings.patch_embeddings.projection.weight",
    resized=RESIZED,
)

_AUTHORS_BLOCK = (
    ("norm{i}", "norm{i}"),
    (("attention/query", "attention/key", "attention/value"), "attn.qkv"),
    ("attention/position_bias", "attn.relative_position_bias_table"),
    ("attention/output", "attn.proj"),
    ("fc{i}", "mlp.fc{i}"),
)


def _authors(first_merging: int) -> KeyTable:
    """The authors' names; timm's say that a merging begins a stage, not that it ends one."""

    def stage(s):
        return (
            *inside(f"stage{s}_block{{b}}", f"layers.{s - 1}.blocks.{{b}}", _AUTHORS_BLOCK),
            (f"stage{s}_norm", f"norm{s - 1}"),
        )

    return KeyTable(
        (
            ("embedding_conv", "patch_embed.proj"),
            ("embedding_norm", "patch_embed.norm"),
            *itertools.chain(*map(stage, range(1, 5))),
            *_mergings("layers", first_merging),
            ("norm", "norm"),
        ),
        unused=(r".*\.(relative_position_index|attn_mask)", r"head(\.fc)?\.(weight|bias)"),
        optional=(r"norm[0-3]\..*",),
        counters=False,
        stem="patch_embed.proj.weight",
        resized=RESIZED,
    )


AUTHORS = _authors(0)
TIMM = _authors(1)
