"""Arrays that one side holds as one and the other in parts, by the rows of a key table."""

import re

import jax
import numpy as np
import pytest

from segjax.pretrained import WeightsError
from segjax.pretrained.fitting import count_classes, fit, nearest_table
from segjax.pretrained.keys import KeyTable, to_state_dict, to_variables

# Ours are fused, theirs are not.
FUSED = KeyTable((("b{i}/qkv", ("b.{i}.q", "b.{i}.k", "b.{i}.v")), ("head", "head")))
# Theirs is fused, ours are not.
SEPARATE = KeyTable(
    (
        (("b{i}/query", "b{i}/key", "b{i}/value"), "b.{i}.in_proj_"),
        ("b{i}/output", "b.{i}.out_proj"),
    ),
    heads=(r"b\.0\.in_proj_weight",),
    extra_classes=1,
)


def _draw(shapes):
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)
    return {"params": jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))}


@pytest.fixture
def fused():
    blocks = {f"b{i}": {"qkv": {"kernel": (4, 6), "bias": (6,)}} for i in range(2)}
    return _draw(blocks | {"head": {"kernel": (4, 3)}})


@pytest.fixture
def separate():
    names = ("value", "key", "query", "output")
    return _draw({"b0": {name: {"kernel": (4, 2), "bias": (2,)} for name in names}})


def test_one_of_ours_is_several_of_theirs(fused):
    arrays = to_state_dict(FUSED, fused)
    assert len(arrays) == 13
    joined = np.concatenate([arrays[f"b.1.{name}.weight"] for name in "qkv"])
    np.testing.assert_array_equal(joined.T, fused["params"]["b1"]["qkv"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, to_variables(FUSED, arrays, fused), fused)


def test_several_of_ours_are_one_of_theirs(separate):
    arrays = to_state_dict(SEPARATE, separate)
    assert {key: array.shape for key, array in arrays.items()} == {
        "b.0.in_proj_weight": (6, 4),
        "b.0.in_proj_bias": (6,),
        "b.0.out_proj.weight": (2, 4),
        "b.0.out_proj.bias": (2,),
    }
    block = separate["params"]["b0"]
    expected = np.concatenate([block[name]["bias"] for name in ("query", "key", "value")])
    np.testing.assert_array_equal(arrays["b.0.in_proj_bias"], expected)
    jax.tree.map(np.testing.assert_array_equal, to_variables(SEPARATE, arrays, separate), separate)


def test_fitting_takes_both(fused, separate):
    for table, variables in ((FUSED, fused), (SEPARATE, separate)):
        fitted = fit(table, to_state_dict(table, variables), variables)
        flat = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
            flat["/".join(entry.key for entry in path)] = leaf
        jax.tree.map(np.testing.assert_array_equal, fitted.arrays, flat)


def test_a_missing_part_is_listed_by_itself(fused):
    arrays = to_state_dict(FUSED, fused)
    arrays["b.0.kk.weight"] = arrays.pop("b.0.k.weight")
    arrays["b.1.v.bias"] = np.zeros(5, np.float32)
    with pytest.raises(WeightsError) as raised:
        fit(FUSED, arrays, fused)
    assert re.findall(r"^    (.*)", str(raised.value), flags=re.M) == [
        "b.0.k.weight (2, 4): is it b.0.kk.weight?",
        "b.0.kk.weight (2, 4)",
        "b.1.v.bias: expected shape (2,), got (5,)",
    ]


def test_a_fused_array_is_listed_once(separate):
    arrays = to_state_dict(SEPARATE, separate)
    del arrays["b.0.in_proj_bias"]
    with pytest.raises(WeightsError) as raised:
        fit(SEPARATE, arrays, separate)
    assert re.findall(r"^    (.*)", str(raised.value), flags=re.M) == ["b.0.in_proj_bias (6,)"]


def test_what_the_head_has_beside_the_classes_is_no_class(separate):
    assert count_classes(SEPARATE, to_state_dict(SEPARATE, separate)) == 5


def test_a_file_is_of_the_table_that_knows_its_keys(fused, separate):
    tables = (FUSED, SEPARATE)
    assert nearest_table(tables, to_state_dict(SEPARATE, separate)) is SEPARATE
    assert nearest_table(tables, to_state_dict(FUSED, fused)) is FUSED
    assert nearest_table(tables, {}) is FUSED
