"""A trained model on pictures of any size, from a run, its file, or published weights."""

import dataclasses
import json
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from segjax import cli, models
from segjax.data import Classes, DataError, read_image
from segjax.inference import Predictor
from segjax.models import MODELS, QueryOutput, SemanticOutput
from segjax.objectives import Mask2FormerObjective, PixelObjective
from segjax.pretrained import save
from segjax.registry import ENTRIES, Entry
from segjax.tasks import SemanticTask
from segjax.training import SemanticConfig, create_state
from segjax.training.build import make_model
from segjax.training.checkpoint import Checkpoints
from segjax.training.config import CONFIGS
from segjax.training.run_folder import write_config

CLASSES = Classes(("ground", "disc"), ((0, 90, 0), (200, 40, 40)), (False, True))
RED = np.array([220, 20, 20], np.uint8)


class Pixels(nn.Module):
    """A class of each pixel by its colour."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False) -> SemanticOutput:
        return SemanticOutput(nn.Dense(self.num_classes)(images))


class Queries(nn.Module):
    """The first query is what is dark, the second what is red; the first class is that of both."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False) -> QueryOutput:
        masks = jnp.moveaxis(nn.Dense(2)(images), -1, -3)
        logits = self.param("logits", nn.initializers.zeros, (2, self.num_classes + 1))
        return QueryOutput(
            jnp.broadcast_to(logits, (images.shape[0], *logits.shape)), mask_logits=masks
        )


@pytest.fixture(autouse=True)
def _models(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for model, objective in ((Pixels, PixelObjective()), (Queries, Mask2FormerObjective())):
        name = model.__name__.lower()
        monkeypatch.setitem(MODELS, name, lambda n, model=model, **options: model(n, **options))
        monkeypatch.setitem(ENTRIES, name, Entry(objective, mean=(0.5,), std=(0.25,)))


def make_run(folder, task):
    """A run that knows what is red."""
    name = "pixels" if task == "semantic" else "queries"
    config = CONFIGS[task](run=folder, model=name)
    write_config(config, CLASSES, 3)
    model, images = make_model(config, 2), np.zeros((1, 8, 8, 3), np.float32)
    state = create_state(jax.random.key(0), model, optax.sgd(1.0), images)
    params = {**state.params}
    params["Dense_0"] = {
        "kernel": jnp.array([[-9.0, 9.0], [0, 0], [0, 0]]),
        "bias": jnp.zeros(2),
    }
    if name == "queries":
        params["logits"] = jnp.array([[9.0, 0, 0], [0, 9.0, 0]])
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(dataclasses.replace(state, params=params), {})
    checkpoints.close()
    return folder


def raw(prediction):
    """The arrays that a prediction is made of."""
    fields = {"probs", "instances", "panoptic"} & vars(prediction).keys()
    return [vars(prediction)[name] for name in fields]


def picture(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[2:6, 3:9] = RED
    return image


@pytest.mark.slow
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_from_a_run_to_what_is_in_a_picture(task, tmp_path):
    predictor = Predictor.from_run(make_run(tmp_path / "run", task))
    image = picture(20, 33)
    is_red = (image == RED).all(-1)
    prediction = predictor(image)
    if task == "semantic":
        np.testing.assert_array_equal(prediction.labels, is_red)
        np.testing.assert_allclose(prediction.probs.sum(-1), 1, rtol=1e-5)
    elif task == "instance":
        (found,) = [x for x in prediction.objects if x.name == "disc"]
        assert (found.class_id, found.box) == (1, (3, 2, 9, 6))
        assert 0.9 < found.score <= 1
        np.testing.assert_array_equal(found.mask, is_red)
    else:
        (found,) = [x for x in prediction.segments if x.name == "disc"]
        assert (found.class_id, found.is_thing, found.area) == (1, True, 24)
        np.testing.assert_array_equal(prediction.map == found.number, is_red)
    # A model of single pixels sees the same of a picture on any canvas.
    larger = predictor(image, canvas=(64, 96))
    for one, other in zip(*map(jax.tree.leaves, map(raw, (larger, prediction))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    overlay = prediction.overlay()
    assert (overlay.shape, overlay.dtype) == (image.shape, np.uint8)
    assert (overlay != image).any()
    prediction.save(tmp_path / "new" / "a")
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a_overlay.png"), overlay)


def test_pictures_come_in_many_forms(tmp_path):
    predictor = Predictor.from_run(make_run(tmp_path / "run", "semantic"))
    image = picture(20, 33)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    expected = predictor(image).probs
    same = [str(tmp_path / "a.png"), tmp_path / "a.png", jnp.asarray(image)]
    batch = np.stack([image, image])
    for prediction in (*predictor(same), *predictor(batch), predictor(image / np.float32(255))):
        np.testing.assert_allclose(prediction.probs, expected, atol=1e-5)
    grey = image[..., 0]
    for form in (grey, grey[..., None]):
        whole = predictor(np.repeat(grey[..., None], 3, axis=-1))
        np.testing.assert_allclose(predictor(form).probs, whole.probs)
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1].astype(np.uint16) * 16)
    predictor.config = dataclasses.replace(predictor.config, max_value=255 * 16)
    np.testing.assert_array_equal(predictor(tmp_path / "deep.png").image, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 4), np.uint8), r"image: expected 3 channel\(s\), as .*run, step 0"),
        (np.zeros((4, 5, 3), np.int32), "image: expected uint8 or floating in 0..1, got int32"),
        (np.zeros((0, 5, 3), np.uint8), r"image: expected .h, w. or .h, w, c., got shape"),
        (np.zeros(5, np.uint8), "image: expected"),
    ],
)
def test_what_is_no_picture_is_an_error(image, message, tmp_path):
    predictor = Predictor.from_run(make_run(tmp_path / "run", "semantic"))
    with pytest.raises(ValueError, match=message):
        predictor(image)
    with pytest.raises(ValueError, match="canvas: expected at least"):
        predictor(picture(20, 33), canvas=(32, 32))
    with pytest.raises(DataError, match=r"no\.png"):
        predictor("no.png")


