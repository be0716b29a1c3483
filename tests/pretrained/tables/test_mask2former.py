"""Mask2Former's weights by the names of transformers 4 and 5: in, and out again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import pretrained
from segjax.models import create
from segjax.models.backbones import SwinTransformer
from segjax.pretrained.files import read_state_dict, write_safetensors
from segjax.pretrained.tables.mask2former import MASK2FORMER_RESNET, MASK2FORMER_SWIN

ENCODER = "model.pixel_level_module.encoder."
OPTIONS = {
    "backbone": functools.partial(SwinTransformer, 4, (1, 1, 1, 1), head_features=4, window_size=3),
    "num_queries": 5,
    "features": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
}
# From the names of transformers 5 to those of 4.
OLD_NAMES = (
    ("encoder.swin.", "encoder."),
    ("attention.relative_position_bias.", "attention.self."),
    ("attention.q_proj", "attention.self.query"),
    ("attention.k_proj", "attention.self.key"),
    ("attention.v_proj", "attention.self.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


@pytest.fixture(scope="module")
def variables():
    model = create("mask2former_swin_tiny", 3, **OPTIONS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def _load(path):
    return pretrained.load(path, "mask2former_swin_tiny", **OPTIONS)


def _same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_weights_survive_a_file_under_either_naming(variables, tmp_path):
    path = tmp_path / "new.safetensors"
    pretrained.save(variables, path, "mask2former_swin_tiny")
    _same(_load(path), variables)

    def old(key):
        if key.startswith(ENCODER):
            for new_name, old_name in OLD_NAMES:
                key = key.replace(new_name, old_name)
        return key

    arrays = read_state_dict(path)
    before = {old(key): array for key, array in arrays.items() if ".swin.layernorm." not in key}
    assert len(set(before) - set(arrays)) > 50
    before["criterion.empty_weight"] = np.ones(4, np.float32)
    write_safetensors(before, tmp_path / "old.safetensors")
    loaded = _load(tmp_path / "old.safetensors")
    norm = loaded["params"]["backbone"].pop("norm")
    assert (norm["scale"] == 1).all()
    assert not norm["bias"].any()
    expected = dict(variables["params"]["backbone"])
    del expected["norm"]
    _same(loaded["params"], variables["params"] | {"backbone": expected})


@pytest.mark.parametrize(
    ("key", "canonical"),
    [
        ("conv1.weight", "conv1.weight"),
        (f"{ENCODER}embedder.embedder.convolution.weight", "conv1.weight"),
        (f"{ENCODER}encoder.stages.1.layers.0.layer.2.normalization.bias", "layer2.0.bn3.bias"),
        (
            f"{ENCODER}encoder.stages.0.layers.0.shortcut.convolution.weight",
            "layer1.0.downsample.0.weight",
        ),
    ],
)
def test_a_resnet_may_have_other_names(key, canonical):
    assert MASK2FORMER_RESNET.canonical(key) == ENCODER + canonical


def test_a_swin_alone_is_known():
    key = "swin.encoder.layers.0.blocks.1.mlp.fc1.bias"
    assert MASK2FORMER_SWIN.canonical(key) == ENCODER + key
