from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.numerics import (
    Average,
    accumulation_dtype,
    broadcast_where,
    log1mexp,
    masked_sum,
    safe_divide,
)

numbers = hnp.arrays(np.float32, 6, elements=st.integers(-400, 400).map(lambda n: n / 4))
masks = hnp.arrays(bool, 6)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float16"], "float32"),
        (["bfloat16", "float16"], "float32"),
        (["int32", "bool"], "float32"),
        (["float32", "bfloat16"], "float32"),
    ],
)
def test_accumulation_is_in_float32_at_least(dtypes, expected):
    assert accumulation_dtype(*(jnp.zeros(1, dtype) for dtype in dtypes)) == expected


def test_accumulation_keeps_float64():
    with jax.enable_x64(True):
        assert accumulation_dtype(jnp.zeros(1, "float64"), jnp.zeros(1, "int8")) == "float64"
        assert accumulation_dtype(jnp.zeros(1, "int64")) == "float32"


@given(numbers, numbers)
def test_safe_divide_divides_where_it_can(numerator, denominator):
    defined = denominator != 0
    expected = np.full(6, 7, np.float32)
    np.divide(numerator, denominator, out=expected, where=defined)
    np.testing.assert_allclose(safe_divide(numerator, denominator, default=7.0), expected)


def test_safe_divide_by_zero_has_gradient_zero():
    gradients = jax.grad(safe_divide, argnums=(0, 1))(jnp.array(3.0), jnp.array(0.0))
    assert gradients == (0, 0)


def test_safe_divide_by_what_has_no_square_in_float32():
    """At 1e-30, such as the probabilities of a saturated sigmoid."""
    x, y = jnp.float32(0), jnp.float32(1e-30)
    assert jax.grad(safe_divide, argnums=1)(x, y) == 0
    np.testing.assert_allclose(jax.grad(safe_divide, argnums=1)(2 * y, y), -2 / y)
    np.testing.assert_allclose(jax.grad(safe_divide)(x, y), 1 / y)
    second = jax.hessian(safe_divide, argnums=1)(jnp.float32(1), jnp.float32(2))
    np.testing.assert_allclose(second, 2 / 2**3)


def test_safe_divide_of_integers_is_no_integer_division():
    assert safe_divide(jnp.array(1), jnp.array(2)) == 0.5


@given(numbers, masks)
def test_masked_sum_is_the_sum_of_what_is_kept(values, where):
    np.testing.assert_allclose(
        masked_sum(values, where=where), values[where].sum(dtype=np.float64), rtol=1e-5, atol=1e-4
    )


def test_masked_sum_holds_more_than_half_precision():
    assert masked_sum(jnp.ones(5000, jnp.bfloat16)) == 5000


@pytest.mark.parametrize("x", [-1e-30, -1e-7, -0.1, -0.69, -0.7, -1.0, -16.0, -80.0])
def test_log1mexp_is_the_log_of_what_is_left(x):
    """To sixty digits, with its slope −eˣ / (1 − eˣ)."""
    with localcontext(prec=60):
        power = Decimal(float(np.float32(x))).exp()
        expected, slope = float((1 - power).ln()), float(-power / (1 - power))
    value, gradient = jax.value_and_grad(log1mexp)(jnp.float32(x))
    np.testing.assert_allclose([value, gradient], [expected, slope], rtol=1e-5, atol=0)


def test_log1mexp_of_certainty_is_finite():
    value, gradient = jax.value_and_grad(log1mexp)(0.0)
    np.testing.assert_allclose(value, np.log(np.finfo(np.float32).tiny))
    assert gradient == 0


def test_broadcast_where_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"where: expected .*got \(3,\)"):
        broadcast_where(jnp.ones(3, bool), (2, 4))


@given(numbers, hnp.arrays(np.float32, 6, elements=st.floats(0, 10, width=32)), masks)
def test_average_is_the_weighted_mean(values, weights, where):
    average = Average.of(values, weights=weights, where=where)
    total = weights[where].sum(dtype=np.float64)
    expected = (values * weights)[where].sum(dtype=np.float64) / total if total else 0
    np.testing.assert_allclose(average.value, expected, rtol=1e-3, atol=1e-3)


@given(numbers, masks, st.integers(0, 6))
def test_average_does_not_depend_on_how_values_are_dealt_out(values, where, cut):
    """A mean of means would."""
    whole = Average.of(values, where=where)
    parts = [Average.of(values[i], where=where[i]) for i in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose((parts[0] + parts[1]).value, whole.value, rtol=1e-4, atol=1e-4)


@given(numbers, st.floats(-10, 10, width=32))
def test_average_scales_with_its_values(values, factor):
    scaled = Average.of(values) * factor
    np.testing.assert_allclose(scaled.value, factor * Average.of(values).value, rtol=1e-5)


def test_average_is_summed_over_devices():
    values = jnp.arange(8.0)
    where = values != 3

    def on_device(values, where):
        return jax.lax.psum(Average.of(values, where=where), "data")

    summed = jax.pmap(on_device, axis_name="data")(values[:, None], where[:, None])
    np.testing.assert_allclose(summed.value, np.full(8, (28 - 3) / 7), rtol=1e-6)


def test_average_of_nothing_is_zero_with_gradient_zero():
    def value(values):
        return Average.of(values, where=jnp.zeros(3, bool)).value

    result, gradient = jax.value_and_grad(value)(jnp.array([1.0, jnp.nan, jnp.inf]))
    assert result == 0
    np.testing.assert_array_equal(gradient, [0, 0, 0])
