"""Weights under our own names: every model out and in again, onto other classes and channels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segjax.models import create
from segjax.pretrained import WeightsError, load, save
from segjax.pretrained.files import read_state_dict, write_safetensors

OWN = ["unet_patch2", "unet_tiny", "mask2former_tiny", "maskrcnn_tiny", "detr_tiny", "eomt_tiny"]


@functools.cache
def draw(name, num_classes=3, channels=3, **options):
    """Variables of NumPy's, no two arrays alike."""
    model = create(name, num_classes, **options)
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


def paths(tree):
    return {"/".join(k.key for k in path): x for path, x in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize("name", OWN)
def test_out_and_in_again(name, tmp_path, caplog):
    variables = draw(name)
    save(variables, tmp_path / "a.safetensors", name)
    assert read_state_dict(tmp_path / "a.safetensors").keys() == paths(variables).keys()
    loaded = load(tmp_path / "a.safetensors", name)
    jax.tree.map(functools.partial(assert_array_equal, strict=True), loaded, variables)
    assert not caplog.records


@pytest.mark.parametrize("name", OWN)
def test_other_classes_change_the_head_alone(name, tmp_path):
    save(draw(name), tmp_path / "a.safetensors", name)
    loaded = load(tmp_path / "a.safetensors", name, num_classes=4, key=jax.random.key(0))
    before, after = paths(draw(name)), paths(loaded)
    changed = {path for path in after if not np.array_equal(before[path], after[path])}
    # What depends on the classes: nothing of the body does.
    assert 1 < len(changed) < 7
    assert all(before[path].shape != after[path].shape for path in changed)


def test_other_channels_adapt_the_first_kernel_pixel_by_pixel(tmp_path):
    variables = draw("unet_patch2")
    save(variables, tmp_path / "a.safetensors", "unet_patch2")
    loaded = load(tmp_path / "a.safetensors", "unet_patch2", channels=1)
    # The sum over the three channels of each of the four pixels.
    kernel = variables["params"]["encoder_0"]["Conv_0"]["kernel"]
    expected = kernel.reshape(3, 3, 4, 3, -1).sum(3)
    np.testing.assert_allclose(loaded["params"]["encoder_0"]["Conv_0"]["kernel"], expected)


def test_published_models_have_our_names_by_choice_or_where_their_options_have_no_other(tmp_path):
    variables = draw("segformer_b0")
    save(variables, tmp_path / "a.safetensors", "segformer_b0", naming="segjax")
    assert read_state_dict(tmp_path / "a.safetensors").keys() == paths(variables).keys()
    loaded = load(tmp_path / "a.safetensors", "segformer_b0")
    jax.tree.map(assert_array_equal, loaded, variables)


def test_what_the_file_lacks_or_is_not_of_is_said(tmp_path):
    path = tmp_path / "a.safetensors"
    save(draw("unet_tiny"), path, "unet_tiny")
    with pytest.raises(WeightsError, match=r"not the weights of detr_tiny, but of unet_tiny\n"):
        load(path, "detr_tiny", num_classes=3)
    arrays = read_state_dict(path)
    arrays["params/logitz/bias"] = arrays.pop("params/logits/bias")
    write_safetensors(arrays, path)
    with pytest.raises(WeightsError, match=r"params/logits/bias \(3,\): is it params/logitz/bias"):
        load(path, "unet_tiny")
    write_safetensors({"inc.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(WeightsError, match="expected a run of unet_tiny or its file"):
        load(path, "unet_tiny")
