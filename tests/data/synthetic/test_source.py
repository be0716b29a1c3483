import itertools

import jax
import numpy as np
import pytest

from segjax.data.synthetic import SceneStyle, Synthetic, scene

SHAPE, STYLE = (64, 80), SceneStyle(max_instances=6)


def test_an_example_is_drawn_from_its_index_alone():
    source = Synthetic("val", shape=SHAPE, seed=5, style=STYLE)
    sent = source.read(7)
    assert [leaf.tolist() for leaf in jax.tree.leaves(sent)] == [7]
    example = source[7]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 1), 7)
    expected = scene(key, shape=SHAPE, style=STYLE)
    np.testing.assert_array_equal(example.image, expected.image)
    np.testing.assert_array_equal(example.labels, expected.labels)
    assert example.index == 7


def test_splits_seeds_and_indices_share_no_scene():
    def draw(source, index):
        return np.asarray(source.render(source.read(index)).image)

    options = {"shape": SHAPE, "style": STYLE}
    sources = [Synthetic(split, **options) for split in ("train", "val", "test")]
    sources.append(Synthetic("train", seed=1, **options))
    # An index beyond the length is one more scene.
    images = [draw(source, index) for source in sources for index in (0, 1, len(source))]
    for a, b in itertools.combinations(images, 2):
        assert np.mean(np.abs(a - b)) > 0.02


def test_render_keeps_what_the_loader_set():
    source = Synthetic("train", shape=SHAPE, style=STYLE)
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), source.read(4), source.read(9))
    batch = batch.replace(valid=np.array([True, False]))
    drawn = jax.jit(jax.vmap(source.render))(batch)
    np.testing.assert_array_equal(drawn.index, [4, 9])
    np.testing.assert_array_equal(drawn.valid, [True, False])
    np.testing.assert_allclose(drawn.image[1], source[9].image, atol=1e-5)


def test_sizes_and_length():
    source = Synthetic("test", shape=(48, 64), length=5)
    assert len(source) == 5
    assert len(source.classes.names) == len(set(source.classes.colors))
    np.testing.assert_array_equal(source.sizes, [[48, 64]] * 5)
    assert len(Synthetic("train")) > len(Synthetic("val")) > 0
    with pytest.raises(IndexError):
        source[5]


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="validation"):
        Synthetic("validation")
