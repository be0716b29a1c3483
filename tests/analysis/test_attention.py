"""Attention as a signal: maps that sum to what was there, and a test that is not fooled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from segjax import analysis

KEY = jax.random.key(0)
correlation = jax.jit(analysis.attention_error_correlation, static_argnames="permutations")


def _attention(*shape, seed=0):
    logits = np.random.default_rng(seed).normal(size=shape)
    return jax.nn.softmax(jnp.asarray(logits, jnp.float32))


def _smooth(key, size=16):
    """A map whose neighbours are alike: noise of long waves, periodic."""
    noise = jax.random.normal(key, (2, 3, 3))
    waves = jnp.exp(2j * jnp.pi * jnp.outer(jnp.arange(size), jnp.arange(3)) / size)
    return jnp.real(waves @ (noise[0] + 1j * noise[1]) @ waves.T)


def test_the_class_token_s_map_is_its_row_of_patches_where_a_patch_is_a_pixel():
    attention = _attention(2, 8, 8)
    maps = analysis.class_token_maps(attention, (2, 3), patch_size=1, prefix_tokens=2)
    assert_allclose(maps.reshape(2, 6), attention[:, 0, 2:])


def test_maps_of_whole_patches_keep_their_mean():
    attention = _attention(7, 7)
    assert_allclose(
        analysis.class_token_maps(attention, (8, 12), patch_size=4).mean(),
        attention[0, 1:].mean(),
        rtol=1e-5,
    )


def test_class_queries_come_after_the_patches():
    attention = _attention(2, 9, 9)
    maps = analysis.class_query_maps(attention, (2, 3), patch_size=1)
    assert_allclose(maps.reshape(2, 3, 6), attention[:, 6:, :6])


def test_a_patch_that_reaches_beyond_the_image_has_its_centre_there():
    weights = jnp.zeros((3, 3)).at[0].set(jnp.array([0.0, 0.0, 1.0]))
    (row,) = analysis.class_token_maps(weights, (1, 5), patch_size=4)
    assert_allclose(row, [0, 0, 1 / 8, 3 / 8, 5 / 8])


def test_rollout_of_one_block_is_half_its_mean_and_half_the_shortcut():
    attention = _attention(3, 4, 4)
    assert_allclose(
        analysis.attention_rollout([attention]), (attention.mean(0) + np.eye(4)) / 2, rtol=1e-6
    )


def test_rollout_multiplies_the_last_block_from_the_left_and_keeps_rows_stochastic():
    first, last = _attention(1, 4, 4), _attention(1, 4, 4, seed=1)
    rollout = analysis.attention_rollout([first, last])
    assert_allclose(rollout, (last[0] + np.eye(4)) @ (first[0] + np.eye(4)) / 4, rtol=1e-5)
    assert_allclose(rollout.sum(-1), 1, rtol=1e-5)


def test_correlations_are_scipy_s_over_the_valid_pixels_ties_included():
    rng = np.random.default_rng(0)
    attention = rng.integers(5, size=(9, 7)).astype(np.float32)
    error = (attention + rng.integers(6, size=(9, 7)) > 5).astype(np.float32)
    where = rng.random((9, 7)) < 0.7
    spoilt = np.where(where, attention, np.nan)
    result = correlation(KEY, spoilt, error, where=where, permutations=9)
    a, e = attention[where], error[where]
    assert_allclose(result.pearson, scipy.stats.pearsonr(a, e).statistic, rtol=1e-5)
    assert_allclose(result.spearman, scipy.stats.spearmanr(a, e).statistic, rtol=1e-5)


def test_p_values_are_uniform_for_maps_that_have_nothing_in_common():
    """However smooth they are: a test that exchanges pixels calls most of these significant."""
    keys = jax.random.split(KEY, (64, 3))

    @jax.jit
    @jax.vmap
    def test(keys):
        maps = _smooth(keys[0]), _smooth(keys[1])
        return analysis.attention_error_correlation(keys[2], *maps, permutations=99)

    result = test(keys)
    for p_values in (result.pearson_p_value, result.spearman_p_value):
        assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    # Under exchanges of n pixels r √n is nearly normal.
    exchanged = 2 * scipy.stats.norm.sf(np.abs(result.pearson) * 16)
    assert np.mean(exchanged < 0.05) > 0.3


def test_a_map_and_itself_are_as_far_apart_from_chance_as_the_number_of_shifts_allows():
    result = correlation(KEY, _smooth(KEY), _smooth(KEY), permutations=99)
    assert_allclose((result.pearson, result.spearman), 1, rtol=1e-5)
    # One of 256 shifts is none at all.
    assert result.pearson_p_value <= 0.05


def test_a_constant_map_tells_nothing():
    constant = jnp.full((16, 16), 0.1)
    result = correlation(KEY, constant, constant, permutations=99)
    assert (result.pearson, result.spearman) == (0, 0)
    assert result.pearson_p_value == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            functools.partial(analysis.class_token_maps, np.zeros((7, 7)), (2, 4), patch_size=1),
            r"attention: expected 1 \+ 2 \* 4 keys",
        ),
        (
            functools.partial(analysis.class_query_maps, np.zeros((6, 6)), (2, 3), patch_size=1),
            r"attention: expected .*got shape \(6, 6\)",
        ),
        (
            functools.partial(analysis.class_query_maps, np.zeros((6, 6)), (0, 3)),
            r"shape, patch_size: expected .*got \(0, 3\)",
        ),
        (functools.partial(analysis.attention_rollout, []), "attention: expected at least one"),
        (
            functools.partial(
                analysis.attention_error_correlation, KEY, np.zeros((2, 3)), np.zeros((3, 2))
            ),
            r"attention, error: expected .*got \(2, 3\), \(3, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(unchecked_shapes, call, message):
    with pytest.raises(ValueError, match=message):
        call()
