"""A state dict meets a model: every array where it belongs, or every fault in one error."""

import re

import jax
import numpy as np
import pytest

from segjax.pretrained import WeightsError
from segjax.pretrained.fitting import (
    adapt_channels,
    canonical,
    count_channels,
    count_classes,
    fit,
    unwrap,
)
from segjax.pretrained.keys import (
    KERNEL,
    POINTWISE,
    UP_CONV,
    KeyTable,
    to_state_dict,
    to_variables,
)

TABLE = KeyTable(
    (
        ("encoder/conv{i}", "encoder.conv{i}"),
        ("encoder/norm", "encoder.bn"),
        ("encoder/places", "encoder.places"),
        ("extra", "extra"),
        ("head", "head"),
    ),
    renames=((r"^(?=(conv\d|bn|places)\b)", "encoder."), (r"\.convolution(\d)\.", r".conv\1.")),
    unused=(r"fc\..*",),
    optional=(r"extra\..*",),
    stem="encoder.conv1.weight",
    heads=(r"head\..*",),
    backbone="encoder.",
    resized=((r"encoder\.places", lambda array, shape: np.resize(array, shape)),),
)


def variables(*, channels=3, classes=5, places=4, extra=True, dtype=np.float32):
    """Variables of a model of this table, no two numbers the same."""
    shapes = {
        "params": {
            "encoder": {
                "conv1": {"kernel": (3, 3, channels, 4)},
                "conv2": {"kernel": (1, 1, 4, 6), "bias": (6,)},
                "norm": {"scale": (6,), "bias": (6,)},
                "places": (places,),
            },
            "head": {"kernel": (6, classes), "bias": (classes,)},
        },
        "batch_stats": {"encoder": {"norm": {"mean": (6,), "var": (6,)}}},
    }
    if extra:
        shapes["params"]["extra"] = {"bias": (2,)}
    counter = iter(range(100))
    draw = lambda shape: np.random.default_rng(next(counter)).normal(size=shape).astype(dtype)
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def state_dict(**options):
    return canonical(TABLE, to_state_dict(TABLE, variables(**options)))


@pytest.mark.parametrize(
    ("layout", "ours", "theirs"),
    [
        (KERNEL, (3, 5, 4, 6), (6, 4, 3, 5)),
        (KERNEL, (4, 6), (6, 4)),
        (POINTWISE, (4, 6), (6, 4, 1, 1)),
        (UP_CONV, (4, 4 * 6), (4, 6, 2, 2)),
    ],
)
def test_layouts_turn_back(layout, ours, theirs):
    array = np.arange(np.prod(ours)).reshape(ours)
    assert layout.theirs(array).shape == theirs
    np.testing.assert_array_equal(layout.ours(layout.theirs(array)), array, strict=True)


def test_a_state_dict_is_the_variables_and_back():
    expected = variables()
    arrays = to_state_dict(TABLE, expected)
    assert arrays["encoder.bn.num_batches_tracked"].shape == ()
    assert arrays["encoder.conv1.weight"].shape == (4, 3, 3, 3)
    jax.tree.map(np.testing.assert_array_equal, to_variables(TABLE, arrays, expected), expected)


def test_an_array_without_a_row_is_refused():
    with pytest.raises(ValueError, match="other/kernel"):
        to_state_dict(TABLE, {"params": {"other": {"kernel": np.zeros((1, 1))}}})


def test_other_names_and_what_is_unused():
    keys = (
        "encoder.convolution1.weight",
        "bn.weight",
        "bn.num_batches_tracked",
        "fc.weight",
        "head.bias",
    )
    named = canonical(TABLE, {key: np.zeros(1) for key in keys})
    assert named.keys() == {"encoder.conv1.weight", "encoder.bn.weight", "head.bias"}


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "_orig_mod.", "module._orig_mod.", "a.b.c."]
)
def test_what_all_keys_begin_with_is_left_out(prefix):
    expected = state_dict()
    given = {prefix + key: array for key, array in expected.items()} | {"n_averaged": np.array(3)}
    arrays, found = unwrap([TABLE], given)
    assert arrays.keys() == expected.keys()
    assert found == prefix.replace("_orig_mod.", "")


def test_no_name_is_left_out_that_a_table_has():
    backbone = [key for key in state_dict() if key.startswith("encoder.")]
    for keys in (backbone, [f"model.{key}" for key in backbone]):
        arrays, _ = unwrap([TABLE], dict.fromkeys(keys, np.zeros(1)))
        assert list(arrays) == backbone
    unknown = {"model.a": np.zeros(1), "model.b": np.zeros(1)}
    assert unwrap([TABLE], unknown) == (unknown, "")


def test_names_of_torch_s_wrappers_go_wherever_they_are():
    keys = ["encoder._orig_mod.bn.weight", "_fsdp_wrapped_module.head.bias", "my_orig_mod.a"]
    arrays, _ = unwrap([TABLE], dict.fromkeys(keys, np.zeros(1)))
    assert list(arrays) == ["encoder.bn.weight", "head.bias", "my_orig_mod.a"]


