"""Time of exact assignment for a batch of problems, beside SciPy and optax.

    pip install -e ".[test]" && python experiments/benchmarks/assignment.py

SciPy is called in a loop, optax under vmap. Costs are random, or like DETR's: the class, L1
distance and GIoU of random boxes. Takes a few minutes on two cores; `--only 100×20` takes seconds.
"""

from collections.abc import Callable

import numpy as np
from harness import main

TABLE = {
    f"{kind}, {batch}×{rows}×{columns}": ["segjax", "SciPy", "optax"]
    for kind in ("random", "like DETR's")
    for rows, columns in ((100, 20), (300, 50), (100, 100), (300, 300))
    for batch in (8, 64)
}
# Of 300 columns all but 50 are padding, or are not there to begin with.
TABLE["padded, 8×300×300"] = ["segjax", "segjax, without padding", "SciPy, without padding"]


def inputs(task: str) -> np.ndarray:
    """Costs, float32 `[b, n, m]`."""
    kind, shape = task.split(", ")
    batch, rows, columns = map(int, shape.split("×"))
    rng = np.random.default_rng(0)
    if kind != "like DETR's":
        return rng.random((batch, rows, columns), np.float32)

    import jax.numpy as jnp

    from segjax.matching import class_cost, giou_cost, l1_cost

    logits = jnp.asarray(rng.normal(size=(batch, rows, 91)), jnp.float32)
    classes = jnp.asarray(rng.integers(91, size=(batch, columns)), jnp.int32)
    boxes, targets = (
        np.sort(rng.random((batch, count, 2, 2), np.float32), axis=-2).reshape(batch, count, 4)
        for count in (rows, columns)
    )
    cost = class_cost(logits, classes) + 5 * l1_cost(boxes, targets) + 2 * giou_cost(boxes, targets)
    return np.array(cost)


def make_run(task: str, form: str) -> Callable[[], float]:
    """A function that solves all problems once and returns the total of the first."""
    cost = inputs(task)
    where = None
    if task.startswith("padded"):
        where = np.broadcast_to(np.arange(cost.shape[-1]) < 50, cost.shape)
        if "without" in form:
            cost, where = np.ascontiguousarray(cost[..., :50]), None
    if "segjax" in form:
        solve = our_solver(cost, where)
    else:
        solve = {"SciPy": scipy_solver, "optax": optax_solver}[form.split(",")[0]](cost)

    def run():
        rows, columns = solve()
        made = columns >= 0
        return cost[0].astype(np.float64)[rows[made], columns[made]].sum()

    return run


def our_solver(cost: np.ndarray, where: np.ndarray | None) -> Callable:
    import jax

    from segjax.matching import linear_sum_assignment

    solve = jax.jit(linear_sum_assignment)
    cost, where = jax.device_put((cost, where))

    def run():
        rows, columns = jax.block_until_ready(solve(cost, where=where))
        return np.asarray(rows)[0], np.asarray(columns)[0]

    return run


def scipy_solver(cost: np.ndarray) -> Callable:
    from scipy.optimize import linear_sum_assignment

    def run():
        solutions = [linear_sum_assignment(problem) for problem in cost]
        return solutions[0]

    return run


def optax_solver(cost: np.ndarray) -> Callable:
    import jax
    import optax

    solve = jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))
    cost = jax.device_put(cost)

    def run():
        rows, columns = jax.block_until_ready(solve(cost))
        return np.asarray(rows)[0], np.asarray(columns)[0]

    return run


if __name__ == "__main__":
    main(__doc__, TABLE, make_run)
