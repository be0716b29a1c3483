"""The total is SciPy's, on whatever costs; what cannot be paired is not; gradients; devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from scipy.optimize import linear_sum_assignment as scipy_assignment

from segjax.matching import linear_sum_assignment, solve_assignment, verify_assignment

# Few shapes, as each is compiled: wide, tall, square; problems side by side.
SHAPES = [(8, 5, 9), (8, 9, 5), (8, 7, 7)]
seeds = st.integers(0, 2**32 - 1)
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=["wide", "tall", "square"])


@jax.jit
def _solve(cost, where=None):
    assignment = solve_assignment(cost, where=where)
    return assignment, verify_assignment(cost, assignment, where=where)


def _best(cost, allowed):
    """The most pairs and their least total, by SciPy: a forbidden pair costs more than all else."""
    cost = np.where(allowed, np.asarray(cost, np.float64), 0)
    penalty = 1 + 2 * np.abs(cost).sum()
    rows, cols = scipy_assignment(np.where(allowed, cost, penalty))
    made = allowed[rows, cols]
    return made.sum(), cost[rows, cols][made].sum()


def _check(cost, allowed, rows, cols):
    """Pairs of one problem; rows ascend, and nothing is used twice or forbidden."""
    rows, cols = np.asarray(rows), np.asarray(cols)
    made = cols >= 0
    assert len(rows) == min(cost.shape)
    assert (np.diff(rows) > 0).all()
    assert len(np.unique(cols[made])) == made.sum()
    assert allowed[rows[made], cols[made]].all()
    number, total = _best(cost, allowed)
    assert made.sum() == number
    actual = np.asarray(cost, np.float64)[rows[made], cols[made]].sum()
    np.testing.assert_allclose(actual, total, rtol=1e-12, atol=1e-300)


def _detr_costs(rng, b, n, m):
    """Of n queries and m objects: −p(class) + 5·L1, classes and places being few."""
    probs = rng.dirichlet(np.full(4, 0.3), (b, n))
    classes = rng.integers(4, size=(b, m))
    places, targets = rng.random((2, b, max(n, m), 4)).round(1)
    distance = np.abs(places[:, :n, None] - targets[:, None, :m]).sum(-1)
    return -np.take_along_axis(probs, classes[:, None, :], axis=-1) + 5 * distance


KINDS = {
    "random": lambda rng, shape: rng.random(shape),
    "tied": lambda rng, shape: rng.integers(3, size=shape),
    "all equal": lambda rng, shape: np.full(shape, rng.normal()),
    "huge range": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape),
    "like DETR's": lambda rng, shape: _detr_costs(rng, *shape),
    "products": lambda rng, shape: (
        np.arange(1, shape[1] + 1)[:, None] * np.arange(1, shape[2] + 1)
        + np.zeros((shape[0], 1, 1))
    ),
}


@by_shape
@given(
    kind=st.sampled_from(sorted(KINDS)), density=st.sampled_from([0.15, 0.5, 0.9, 1]), seed=seeds
)
def test_total_is_scipys(shape, kind, density, seed):
    rng = np.random.default_rng(seed)
    cost = KINDS[kind](rng, shape).astype(np.float32)
    allowed = rng.random(shape) < density
    assignment, proven = _solve(cost, allowed)
    for problem in zip(cost, allowed, assignment.rows, assignment.cols, strict=True):
        _check(*problem)
    assert np.all(proven)


@given(seed=seeds)
def test_integers_are_exact(seed):
    """Up to ±2³¹, where float32 would round; and so are the dual variables that fit into int32."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[1]
    cost = rng.integers(-(2**31), 2**31, size=shape, dtype=np.int64)
    assignment, _ = _solve(cost.astype(np.int32), np.ones(shape, bool))
    for i, (rows, cols) in enumerate(zip(assignment.rows, assignment.cols, strict=True)):
        assert cost[i][rows, cols].sum() == cost[i][scipy_assignment(cost[i])].sum()
    smaller = (cost // 1024).astype(np.int32)
    assignment, proven = _solve(smaller, np.ones(shape, bool))
    assert assignment.row_duals.dtype == jnp.int32
    assert np.all(proven)


@pytest.mark.parametrize("dtype", [jnp.uint32, jnp.int8, jnp.bfloat16])
def test_other_numbers(dtype):
    cost = jnp.asarray([[3, 1], [2, 2]], dtype)
    assignment, proven = _solve(cost)
    assert proven
    assert assignment.cost == 3
    assert assignment.cost.dtype == (jnp.float32 if dtype == jnp.bfloat16 else jnp.int32)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_forbidden(junk):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        cost = rng.normal(size=shape).astype(np.float32)
        allowed = rng.random(shape) < 0.5
        allowed[0] = False
        marked, _ = _solve(np.where(allowed, cost, np.float32(junk)), np.ones(shape, bool))
        masked, proven = _solve(cost, allowed)
        np.testing.assert_array_equal(marked.cols, masked.cols)
        assert (marked.cols[0] == -1).all()
        assert np.all(proven)


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (0, 3, 2)])
def test_nothing_to_pair(shape):
    assignment, proven = _solve(jnp.zeros(shape))
    assert assignment.rows.shape == (*shape[:-2], min(shape[-2:]))
    assert np.all(assignment.cost == 0)
    assert np.all(proven)


