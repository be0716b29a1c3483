"""The names of Swin's weights: from each naming to our variables and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models.backbones import SwinTransformer
from segjax.pretrained.fitting import canonical, fit, nearest_table
from segjax.pretrained.keys import to_state_dict, to_variables
from segjax.pretrained.tables import swin
from segjax.pretrained.tables.maskformer import MASKFORMER_SWIN
from segjax.registry import find_entry

PREFIX = "model.pixel_level_module.encoder."
BLOCK = "encoder.layers.2.blocks.5"
# What `SwinBackbone` of transformers 5 calls it, and what others do.
NAMES = {
    f"swin.{BLOCK}.attention.q_proj.weight": (
        f"swin.{BLOCK}.attention.self.query.weight",  # a classifier, transformers 4
        f"{BLOCK}.attention.self.query.weight",  # `SwinBackbone`, transformers 4
        f"model.{BLOCK}.attention.self.query.weight",  # `MaskFormerSwinBackbone`
    ),
    f"swin.{BLOCK}.attention.o_proj.bias": (f"{BLOCK}.attention.output.dense.bias",),
    f"swin.{BLOCK}.mlp.fc2.bias": (f"{BLOCK}.output.dense.bias",),
    f"swin.{BLOCK}.attention.relative_position_bias.relative_position_bias_table": (
        f"{BLOCK}.attention.self.relative_position_bias_table",
    ),
    "swin.layernorm.weight": ("model.layernorm.weight",),
    "hidden_states_norms.stage1.bias": ("hidden_states_norms.0.bias",),
}
TABLES = [find_entry("swin_tiny").table, *find_entry("swin_tiny").namings.values()]


@pytest.fixture(scope="module")
def variables():
    model = SwinTransformer(4, (2, 1, 1, 1), head_features=4, window_size=2)
    image = jax.ShapeDtypeStruct((32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


@pytest.mark.parametrize("key", NAMES)
def test_all_of_hugging_face_s_names_are_one(key):
    assert {swin.SWIN.canonical(name) for name in (key, *NAMES[key])} == {key}
    within_maskformer = [MASKFORMER_SWIN.canonical(PREFIX + name) for name in (key, *NAMES[key])]
    assert len(set(within_maskformer)) == 1
    assert MASKFORMER_SWIN.names(within_maskformer[0])


@pytest.mark.parametrize("table", TABLES)
def test_every_naming_is_known_by_its_keys_and_gives_the_same_arrays(variables, table):
    state_dict = to_state_dict(table, variables)
    assert nearest_table(TABLES, state_dict) is table
    jax.tree.map(
        np.testing.assert_array_equal, to_variables(table, state_dict, variables), variables
    )


def test_a_classifier_lacks_the_norms_of_the_stages_alone(variables):
    state_dict = to_state_dict(swin.SWIN, variables)
    state_dict = {k: a for k, a in state_dict.items() if not k.startswith("hidden_states_norms")}
    extra = {
        "classifier.weight": np.zeros((9, 32), np.float32),
        f"swin.{BLOCK}.attention.self.relative_position_index": np.zeros((4, 4), np.int64),
    }
    fitted = fit(swin.SWIN, canonical(swin.SWIN, state_dict | extra), variables)
    assert sorted(fitted.new) == [
        f"stage{i}_norm/{leaf}" for i in range(1, 5) for leaf in ("bias", "scale")
    ]


def test_biases_follow_the_size_of_the_windows():
    ((_, resize),) = swin.RESIZED
    ramp = np.tile(np.arange(5, dtype=np.float32)[:, None, None], (1, 5, 3)).reshape(25, 3)
    larger = resize(ramp, (81, 3)).reshape(9, 9, 3)
    np.testing.assert_allclose(larger, larger[:, :1, :1] * np.ones((9, 3)), rtol=1e-5)
    assert np.all(np.diff(larger[:, 0, 0]) > 0)
    # No offset stays no offset, and opposite ones opposite.
    np.testing.assert_allclose(larger + larger[::-1], 4, rtol=1e-5)
    np.testing.assert_allclose(resize(ramp, ramp.shape), ramp, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape: expected .* heads"):
        resize(ramp, (81, 4))
