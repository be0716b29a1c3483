import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops
from segjax.models import (
    EoMT,
    annealed_mask_probs,
    eomt_dinov3_base,
    eomt_dinov3_large,
    eomt_dinov3_small,
    eomt_large,
    eomt_tiny,
)
from segjax.models.eomt import resize_places
from segjax.models.layers import rotary_angles, rotate

QUERIES = 5
small = functools.partial(
    EoMT,
    3,
    features=16,
    depth=3,
    num_heads=2,
    num_queries=QUERIES,
    query_blocks=2,
    image_size=48,
    registers=1,
)
IMAGES = jax.random.normal(jax.random.key(1), (2, 48, 48, 3))
DROPOUT = {"dropout": jax.random.key(2)}


def _shapes(model, *shape, **options):
    """Of the output and the variables."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.eval_shape(functools.partial(model.apply, **options), variables, images), variables


@pytest.fixture(scope="module")
def params():
    """Drawn large, and without biases, so that masks have both signs."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        if x.ndim == 1:
            return jnp.full(x.shape, float(path[-1].key == "scale"))
        return jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype)

    _, variables = _shapes(small(), *IMAGES.shape)
    return jax.tree_util.tree_map_with_path(draw, variables["params"])


def _apply(model, params, prob, **options):
    annealing = {"mask_probs": jnp.full(2, prob)}
    return model.apply({"params": params, "annealing": annealing}, IMAGES, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "size"),
    [
        (eomt_tiny, 6_254_918),
        (eomt_large, 316_695_686),
        (eomt_dinov3_small, 23_356_934),
        (eomt_dinov3_base, 92_425_094),
        (eomt_dinov3_large, 315_032_710),
    ],
)
def test_number_of_parameters(function, size):
    _, variables = _shapes(function(133), 1, 64, 64, 3)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == size


def test_shapes_of_outputs():
    output, _ = _shapes(small(return_attention=True), 65, 38, 1)
    assert output.class_logits.shape == (QUERIES, 4)
    assert output.mask_logits.shape == (QUERIES, 17, 10)
    tokens = 2 + 5 * 3
    numbers = [tokens, tokens + QUERIES, tokens + QUERIES]
    assert [x.shape for x in output.attention] == [(2, n, n) for n in numbers]
    assert output.auxiliary == ()

    trained, _ = _shapes(small(dtype=jnp.bfloat16), 2, 1, 7, 9, 3, train=True, rngs=DROPOUT)
    assert len(trained.auxiliary) == 2
    for x in (trained, *trained.auxiliary):
        assert x.mask_logits.shape == (2, 1, QUERIES, 2, 3)
        assert x.mask_logits.dtype == x.class_logits.dtype == jnp.float32


def test_queries_look_only_inside_their_masks(params):
    model = small(return_attention=True)
    output = jax.jit(functools.partial(_apply, model, train=True, rngs=DROPOUT))(params, 1.0)
    for earlier, attention in zip(output.auxiliary, output.attention[1:], strict=True):
        masks = ops.resize(jnp.moveaxis(earlier.mask_logits, 1, -1), (3, 3)) > 0
        inside = np.asarray(masks).reshape(2, 1, 9, QUERIES).swapaxes(-2, -1)
        assert 0 < inside.mean() < 1
        to_patches = np.asarray(attention)[:, :, :QUERIES, -9:]
        np.testing.assert_array_equal(to_patches > 0, np.broadcast_to(inside, to_patches.shape))
        assert (attention[:, :, :, :-9] > 0).all()
        assert (attention[:, :, QUERIES:] > 0).all()


@pytest.mark.slow
def test_annealed_away_training_is_evaluation(params):
    """Also where it recomputes activations."""
    model = small(remat=True)
    trained = jax.jit(functools.partial(_apply, model, train=True, rngs=DROPOUT))(params, 0.0)
    evaluated = jax.jit(functools.partial(_apply, small()))(params, 0.0)
    np.testing.assert_allclose(trained.mask_logits, evaluated.mask_logits, rtol=1e-4, atol=1e-4)


def test_places_of_another_grid_are_interpolated():
    # A plane stays one away from the border.
    rows, columns = np.mgrid[:8, :8] + 0.5
    plane = np.stack([rows, columns], axis=-1).reshape(64, 2)
    resized = resize_places(plane, (16, 4)).reshape(16, 4, 2)
    np.testing.assert_allclose(resized[5:11, 0, 0], (np.arange(5, 11) + 0.5) / 2, atol=1e-5)
    np.testing.assert_array_equal(resize_places(plane, (8, 8)), plane.astype(np.float32))


def test_annealing_is_a_decay_block_by_block():
    starts, ends = jnp.array([10, 30]), jnp.array([20, 40])
    schedule = [annealed_mask_probs(jnp.array(step), starts, ends) for step in range(0, 50, 5)]
    half = 0.5**0.9
    first = [1, 1, 1, half, 0, 0, 0, 0, 0, 0]
    second = [1, 1, 1, 1, 1, 1, 1, half, 0, 0]
    np.testing.assert_allclose(schedule, np.stack([first, second], axis=1), rtol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_steps_are_named():
    with pytest.raises(ValueError, match=r"starts, ends: expected .*, got \(2,\) and \(3,\)"):
        annealed_mask_probs(jnp.array(0), jnp.arange(2), jnp.arange(3))


def test_turned_vectors_tell_how_far_apart_their_patches_are():
    """Products of queries and keys depend on the distance alone; other tokens are not turned."""
    query, key = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    angles = rotary_angles((3, 4), 8)
    tokens = lambda x: jnp.asarray(np.tile(x, (14, 1)))
    queries, keys = rotate(tokens(query), angles), rotate(tokens(key), angles)
    np.testing.assert_array_equal(queries[:2], tokens(query)[:2])
    products = np.asarray(queries[2:] @ keys[2:].T).reshape(3, 4, 3, 4)
    np.testing.assert_allclose(products[0, 0, 1, 2], products[1, 1, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(products[2, 1, 0, 1], products[2, 3, 0, 3], rtol=1e-5)
    assert abs(products[0, 0, 1, 2] - products[0, 0, 2, 1]) > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(queries, axis=-1), np.linalg.norm(query), rtol=1e-5)


def test_rotary_places_are_rescaled_in_training_alone(params):
    """Training is evaluation where the masks are annealed away, but for the drawn factor."""
    arrays = {name: x for name, x in params.items() if name != "position_embedding"}
    _, variables = _shapes(small(rotary=True), *IMAGES.shape)
    block = {"attention": variables["params"]["block0"]["attention"]}
    rng = np.random.default_rng(0)
    for i in range(3):
        drawn = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), block)
        arrays[f"block{i}"] = params[f"block{i}"] | drawn

    def masks(rescale, **options):
        model = small(rotary=True, rescale=rescale)
        apply = jax.jit(functools.partial(_apply, model, **options))
        return np.asarray(apply(arrays, 0.0).mask_logits)

    plain = masks(2.0)
    np.testing.assert_allclose(masks(1.0, train=True, rngs=DROPOUT), plain, rtol=1e-4, atol=1e-4)
    assert not np.allclose(masks(2.0, train=True, rngs=DROPOUT), plain, atol=1e-2)