def test_one_row_takes_its_cheapest():
    cost = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    assert linear_sum_assignment(cost.T)[0][0] == cost.argmin()


def test_padding_changes_nothing():
    """Rows and columns without any allowed pair, in both orders of their numbers."""
    rng = np.random.default_rng(1)
    (b, n, m), (rows, cols) = SHAPES[2], (3, 5)
    for held in (np.s_[:, :rows, :cols], np.s_[:, :cols, :rows]):
        cost, allowed = np.full((b, n, m), np.nan, np.float32), np.zeros((b, n, m), bool)
        cost[held] = rng.normal(size=cost[held].shape)
        allowed[held] = True
        assignment, proven = _solve(cost, allowed)
        for problem, i in zip(cost[held], range(b), strict=True):
            total = problem[scipy_assignment(problem)].sum()
            np.testing.assert_allclose(assignment.cost[i], total, rtol=1e-6)
        assert np.all(proven)


def test_gradient_of_the_cost_is_the_permutation():
    cost = np.random.default_rng(2).normal(size=SHAPES[0]).astype(np.float32)
    allowed = np.random.default_rng(3).random(cost.shape) < 0.2
    cost = np.where(allowed, cost, np.nan)
    gradient = jax.jit(jax.grad(lambda c: _solve(c, allowed)[0].cost.sum()))(cost)
    expected = np.zeros_like(cost)
    assignment, _ = _solve(cost, allowed)
    for i, (rows, cols) in enumerate(zip(assignment.rows, assignment.cols, strict=True)):
        made = cols >= 0
        expected[i][rows[made], cols[made]] = 1
    assert 0 < expected.sum() < assignment.cols.size
    np.testing.assert_array_equal(gradient, expected)


def test_proof_fails_for_anything_less():
    """A dearer assignment, one with a pair missing, and dual variables that prove too little."""
    cost = np.random.default_rng(4).integers(1, 99, SHAPES[0]).astype(np.int32)
    best, proven = _solve(cost, np.ones(cost.shape, bool))
    verify = jax.jit(verify_assignment)
    assert np.all(proven)
    changed = {
        "cols": [jnp.roll(best.cols, 1, axis=-1), best.cols.at[:, 2].set(-1)],
        "row_duals": [best.row_duals + 1, best.row_duals.at[:, 0].add(-1)],
        "col_duals": [best.col_duals + 1],
        "row_cover": [~best.row_cover],
    }
    for name, values in changed.items():
        for value in values:
            other = dataclasses.replace(best, **{name: value})
            assert not np.any(verify(cost, other)), name


def test_three_hundred_by_three_hundred():
    rng = np.random.default_rng(5)
    cost = np.stack([rng.random((300, 300)), *_detr_costs(rng, 1, 300, 300)]).astype(np.float32)
    rows, cols = linear_sum_assignment(cost)
    for i in range(2):
        _check(cost[i], np.ones(cost[i].shape, bool), rows[i], cols[i])


def test_vmap_joins_the_batch():
    cost = np.random.default_rng(6).normal(size=(2, *SHAPES[0])).astype(np.float32)
    shared = np.random.default_rng(7).random(SHAPES[0]) < 0.6
    expected = linear_sum_assignment(cost, where=shared)
    nested = jax.vmap(jax.vmap(lambda c, w: linear_sum_assignment(c, where=w)), in_axes=(0, None))
    for actual, desired in zip(nested(cost, shared), expected, strict=True):
        np.testing.assert_array_equal(actual, desired)


@pytest.mark.parametrize("mapped", ["pmap", "shard_map"])
def test_devices_do_not_talk(mapped):
    """No collective in the program: each device solves its own problems."""
    cost = jnp.asarray(np.random.default_rng(8).normal(size=SHAPES[0]), jnp.float32)
    if mapped == "pmap":
        program, cost = jax.pmap(linear_sum_assignment), cost.reshape(2, 4, *cost.shape[1:])
    else:
        mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
        spec = PartitionSpec("data")
        program = jax.jit(
            jax.shard_map(linear_sum_assignment, mesh=mesh, in_specs=spec, out_specs=spec)
        )
    text = program.lower(cost).compile().as_text()
    assert "while" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert collective not in text
    expected = linear_sum_assignment(cost)
    np.testing.assert_array_equal(program(cost)[1], expected[1])


def test_errors_name_the_argument(unchecked_shapes):
    with pytest.raises(ValueError, match=r"cost: expected .*got \(3,\)"):
        linear_sum_assignment(jnp.zeros(3))
    with pytest.raises(TypeError, match=r"cost: expected .*got bool"):
        linear_sum_assignment(jnp.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="where: expected"):
        linear_sum_assignment(jnp.zeros((2, 2)), where=jnp.ones((3, 2), bool))
    with pytest.raises(ValueError, match="assignment: expected duals"):
        verify_assignment(jnp.zeros((3, 3)), solve_assignment(jnp.zeros((2, 2))))
