"""Labels by texts: what the words mean decides, not their order."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segjax import models, ops
from segjax.inference import Predictor
from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.pretrained import save
from segjax.registry import ENTRIES
from segjax.tasks import TextTask
from segjax.text import ClassNames, TextEmbeddings

SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
IMAGE = functools.partial(ClipImageTower, 8, 2, 2, 8, 32, 6, **SHARED)
MODEL = Clip(IMAGE, functools.partial(ClipTextTower, 8, 1, 2, 20, 7, 6, "end", **SHARED))
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(size=(2, 40, 32, 3)).astype(np.float32)
VECTORS = RANDOM.normal(size=(4, 6)).astype(np.float32)
TASK = TextTask(3, vectors=VECTORS, groups=(0, 1, 1, 2), method="clearclip")


@pytest.fixture(scope="module")
def variables():
    template = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES)
    draw = lambda leaf: RANDOM.normal(size=leaf.shape, scale=0.7).astype(np.float32)
    return jax.tree.map(draw, template)


def test_a_pixel_has_the_class_of_the_most_similar_name(variables):
    features = models.dense_clip(MODEL, variables, TASK.inputs(IMAGES), method="clearclip").features
    names = np.asarray(ops.zero_shot_labels(features, VECTORS))
    expected = np.array([0, 1, 1, 2])[names]
    probs = jax.jit(functools.partial(TASK.predict, MODEL))(variables, IMAGES)
    assert probs.shape == (2, 40, 32, 3)
    assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    # A patch has 8x8 pixels; the corner of the picture is not interpolated.
    assert_array_equal(probs.argmax(-1)[:, 0, 0], expected[:, 0, 0])
    assert_array_equal(probs.argmax(-1)[:, -1, -1], expected[:, -1, -1])


def test_names_that_are_equal_go_to_the_first(variables):
    same = dataclasses.replace(TASK, vectors=np.tile(VECTORS[:1], (4, 1)), groups=(0, 1, 2, 2))
    assert (same.predict(MODEL, variables, IMAGES).argmax(-1) == 0).all()


def test_what_no_class_is_sure_of_is_background(variables):
    probs = TASK.predict(MODEL, variables, IMAGES)
    task = dataclasses.replace(TASK, background=2, threshold=1.1)
    assert (task.predict(MODEL, variables, IMAGES).argmax(-1) == 2).all()
    task = dataclasses.replace(TASK, background=2, threshold=0.0)
    assert_allclose(task.predict(MODEL, variables, IMAGES), probs, rtol=1e-6)


def test_another_model_is_an_error(variables):
    with pytest.raises(ValueError, match="model: expected a CLIP, got UNet"):
        TASK.predict(models.unet_tiny(3), variables, IMAGES)


def test_a_predictor_labels_pictures_by_texts(variables, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "clip_small", lambda **options: MODEL, raising=False)
    monkeypatch.setitem(ENTRIES, "clip_small", ENTRIES["clip_vit_base_patch16"])
    save(variables, tmp_path / "clip.safetensors", "clip_small")
    classes = ClassNames.parse(["sky", "car, red car", "road"])
    embeddings = TextEmbeddings(classes, ("{}",), "clip_small", VECTORS)
    load = functools.partial(Predictor.from_text, tmp_path / "clip.safetensors", "clip_small")
    predictor = load(embeddings, method="clearclip", window=(32, 32))
    prediction = predictor(IMAGES[0])
    assert predictor.classes.names == ("sky", "car", "road")
    assert prediction.labels.shape == (40, 32)
    assert prediction.overlay().shape == (40, 32, 3)
    with pytest.raises(ValueError, match="embeddings: expected those of clip_small, got other's"):
        load(dataclasses.replace(embeddings, model="other"))
