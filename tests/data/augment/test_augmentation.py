import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.augment import Augmentation, copy_paste, cutout
from segjax.typing import Panoptic, Record

RNG = np.random.default_rng(0)
RECORD = Record(
    image=RNG.integers(0, 256, (16, 20, 3), np.uint8),
    labels=RNG.integers(0, 5, (16, 20), np.int32),
    where=RNG.random((16, 20)) < 0.9,
    tags=np.ones(5, bool),
)
FLOATING = RECORD.replace(image=RECORD.image.astype(np.float32) / 255)
OFF = Augmentation(
    zoom=(1.0, 1.0), flip=False, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
)
KEYS = jax.random.split(jax.random.key(0), 32)


@functools.partial(jax.jit, static_argnums=0, static_argnames="shape")
def augment(augmentation, record=RECORD, shape=(16, 20)):
    return jax.vmap(lambda key: augmentation(key, record, shape=shape))(KEYS)


def test_all_off_is_the_example_as_it_was():
    after = augment(OFF, FLOATING)
    for one in (jax.tree.map(lambda a, i=i: a[i], after) for i in range(3)):
        np.testing.assert_array_equal(one.image, FLOATING.image)
        np.testing.assert_array_equal(one.labels, RECORD.labels)
        np.testing.assert_array_equal(one.where, RECORD.where)
        np.testing.assert_array_equal(one.tags, RECORD.tags)
        np.testing.assert_array_equal(one.size, (16, 20))


@pytest.mark.parametrize(
    "option",
    [
        {"zoom": (0.5, 1.5)},
        {"zoom": (0.5, 1.5), "zoom_from": "fit"},
        {"rotation": 30.0},
        {"flip": True},
        {"brightness": 0.3},
        {"contrast": 0.3},
        {"saturation": 0.3},
        {"hue": 0.2},
        {"blur": 1.0},
        {"cutout": 0.2},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_does_something_and_differs_by_key(option):
    still, after = augment(OFF, FLOATING), augment(dataclasses.replace(OFF, **option), FLOATING)
    assert np.any(after.image != still.image)
    assert np.any(after.image[0] != after.image[1:])
    moves = {"zoom", "rotation", "flip"} & option.keys()
    assert bool(moves) == np.any(after.labels != still.labels)


def test_all_on_gives_an_image_of_the_shape_asked_for():
    after = augment(Augmentation(rotation=10.0, blur=1.0, cutout=0.1), shape=(12, 8))
    assert after.image.shape == (32, 12, 8, 3)
    assert after.image.dtype == jnp.float32
    assert after.labels.shape == after.where.shape == (32, 12, 8)
    assert np.all((after.image >= 0) & (after.image <= 1))
    np.testing.assert_array_equal(after.size, np.tile((12, 8), (32, 1)))


def test_uint8_and_floating_images_are_augmented_alike():
    a, b = augment(Augmentation()), augment(Augmentation(), FLOATING)
    np.testing.assert_allclose(a.image, b.image, atol=1e-5)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_a_batch_is_what_its_examples_are():
    batch = augment(Augmentation())
    single = jax.jit(lambda key: Augmentation()(key, RECORD, shape=(16, 20)))
    for i, key in enumerate(KEYS[:2]):
        once, twice = single(key), single(key)
        jax.tree.map(np.testing.assert_array_equal, once, twice)
        np.testing.assert_allclose(once.image, batch.image[i], atol=1e-4)
        assert np.mean(once.labels == batch.labels[i]) > 0.99


def test_objects_are_pasted_only_if_asked_for():
    panoptic = Panoptic(RECORD.labels, np.arange(5, dtype=np.int32) % 2, np.arange(5) < 3)
    batch = jax.tree.map(
        lambda a: np.stack([a, a[::-1]]), Record(FLOATING.image, panoptic=panoptic)
    )
    assert OFF.mix(KEYS[:2], batch) is batch
    mixed = dataclasses.replace(OFF, copy_paste=0.7).mix(KEYS[:2], batch, things=(False, True))
    expected = copy_paste(KEYS[:2], batch, things=(False, True), probability=0.7)
    jax.tree.map(np.testing.assert_array_equal, mixed, expected)


def test_cutout_hides_a_rectangle_and_nothing_else():
    mean = FLOATING.image.mean(axis=(0, 1))
    covered = np.zeros((16, 20), bool)
    hide = jax.jit(functools.partial(cutout, fraction=0.25))
    for key in KEYS:
        after = hide(key, FLOATING)
        hole = np.asarray(after.image != FLOATING.image).any(axis=-1)
        rows, cols = np.nonzero(hole.any(axis=1))[0], np.nonzero(hole.any(axis=0))[0]
        assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == (8, 10)
        assert hole.sum() == 8 * 10
        np.testing.assert_allclose(after.image[hole], np.broadcast_to(mean, (80, 3)), rtol=1e-5)
        np.testing.assert_array_equal(after.where, RECORD.where & ~hole)
        covered |= hole
    assert covered.mean() > 0.95  # it may lie anywhere


def test_cutout_of_nothing_and_of_everything():
    none = cutout(KEYS[0], FLOATING.replace(where=None), fraction=0.0)
    np.testing.assert_array_equal(none.image, FLOATING.image)
    assert np.all(none.where)
    assert not np.any(cutout(KEYS[0], FLOATING, fraction=1.0).where)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="fraction"):
        cutout(KEYS[0], FLOATING, fraction=1.5)
    with pytest.raises(ValueError, match="image"):
        cutout(KEYS[0], Record())