def test_views_and_windows_are_for_the_semantic_task(tmp_path):
    views = {"window": (16, 16), "overlap": 0.25, "scales": (1.0, 2.0), "flip": True}
    run = make_run(tmp_path / "semantic", "semantic")
    image = picture(20, 33)
    labels = Predictor.from_run(run, **views)(image).labels
    assert (labels == (image == RED).all(-1)).mean() > 0.95
    with pytest.raises(ValueError, match="window, flip: no effect but for the semantic task"):
        Predictor.from_run(make_run(tmp_path / "b", "panoptic"), window=(16, 16), flip=True)


def test_a_run_its_file_and_weights_are_read_alike(tmp_path, capsys):
    run, file = make_run(tmp_path / "run", "semantic"), tmp_path / "a.safetensors"
    assert cli.main(["convert", str(run), str(file)]) == 0
    image = picture(20, 33)
    expected = Predictor.from_run(run)(image)
    of_file = Predictor.from_run(file)
    assert of_file.classes == CLASSES
    np.testing.assert_array_equal(of_file(image).probs, expected.probs)
    weights = Predictor.from_weights(file, "pixels", classes=["earth", "circle"])
    assert weights.classes.names == ("earth", "circle")
    assert weights.config.task == "semantic"
    assert weights(image).probs.shape == expected.probs.shape

    output = tmp_path / "out"
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    options = ["--run", str(file), "--output", str(output)]
    assert cli.main(["predict", str(tmp_path / "a.png"), *options]) == 0
    labels = cv2.imread(str(output / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, expected.labels)
    with pytest.raises(ValueError, match=r"classes: expected the 2 of .*, got 3"):
        Predictor.from_weights(file, "pixels", classes=["a", "b", "c"])
    assert cli.main(["predict", str(tmp_path / "a.png"), *options, "--task", "semantic"]) == 1
    assert "no effect without --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (None, ("class 0", "class 1")),
        ({"id2label": {"1": "disc"}}, ("class 0", "disc")),
    ],
)
def test_names_of_published_classes_stand_beside_the_weights(config, names, tmp_path):
    variables = make_model(SemanticConfig(model="pixels"), 2).init(
        jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )
    save(variables, tmp_path / "model.safetensors", "pixels")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert Predictor.from_weights(source, "pixels").classes.names == names


def test_objects_of_any_model_are_asked_for_what_it_is_for(tmp_path):
    variables = make_model(SemanticConfig(model="queries"), 2).init(
        jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )
    save(variables, tmp_path / "a.safetensors", "queries")
    load = lambda **options: Predictor.from_weights(
        tmp_path / "a.safetensors", "queries", **options
    )
    assert load().config.task == "panoptic"
    assert load(task="instance").config.task == "instance"


def test_pictures_share_canvases_where_that_changes_nothing():
    rng, model = np.random.default_rng(0), models.unet(2, widths=(4, 8))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    task = SemanticTask(2)
    predictor = Predictor(task, model, variables, CLASSES, config=SemanticConfig())
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((20, 33), (64, 20), (7, 9))]
    canvases = predictor.plan_canvases(pictures, most=1)
    assert canvases == [(64, 64)] * 3
    for image, canvas in zip(pictures, canvases, strict=True):
        shared, own = predictor(image, canvas=canvas).probs, predictor(image).probs
        np.testing.assert_allclose(shared, own, atol=1e-5)

    own_sizes = [(32, 64), (64, 32), (32, 32)]
    assert predictor.plan_canvases(pictures, most=0) == own_sizes
    halved = dataclasses.replace(task, scale=0.5)
    mirrored = SemanticTask(2, flip=True)
    for of_task, of_model in ((halved, model), (mirrored, model), (task, Pixels(2))):
        other = Predictor(of_task, of_model, {}, CLASSES, config=SemanticConfig())
        assert other.plan_canvases(pictures, most=1) == own_sizes
    assert predictor.plan_canvases(["no.png"]) == [None]
