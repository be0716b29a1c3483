"""Vision transformers' weights by all their names: each gives the same variables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import Segmenter
from segjax.models.backbones import VisionTransformer
from segjax.models.segmenter import LinearDecoder
from segjax.pretrained.fitting import canonical, fit, nearest_table
from segjax.pretrained.keys import map_paths, to_state_dict
from segjax.pretrained.tables import vit

BACKBONE = functools.partial(VisionTransformer, 8, 2, 2, patch_size=4, image_size=8)
# Of transformers 5, and what they were in 4.
OLD_NAMES = (
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
)
OLD_VIT_NAMES = (
    ("layers.", "encoder.layer."),
    *OLD_NAMES,
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def _draw(model):
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)


@pytest.fixture(scope="module")
def plain():
    return _draw(BACKBONE())


@pytest.fixture(scope="module")
def with_registers():
    return _draw(BACKBONE(registers=2, layer_scale=1.0))


@pytest.mark.parametrize(
    ("prefix", "old_names"),
    [("", ()), ("vit.", ()), ("", OLD_VIT_NAMES), ("deit.", OLD_VIT_NAMES)],
)
def test_vit_of_transformers(plain, prefix, old_names):
    tables = (vit.VIT, vit.VIT_TRANSFORMERS)
    written = _renamed(to_state_dict(vit.VIT_TRANSFORMERS, plain), old_names, prefix)
    written["classifier.weight"] = written[f"{prefix}pooler.dense.weight"] = np.zeros((8, 8))
    assert nearest_table(tables, written) is vit.VIT_TRANSFORMERS
    fitted = fit(vit.VIT_TRANSFORMERS, canonical(vit.VIT_TRANSFORMERS, written), plain)
    _assert_all(fitted, plain)


@pytest.mark.parametrize(
    ("prefix", "old_names"), [("", OLD_NAMES), ("dinov2_with_registers.", ()), ("dinov2.", ())]
)
def test_dinov2_of_transformers(with_registers, prefix, old_names):
    tables = (vit.DINOV2, vit.DINOV2_TRANSFORMERS)
    written = _renamed(to_state_dict(vit.DINOV2_TRANSFORMERS, with_registers), old_names, prefix)
    written[f"{prefix}embeddings.mask_token"] = np.zeros((1, 8))
    assert nearest_table(tables, written) is vit.DINOV2_TRANSFORMERS
    fitted = fit(
        vit.DINOV2_TRANSFORMERS, canonical(vit.DINOV2_TRANSFORMERS, written), with_registers
    )
    _assert_all(fitted, with_registers)


def test_registers_of_timm_have_the_class_token_s_place_in_it(with_registers):
    written = to_state_dict(vit.DINOV2, with_registers)
    written["reg_token"] = written.pop("register_tokens")
    places = written["pos_embed"]
    written["pos_embed"] = places[:, 1:]
    fitted = fit(vit.DINOV2, canonical(vit.DINOV2, written), with_registers)
    assert (fitted.new, fitted.adapted) == ({}, ("pos_embed",))
    embedding = fitted.arrays["position_embedding"]
    np.testing.assert_array_equal(embedding[:, 1:], places[:, 1:])
    assert not embedding[:, 0].any()


@pytest.mark.parametrize(
    ("alone", "whole"),
    [
        (vit.VIT_TRANSFORMERS, vit.SEGMENTER_LINEAR_TRANSFORMERS),
        (vit.DINOV2_TRANSFORMERS, vit.VIT_LINEAR_TRANSFORMERS),
    ],
    ids=["vit", "dinov2"],
)
def test_a_backbone_goes_into_a_model(plain, alone, whole):
    variables = _draw(Segmenter(2, BACKBONE, LinearDecoder))
    written = to_state_dict(alone, plain)
    assert nearest_table((vit.VIT_LINEAR, whole), written) is whole
    fitted = fit(whole, canonical(whole, written), variables)
    assert fitted.new.keys() == {"decoder/head/kernel", "decoder/head/bias"}
    _assert_all(fit(whole, canonical(whole, to_state_dict(whole, variables)), variables), variables)


def _renamed(state_dict, old_names, prefix):
    renamed = {}
    for key, array in state_dict.items():
        for new, old in old_names:
            key = key.replace(new, old)
        renamed[prefix + key] = array
    return renamed


def _assert_all(fitted, variables):
    assert (fitted.new, fitted.adapted) == ({}, ())
    map_paths(lambda path, a: np.testing.assert_array_equal(fitted.arrays[path], a), variables)
