"""Every array function keeps the promises of the library, on the inputs that `cases` lists."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from jax.sharding import AxisType, PartitionSpec
from public import array_functions, may_be_floating

FUNCTIONS = array_functions()
HEIGHT, WIDTH = 4, 5

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_array_function_has_a_case():
    assert not set(FUNCTIONS) - {case.function for case in CASES}


def test_every_case_has_its_function():
    assert not {case.function for case in CASES} - set(FUNCTIONS)


def _call(case, arrays):
    return FUNCTIONS[case.function](**case.build(arrays), **case.options)


def _draw(case, seed=0, shape=(HEIGHT, WIDTH), dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    arguments = case.arguments(*shape)
    return {name: _cast(argument.draw(rng), dtype) for name, argument in arguments.items()}


def _cast(array, dtype):
    return jnp.asarray(array, dtype if jnp.issubdtype(array.dtype, jnp.floating) else None)


def _is_floating(array):
    return jnp.issubdtype(array.dtype, jnp.floating)


def _objective(case, floating, others):
    """A weighted sum of all floating outputs, no two weights alike; and the outputs."""
    outputs = _call(case, {**floating, **others})
    return sum(
        jnp.sum(leaf * jnp.cos(1.0 + jnp.arange(leaf.size)).reshape(leaf.shape))
        for leaf in jax.tree.leaves(outputs)
        if _is_floating(leaf)
    ), outputs


def _split(arrays):
    floating = {name: array for name, array in arrays.items() if _is_floating(array)}
    return floating, {name: array for name, array in arrays.items() if name not in floating}


def _has_gradient(case):
    """Whether there are floating arguments and, by its annotation, floating outputs."""
    rng = np.random.default_rng(0)
    arguments = case.arguments(HEIGHT, WIDTH).values()
    result = inspect.signature(FUNCTIONS[case.function]).return_annotation
    return may_be_floating(result) and any(_is_floating(x.draw(rng)) for x in arguments)


def _is_loss(case):
    return case.function.startswith("losses.")


def _evaluate(case, arrays):
    """The outputs, and the gradient of `_objective` by argument, where there is one."""
    if not _has_gradient(case):
        return _call(case, arrays), {}
    objective = functools.partial(_objective, case)
    gradients, outputs = jax.grad(objective, has_aux=True)(*_split(arrays))
    # With a gradient of its own (`jax.custom_vjp`) may come a way of its own to the value.
    return outputs if case.forward else _call(case, arrays), gradients


@functools.cache
def _compiled(case_index):
    return jax.jit(functools.partial(_evaluate, CASES[case_index]))


def _run(case, arrays):
    return _compiled(CASES.index(case))(arrays)


def _assert_close(actual, expected, *, tolerance=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x, np.float64 if _is_floating(x) else None) for x in (a, b))
        scale = np.max(np.abs(b), initial=1, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def _assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.slow
@every_case
def test_jit_is_eager(case):
    """Values alone: a gradient is traced either way, and costs a compilation for each operation."""
    arrays = _draw(case)
    _assert_close(_run(case, arrays)[0], _call(case, arrays))


@pytest.mark.slow
@every_case
def test_vmap_inside_shard_map_is_a_loop(case):
    """Two devices with two examples each."""
    examples = [_draw(case, seed) for seed in range(4)]
    batch = jax.tree.map(lambda *arrays: jnp.stack(arrays), *examples)
    loop = jax.tree.map(
        lambda *results: jnp.stack(results), *(_run(case, example) for example in examples)
    )
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    spec = PartitionSpec("data")
    batched = jax.vmap(functools.partial(_evaluate, case))
    sharded = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec)
    _assert_close(jax.jit(sharded)(batch), loop)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((HEIGHT, WIDTH), id="picture"),
        pytest.param((1, 1), id="one pixel", marks=pytest.mark.slow),
    ],
)
@every_case
def test_finite_on_extremes(case, shape):
    """All-0, all-1, empty target, empty prediction, nothing valid, ±1e4: in every combination."""
    drawn = _draw(case, shape=shape)
    choices = {
        name: [array, *(jnp.full_like(array, value) for value in argument.extremes)]
        for (name, argument), array in zip(
            case.arguments(*shape).items(), drawn.values(), strict=True
        )
    }
    for arrays in itertools.product(*choices.values()):
        _assert_finite(_run(case, dict(zip(choices, arrays, strict=True))))


@pytest.mark.parametrize("case", [case for case in CASES if case.masked], ids=str)
def test_masked_pixels_do_not_matter(case):
    clean = _draw(case)
    arguments = case.arguments(HEIGHT, WIDTH)
    outputs, gradients = _run(case, clean)
    for i in range(2):
        spoilt, expected = dict(clean), dict(gradients)
        for name in case.masked:
            where = clean["where"]
            trailing = clean[name].ndim - where.ndim
            kept = jnp.expand_dims(where, tuple(range(where.ndim, where.ndim + trailing)))
            junk = jnp.asarray(arguments[name].junk[i], clean[name].dtype)
            spoilt[name] = jnp.where(kept, clean[name], junk)
            if name in gradients:
                expected[name] = jnp.where(kept, gradients[name], 0)
        assert not kept.all()
        for actual, desired in zip(
            jax.tree.leaves(_run(case, spoilt)), jax.tree.leaves((outputs, expected)), strict=True
        ):
            np.testing.assert_array_equal(actual, desired)


def test_labels_of_every_loss_and_metric_may_be_void():
    taking = {name for name, f in FUNCTIONS.items() if "labels" in inspect.signature(f).parameters}
    taking = {name for name in taking if name.startswith(("losses.", "metrics."))}
    assert not taking - {case.function for case in CASES if case.labels}


def _voided(case):
    """Arguments, where their labels are to be of no class, and what must then come out."""
    clean = _draw(case)
    void = np.random.default_rng(3).random(clean[case.labels[0]].shape) < 0.4
    assert void.any()
    return clean, void, _run(case, {**clean, "where": clean["where"] & ~void})


@pytest.mark.parametrize("case", [case for case in CASES if case.labels], ids=str)
def test_labels_of_no_class_are_void(case):
    """As where a mask is False."""
    arguments = case.arguments(HEIGHT, WIDTH)
    clean, void, expected = _voided(case)
    for name in case.labels:
        for label in arguments[name].void:
            spoilt = _run(case, {**clean, name: jnp.where(void, label, clean[name])})
            for actual, desired in zip(*map(jax.tree.leaves, (spoilt, expected)), strict=True):
                np.testing.assert_array_equal(actual, desired)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.labels], ids=str)
def test_labels_of_64_bits_do_not_wrap(case):
    """On the host; those of no class are void there too."""
    clean, void, expected = _voided(case)
    for name in case.labels:
        wide = np.asarray(clean[name], np.int64)
        for label in (wide + 2**32, np.iinfo(np.int64).min):
            spoilt = _call(case, {**clean, name: np.where(void, label, wide)})
            _assert_close(spoilt, expected[0])


@functools.cache
def _derivatives(case_index):
    """Along a random direction, in float64: of the objective, and for losses of its gradient.

    First by forward mode, by reverse mode and as a central difference; then by forward over
    reverse and as a central difference. One program for both, since compiling takes longest.
    """
    case = CASES[case_index]

    def derivatives(floating, others, direction, step=1e-6):
        objective = lambda arrays: _objective(case, arrays, others)[0]
        move = lambda t: jax.tree.map(lambda a, d: a + t * d, floating, direction)
        value = lambda t: objective(move(t))
        gradient = lambda t: jax.grad(objective)(move(t))

        both = lambda t: (value(t), gradient(t) if _is_loss(case) else None)
        beyond_and_before = jax.lax.map(both, jnp.array([step, -step]))
        slope, bend = jax.tree.map(lambda x: (x[0] - x[1]) / (2 * step), beyond_and_before)
        if _is_loss(case):
            at_0, curvature = jax.jvp(gradient, (0.0,), (1.0,))
        else:
            at_0, curvature = gradient(0.0), None
        reverse = _along(direction, at_0)
        forward = jax.jvp(value, (0.0,), (1.0,))[1] if case.forward else reverse
        return (forward, reverse, slope), (curvature, bend)

    with jax.enable_x64(True):
        floating, others = _split(_draw(case, dtype=jnp.float64))
        return jax.device_get(jax.jit(derivatives)(floating, others, _direction(floating)))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if _has_gradient(case)], ids=str)
def test_gradients_are_finite_differences(case):
    """Forward mode, reverse mode, central difference."""
    forward, reverse, difference = _derivatives(CASES.index(case))[0]
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(reverse, difference, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in CASES if _is_loss(case) and _has_gradient(case)], ids=str
)
def test_second_derivatives_are_finite_differences(case):
    """Forward over reverse: the slope of the gradient."""
    exact, difference = _derivatives(CASES.index(case))[1]
    _assert_close(exact, difference)


def _direction(floating):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), floating)


def _along(direction, gradient):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if FUNCTIONS[case.function].__module__ in ("segjax.losses.region", "segjax.losses.lovasz")
    ],
    ids=str,
)
def test_order_of_pixels_does_not_matter(case):
    """The same pixels in another order: the same loss, and for each pixel the same gradient."""
    order = np.random.default_rng(2).permutation(HEIGHT * WIDTH)

    def shuffle(array):
        pixels = array.reshape(HEIGHT * WIDTH, *array.shape[2:])
        return pixels[order].reshape(array.shape)

    # Rounded, so that many pixels are alike.
    arrays = {
        name: jnp.round(array, 1) if _is_floating(array) else array
        for name, array in _draw(case).items()
    }
    outputs, gradients = _run(case, arrays)
    expected = outputs, {name: shuffle(gradient) for name, gradient in gradients.items()}
    _assert_close(_run(case, jax.tree.map(shuffle, arrays)), expected)


# One case a function: what its options change is a few numbers among a million.
_LOSSES = {case.function: case for case in reversed(CASES) if _is_loss(case)}


@pytest.mark.slow
@pytest.mark.parametrize("case", _LOSSES.values(), ids=str)
def test_half_precision_survives_a_million_pixels(case):
    """Neither overflow nor drift: values and gradients of 1024² pixels are those of float32."""
    # Numbers of 8 bits, which float16 and float32 hold too.
    drawn = _draw(case, shape=(case.side, case.side), dtype=jnp.bfloat16)
    expected = _run(case, {name: _cast(array, jnp.float32) for name, array in drawn.items()})
    for dtype in (jnp.bfloat16, jnp.float16):
        actual = _run(case, {name: _cast(array, dtype) for name, array in drawn.items()})
        _assert_finite(actual)
        rounded = jax.tree.map(lambda a, b: b.astype(a.dtype), actual, expected)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(rounded), strict=True):
            a, b = (np.asarray(x, np.float64) for x in (a, b))
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2 * np.abs(b).max(initial=0))


@pytest.mark.slow
@every_case
def test_bfloat16_is_computed_in_float32(case):
    narrow = _draw(case, dtype=jnp.bfloat16)
    wide = {name: _cast(array, jnp.float32) for name, array in narrow.items()}
    (outputs, gradients), expected = _run(case, narrow), _run(case, wide)
    rounded = jax.tree.map(lambda a, b: b.astype(a.dtype), (outputs, gradients), expected)
    _assert_close((outputs, gradients), rounded, tolerance=1e-2)
    if all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(outputs)):
        _assert_close(outputs, expected[0], tolerance=case.rounding)
