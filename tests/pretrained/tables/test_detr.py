"""DETR's weights by all their names: each gives the same variables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import AttentionMaskHead, Detr
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.pretrained.fitting import canonical, count_classes, fit, nearest_table
from segjax.pretrained.keys import map_paths, to_state_dict
from segjax.pretrained.tables import detr

TABLES = (detr.DETR_PANOPTIC, detr.DETR_PANOPTIC_AUTHORS)
# Of transformers 5, and what they were in 4.
OLD_NAMES = (
    ("model.backbone.", "model.backbone.conv_encoder."),
    ("o_proj", "out_proj"),
    (".mlp.", "."),
    ("bbox_attention.q_proj", "bbox_attention.q_linear"),
    ("bbox_attention.k_proj", "bbox_attention.k_linear"),
    ("mask_head.conv1.conv", "mask_head.lay1"),
    ("mask_head.conv2.norm", "mask_head.gn2"),
    ("fpn_stages.0.fpn_adapter", "adapter1"),
    ("fpn_stages.2.refine.conv", "lay5"),
    ("fpn_stages.1.refine.norm", "gn4"),
    ("output_conv", "out_lay"),
)


@pytest.fixture(scope="module")
def variables():
    model = Detr(
        2,
        functools.partial(ResNet, (1, 1, 1, 1), BasicBlock),
        AttentionMaskHead,
        num_queries=2,
        features=16,
        hidden_features=3,
        encoder_layers=1,
        decoder_layers=2,
    )
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)


def _assert_all(fitted, variables):
    assert (fitted.new, fitted.adapted) == ({}, ())
    map_paths(lambda path, a: np.testing.assert_array_equal(fitted.arrays[path], a), variables)


@pytest.mark.parametrize("table", TABLES, ids=["transformers", "authors"])
def test_written_and_read_under_the_same_names(variables, table):
    written = to_state_dict(table, variables)
    assert nearest_table(TABLES, written) is table
    assert count_classes(table, written) == 2
    _assert_all(fit(table, canonical(table, written), variables), variables)


def test_names_of_transformers_4(variables):
    written = {}
    for key, array in to_state_dict(detr.DETR_PANOPTIC, variables).items():
        for new, old in OLD_NAMES:
            key = key.replace(new, old)
        written[key] = array
    table = nearest_table(TABLES, written)
    assert table is detr.DETR_PANOPTIC
    _assert_all(fit(table, canonical(table, written), variables), variables)


@pytest.mark.parametrize(
    ("whole", "detector"),
    [(TABLES[0], detr.DETR), (TABLES[1], detr.DETR_AUTHORS)],
    ids=["transformers", "authors"],
)
def test_a_detector_goes_into_a_panoptic_model_and_comes_out(variables, whole, detector):
    params = {name: a for name, a in variables["params"].items() if name != "mask_head"}
    alone = {**variables, "params": params}
    written = canonical(whole, to_state_dict(detector, alone))
    fresh = fit(whole, written, variables).new
    assert {path.split("/")[0] for path in fresh} == {"mask_head"}
    _assert_all(fit(detector, canonical(detector, to_state_dict(whole, variables)), alone), alone)


def test_a_resnet_alone_and_that_of_transformers(variables):
    alone = {
        key.removeprefix("detr.model.backbone.model."): array
        for key, array in to_state_dict(detr.DETR_PANOPTIC, variables).items()
        if ".backbone." in key
    }
    alone["fc.weight"] = np.zeros((2, 2), np.float32)
    alone["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    table = nearest_table(TABLES, alone)
    fresh = fit(table, canonical(table, alone), variables).new
    assert fresh
    assert not [path for path in fresh if path.startswith("backbone/")]
    layer = "encoder.stages.1.layers.0.layer.1.convolution.weight"
    key = f"detr.model.backbone.conv_encoder.model.{layer}"
    expected = "detr.model.backbone.model.layer2.0.conv2.weight"
    assert detr.DETR_PANOPTIC.canonical(key) == expected
