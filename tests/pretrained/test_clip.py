"""CLIP's weights in and out, by OpenAI's names and by Hugging Face's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.pretrained import WeightsError, load, save
from segjax.pretrained.files import read_state_dict, write_safetensors
from segjax.registry import ENTRIES

SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
IMAGE = functools.partial(ClipImageTower, 8, 2, 2, 4, 8, 6, **SHARED)
TEXT = functools.partial(ClipTextTower, 8, 2, 2, 20, 7, 6, "end", **SHARED)


@pytest.fixture
def variables(monkeypatch):
    """Of a small CLIP, which is a model by its name."""
    monkeypatch.setattr(models, "clip_small", functools.partial(Clip, IMAGE, TEXT), raising=False)
    monkeypatch.setitem(ENTRIES, "clip_small", ENTRIES["clip_vit_base_patch16"])
    template = jax.eval_shape(Clip(IMAGE, TEXT).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)


@pytest.mark.parametrize(
    ("naming", "key"),
    [
        (None, "vision_model.pre_layrnorm.weight"),
        ("openai", "visual.transformer.resblocks.1.attn.in_proj_weight"),
    ],
)
def test_weights_come_back_by_either_names(variables, naming, key, tmp_path):
    path = tmp_path / "clip.safetensors"
    save(variables, path, "clip_small", naming=naming)
    arrays = read_state_dict(path)
    assert key in arrays
    jax.tree.map(np.testing.assert_array_equal, load(path, "clip_small"), variables)
    # What the originals' files hold beside them, in half precision.
    extra = {"input_resolution": np.array(8), "text_model.embeddings.position_ids": np.arange(7)}
    extra = {k: v for k, v in extra.items() if ("position" in k) == (naming is None)}
    halves = {k: v.astype(np.float16) for k, v in arrays.items()}
    write_safetensors(halves | extra, path)
    loaded = load(path, "clip_small")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=4e-3), loaded, variables)


def test_a_tower_without_text_is_an_error(variables, tmp_path):
    path = tmp_path / "clip.safetensors"
    save(variables, path, "clip_small")
    arrays = {k: v for k, v in read_state_dict(path).items() if not k.startswith("text_")}
    write_safetensors(arrays, path)
    with pytest.raises(WeightsError, match="not the weights of clip_small"):
        load(path, "clip_small")