def test_what_a_file_says_of_classes_and_channels():
    assert count_classes(TABLE, state_dict(classes=7)) == 7
    assert count_channels(TABLE, state_dict(channels=2)) == 2
    assert count_classes(TABLE, {}) is count_channels(TABLE, {}) is None


@pytest.mark.parametrize("shape", [(), (2**40, 0), (0, 2**40)])
def test_of_an_array_without_numbers_no_length_is_believed(shape):
    assert count_classes(TABLE, {"head.weight": np.zeros(shape)}) is None
    assert count_channels(TABLE, {"encoder.conv1.weight": np.zeros(shape)}) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_take_the_model_s_dtype(dtype):
    fitted = fit(TABLE, state_dict(dtype=dtype), shapes_of(variables()))
    assert (fitted.adapted, fitted.new) == ((), {})
    assert {array.dtype for array in fitted.arrays.values()} == {np.dtype(np.float32)}
    kernel = variables()["params"]["head"]["kernel"]
    np.testing.assert_allclose(fitted.arrays["head/kernel"], kernel, rtol=1e-3)


def test_every_fault_is_in_one_error():
    arrays = state_dict()
    arrays["encoder.conv2.wieght"] = arrays.pop("encoder.conv2.weight")
    del arrays["encoder.bn.running_var"]
    arrays["encoder.bn.bias"] = np.zeros(7, np.float32)
    arrays["encoder.bn.weight"] = np.zeros(6, np.int8)
    with pytest.raises(WeightsError) as raised:
        fit(TABLE, arrays, shapes_of(variables()))
    sections = re.split(r"^  (\S+):\n", str(raised.value), flags=re.M)[1:]
    listed = {
        title: {line.strip() for line in lines.splitlines()}
        for title, lines in zip(sections[::2], sections[1::2], strict=True)
    }
    assert listed == {
        "missing": {
            "encoder.conv2.weight (6, 4, 1, 1): is it encoder.conv2.wieght?",
            "encoder.bn.running_var (6,)",
        },
        "unexpected": {"encoder.conv2.wieght (6, 4, 1, 1)"},
        "mis-shaped": {
            "encoder.bn.bias: expected shape (6,), got (7,)",
            "encoder.bn.weight: expected floating numbers, got int8",
        },
    }


def test_long_lists_of_faults_end_with_their_number():
    arrays = state_dict() | {f"x{i}": np.zeros(1) for i in range(25)}
    with pytest.raises(WeightsError, match="and 5 more"):
        fit(TABLE, arrays, shapes_of(variables()))


def test_another_head_is_new_if_asked_for_and_a_fault_if_not():
    template = shapes_of(variables(classes=3))
    fitted = fit(TABLE, state_dict(), template, new_head=True)
    assert fitted.new == {"head/bias": "head.bias", "head/kernel": "head.weight"}
    assert not fitted.arrays.keys() & fitted.new.keys()
    with pytest.raises(WeightsError, match=re.escape("head.bias: expected shape (3,), got (5,)")):
        fit(TABLE, state_dict(), template)


def test_a_backbone_alone_leaves_the_rest_new():
    arrays = {key: a for key, a in state_dict().items() if key.startswith("encoder.")}
    fitted = fit(TABLE, arrays, shapes_of(variables()))
    assert fitted.new.keys() == {"head/kernel", "head/bias", "extra/bias"}
    with pytest.raises(WeightsError, match=r"head\.weight"):
        fit(TABLE, arrays | {"head.bias": np.zeros(5)}, shapes_of(variables()))


def test_optional_parts_may_be_missing_on_either_side():
    without = fit(TABLE, state_dict(extra=False), shapes_of(variables()))
    assert without.new == {"extra/bias": "extra.bias"}
    assert not fit(TABLE, state_dict(), shapes_of(variables(extra=False))).new


def test_stem_and_embeddings_adapt():
    fitted = fit(TABLE, state_dict(), shapes_of(variables(channels=4, places=9)))
    assert set(fitted.adapted) == {"encoder.conv1.weight", "encoder.places"}
    assert fitted.arrays["encoder/conv1/kernel"].shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(
        fitted.arrays["encoder/places"], np.resize(state_dict()["encoder.places"], 9)
    )


@pytest.mark.parametrize("channels", [1, 3, 6, 9])
def test_an_adapted_kernel_sees_grey_images_as_before(channels):
    kernel = np.random.default_rng(0).normal(size=(2, 3, 1, 1))
    before = (kernel * np.ones((3, 1, 1))).sum(1)
    adapted = adapt_channels(kernel, channels)
    assert adapted.shape == (2, channels, 1, 1)
    np.testing.assert_allclose(adapted.sum(1), before)


def test_a_kernel_for_four_channels_takes_the_first_twice():
    kernel = np.array([[[[1.0]], [[2.0]], [[3.0]]]])
    expected = np.array([1, 2, 3, 1]) * 3 / 4
    np.testing.assert_array_equal(adapt_channels(kernel, 4)[0, :, 0, 0], expected)
