"""EoMT's weights go in and out by both namings, and to images of another size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import pretrained
from segjax.models import eomt_dinov3_small, eomt_small
from segjax.pretrained.files import read_state_dict

OPTIONS = {"features": 8, "depth": 3, "num_heads": 2, "num_queries": 4, "image_size": 64}


@pytest.fixture(scope="module")
def variables():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    template = jax.eval_shape(eomt_small(5, **OPTIONS).init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), template)


@pytest.mark.parametrize("naming", [None, "authors"])
def test_nothing_is_lost_on_the_way_out_and_in(variables, naming, tmp_path):
    path = tmp_path / "eomt.safetensors"
    pretrained.save(variables, path, "eomt_small", naming=naming)
    loaded = pretrained.load(path, "eomt_small", **OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)

    larger = pretrained.load(path, "eomt_small", **OPTIONS | {"image_size": 96})
    places = larger["params"].pop("position_embedding")
    assert places.shape == (36, 8)
    rest = {name: x for name, x in variables["params"].items() if name != "position_embedding"}
    jax.tree.map(np.testing.assert_array_equal, larger["params"], rest)


def test_the_authors_arrays_are_those_of_hugging_face(variables, tmp_path):
    """As Hugging Face's conversion has them: it splits the attention's first product."""
    for naming in (None, "authors"):
        path = tmp_path / f"{naming}.safetensors"
        pretrained.save(variables, path, "eomt_small", naming=naming)
    theirs, authors = (
        read_state_dict(tmp_path / f"{name}.safetensors") for name in (None, "authors")
    )
    block = "network.encoder.backbone.blocks.1"
    expected = np.concatenate([theirs[f"layers.1.attention.{x}_proj.weight"] for x in "qkv"])
    np.testing.assert_array_equal(authors[f"{block}.attn.qkv.weight"], expected)
    for key, other in (
        ("network.encoder.backbone.pos_embed", "embeddings.position_embeddings.weight"),
        (f"{block}.ls2.gamma", "layers.1.layer_scale2.lambda1"),
        ("network.mask_head.4.weight", "mask_head.fc3.weight"),
        ("network.upscale.1.norm.bias", "upscale_block.block.1.layernorm2d.bias"),
        ("network.attn_mask_probs", "attn_mask_probs"),
    ):
        np.testing.assert_array_equal(authors[key].squeeze(), theirs[other].squeeze())
    assert len(authors) == len(theirs) - 4 * 3  # weights and biases of q, k and v as one


def test_dinov3s_arrays_go_out_and_in(tmp_path):
    """Also to images of another size: its patches have no embeddings of places."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    template = jax.eval_shape(eomt_dinov3_small(5, **OPTIONS).init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.random(s.shape, np.float32), template)
    path = tmp_path / "eomt.safetensors"
    pretrained.save(variables, path, "eomt_dinov3_small")
    assert "layers.0.attention.k_proj.bias" not in read_state_dict(path)
    loaded = pretrained.load(path, "eomt_dinov3_small", **OPTIONS | {"image_size": 96})
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
