"""Weights by name: out and in again, into other heads, other channels, and from backbones alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pth import tensor, write_pth

from segjax.models import MODELS, DenseClassifier, backbones
from segjax.models.backbones import BasicBlock, ResNet
from segjax.pretrained import WeightsError, load, save
from segjax.pretrained.files import read_state_dict, write_safetensors
from segjax.registry import ENTRIES

SMALL = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock)


@pytest.fixture(autouse=True)
def _small_models(monkeypatch):
    """An FCN and its backbone, small enough for a test, under torchvision's names."""
    monkeypatch.setitem(MODELS, "fcn_small", functools.partial(DenseClassifier, backbone=SMALL))
    monkeypatch.setitem(ENTRIES, "fcn_small", ENTRIES["fcn_resnet50"])
    monkeypatch.setattr(backbones, "small", SMALL, raising=False)
    monkeypatch.setitem(ENTRIES, "small", ENTRIES["resnet18"])


def draw(module, channels=3):
    """Variables of NumPy's."""
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of 4 classes with its variables, and the file of them."""
    folder = tmp_path_factory.mktemp("weights")
    variables = draw(DenseClassifier(4, SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENTRIES, "fcn_small", ENTRIES["fcn_resnet50"])
        save(variables, folder / "fcn.safetensors", "fcn_small")
    return variables, folder / "fcn.safetensors"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, published):
    """A file of the backbone as a classifier has it: without prefix, and with its own head."""
    path = tmp_path_factory.mktemp("classifier") / "resnet.safetensors"
    prefix = "backbone."
    arrays = {
        key.removeprefix(prefix): array
        for key, array in read_state_dict(published[1]).items()
        if key.startswith(prefix)
    }
    head = {"fc.weight": np.zeros((1000, 512), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    write_safetensors(arrays | head, path)
    return path


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(functools.partial(np.testing.assert_array_equal, strict=True), ours, theirs)


def test_out_and_in_again(published, caplog):
    variables, path = published
    assert_equal(load(path, "fcn_small"), variables)
    assert not caplog.records


def test_the_file_has_the_original_s_names(published):
    _, path = published
    arrays = read_state_dict(path)
    assert arrays["backbone.conv1.weight"].shape == (64, 3, 7, 7)
    assert arrays["classifier.4.weight"].shape == (4, 128, 1, 1)
    counter = arrays["backbone.layer1.0.bn1.num_batches_tracked"]
    assert (counter.dtype, counter.shape) == (np.int64, ())


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_files_of_another_precision_give_the_model_s(published, tmp_path, dtype):
    variables, path = published
    floating = lambda array: array.astype(dtype) if array.dtype == np.float32 else array
    arrays = {key: floating(array) for key, array in read_state_dict(path).items()}
    write_safetensors(arrays, tmp_path / "other.safetensors")
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), variables)
    assert_equal(load(tmp_path / "other.safetensors", "fcn_small"), expected)


def test_other_classes_and_channels_change_the_head_and_the_stem_alone(published, caplog):
    variables, path = published
    key = jax.random.key(0)
    options = {"num_classes": 2, "channels": 1, "auxiliary": False}
    loaded = load(path, "fcn_small", key=key, **options)
    assert_equal(loaded, load(path, "fcn_small", key=key, **options))
    drawn, adapted, *_ = (record.getMessage() for record in caplog.records)
    assert drawn == f"{path}: newly initialised: classifier.4.bias, classifier.4.weight"
    assert adapted == f"{path}: adapted in shape: backbone.conv1.weight"

    assert loaded["params"]["head"]["logits"]["kernel"].shape == (1, 1, 128, 2)
    assert np.std(loaded["params"]["head"]["logits"]["kernel"]) > 0
    stem = variables["params"]["backbone"]["stem_conv"]["kernel"]
    np.testing.assert_allclose(
        loaded["params"]["backbone"]["stem_conv"]["kernel"], stem.sum(2, keepdims=True), rtol=1e-6
    )
    variables = jax.tree.map(lambda array: array, variables)  # the dicts are to lose entries
    for tree in (variables, loaded):
        tree["params"]["backbone"].pop("stem_conv")
        tree["params"].pop("auxiliary_head", None)
        tree["batch_stats"].pop("auxiliary_head", None)
        tree["params"]["head"].pop("logits")
    assert_equal(loaded, variables)


def test_a_classifier_gives_its_backbone_to_a_backbone_and_to_a_model(published, classifier):
    expected = load(published[1], "fcn_small")
    alone = load(classifier, "small")
    assert_equal(alone, {kind: tree["backbone"] for kind, tree in expected.items()})
    loaded = load(classifier, "fcn_small", num_classes=5, key=jax.random.key(1))
    assert_equal(loaded["params"]["backbone"], alone["params"])
    assert_equal(loaded["batch_stats"]["backbone"], alone["batch_stats"])
    assert loaded["params"]["auxiliary_head"]["logits"]["kernel"].shape == (1, 1, 64, 5)
    with pytest.raises(
        ValueError, match=r"num_classes: expected a number, as .*resnet\.safetensors"
    ):
        load(classifier, "fcn_small")


@pytest.mark.parametrize("prefix", ["module.", "model.net.", "backbone."])
def test_what_training_put_before_all_keys_is_left_out_and_said(
    published, tmp_path, caplog, prefix
):
    variables, path = published
    arrays = {prefix + key: array for key, array in read_state_dict(path).items()}
    write_safetensors(arrays | {"n_averaged": np.array(3)}, tmp_path / "a.safetensors")
    assert_equal(load(tmp_path / "a.safetensors", "fcn_small"), variables)
    (record,) = caplog.records
    assert record.getMessage().endswith(f"removed the common prefix of all keys: {prefix!r}")


def test_a_file_of_torch_s_gives_its_weights_or_their_average(published, tmp_path):
    variables, path = published
    weights = read_state_dict(path)
    average = {f"module.{key}": tensor(array * 2) for key, array in weights.items()}
    content = {
        "model": {key: tensor(array) for key, array in weights.items()},
        "model_ema": average | {"n_averaged": tensor(np.int64(3))},
    }
    file = write_pth(tmp_path / "a.pth", content)
    assert_equal(load(file, "fcn_small"), variables)
    doubled = jax.tree.map(lambda array: array * 2, variables)
    assert_equal(load(file, "fcn_small", average=True), doubled)


def test_a_file_of_another_model_is_not_taken_for_one_without_a_head(tmp_path):
    write_safetensors({"a.weight": np.zeros(1), "b": np.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"none of its keys: 'a\.weight', 'b'"):
        load(tmp_path / "a.safetensors", "fcn_small")


def test_what_is_drawn_needs_a_key(published):
    with pytest.raises(ValueError, match=r"key: expected a random key.*classifier\.4"):
        load(published[1], "fcn_small", num_classes=2)


def test_an_error_names_the_file_and_the_model(published, classifier):
    with pytest.raises(
        WeightsError, match=r"fcn\.safetensors: not the weights of resnet18, but of fcn_small\n"
    ):
        load(published[1], "resnet18")
    with pytest.raises(WeightsError, match=r"not the weights of resnet18\n  missing:\n    layer"):
        load(classifier, "resnet18")


def test_unknown_names_and_options_are_answered_with_those_that_come_near(published, tmp_path):
    with pytest.raises(ValueError, match=r"'fcn_resnet5'.*fcn_resnet50"):
        load(published[1], "fcn_resnet5")
    with pytest.raises(ValueError, match=r"'fcn_resnet5'.*fcn_resnet50"):
        save(published[0], tmp_path / "a.safetensors", "fcn_resnet5")
    with pytest.raises(ValueError, match=r"'auxilary'.*auxiliary"):
        load(published[1], "fcn_small", auxilary=False)


def test_variables_of_another_model_are_not_saved(published, tmp_path):
    with pytest.raises(ValueError, match="not of resnet18: path: expected one that a row"):
        save(published[0], tmp_path / "a.safetensors", "resnet18")
    assert not list(tmp_path.iterdir())


def test_weights_of_several_namings_are_read_by_any_and_written_by_choice(tmp_path):
    variables = draw(backbones.mit_b0())
    path = tmp_path / "mit.safetensors"
    for naming, key in ((None, "stages.0.patch_embeddings.proj.bias"), ("authors", "norm4.bias")):
        save(variables, path, "mit_b0", naming=naming)
        assert key in read_state_dict(path)
        jax.tree.map(np.testing.assert_array_equal, load(path, "mit_b0"), variables)
    with pytest.raises(ValueError, match=r"naming of mit_b0.*'author'.*authors"):
        save(variables, path, "mit_b0", naming="author")


def test_hugging_face_s_resnets_are_torchvision_s():
    canonical = ENTRIES["resnet50"].table.canonical
    names = {
        "embedder.embedder.convolution.weight": "conv1.weight",
        "embedder.embedder.normalization.running_var": "bn1.running_var",
        "encoder.stages.2.layers.10.layer.1.convolution.weight": "layer3.10.conv2.weight",
        "encoder.stages.0.layers.0.layer.2.normalization.bias": "layer1.0.bn3.bias",
        "encoder.stages.0.layers.0.shortcut.convolution.weight": "layer1.0.downsample.0.weight",
        "encoder.stages.0.layers.0.shortcut.normalization.bias": "layer1.0.downsample.1.bias",
    }
    assert {name: canonical(f"resnet.{name}") for name in names} == names
    assert canonical("layer1.0.conv1.weight") == "layer1.0.conv1.weight"
