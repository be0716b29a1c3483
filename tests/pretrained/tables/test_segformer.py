"""SegFormer's weights by its authors' names, which join keys and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import SegFormer
from segjax.models.backbones import MixTransformer
from segjax.pretrained.fitting import canonical, count_classes, fit, nearest_table
from segjax.pretrained.keys import map_paths, to_state_dict
from segjax.pretrained.tables import segformer


@pytest.fixture(scope="module")
def variables():
    backbone = functools.partial(MixTransformer, (8, 16, 40, 64), (1, 1, 1, 2))
    model = SegFormer(3, backbone, features=8)
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)


def test_written_and_read(variables):
    theirs = to_state_dict(segformer.SEGFORMER_AUTHORS, variables)
    other = to_state_dict(segformer.SEGFORMER, variables)
    parts = [other[f"segformer.stages.3.blocks.1.attention.{x}_proj.weight"] for x in "kv"]
    joined = theirs["backbone.block4.1.attn.kv.weight"]
    np.testing.assert_array_equal(joined, np.concatenate(parts))
    np.testing.assert_array_equal(
        theirs["decode_head.linear_c4.proj.bias"],
        other["decode_head.linear_projections.3.proj.bias"],
    )
    theirs["decode_head.conv_seg.bias"] = np.zeros(3)
    table = nearest_table((segformer.SEGFORMER, segformer.SEGFORMER_AUTHORS), theirs)
    assert table is segformer.SEGFORMER_AUTHORS
    assert count_classes(table, theirs) == 3
    fitted = fit(table, canonical(table, theirs), variables)
    assert (fitted.new, fitted.adapted) == ({}, ())
    map_paths(lambda path, a: np.testing.assert_array_equal(fitted.arrays[path], a), variables)


def test_a_backbone_alone(variables):
    alone = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
    written = to_state_dict(segformer.MIT_AUTHORS, alone)
    written["head.weight"] = np.zeros((2, 64))
    tables = (segformer.SEGFORMER, segformer.SEGFORMER_AUTHORS)
    assert nearest_table(tables, written) is segformer.SEGFORMER_AUTHORS
    fresh = fit(tables[1], canonical(tables[1], written), variables).new
    assert fresh
    assert not [path for path in fresh if path.startswith("backbone/")]
    fitted = fit(segformer.MIT_AUTHORS, canonical(segformer.MIT_AUTHORS, written), alone)
    assert not fitted.new
