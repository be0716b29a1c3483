from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjax.ops import (
    ConvSpec,
    ReceptiveField,
    effective_kernel,
    has_gridding,
    min_depth,
    receptive_field,
    seen_pixels,
    skips_objects,
)

convs = st.builds(
    ConvSpec,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 4),
    padding=st.integers(0, 4),
)
UP = ConvSpec(1, stride=Fraction(1, 2))


@given(st.lists(convs, max_size=5))
def test_the_field_of_a_chain_follows_the_recursion(layers):
    size, stride, padding = 1, 1, 0
    for layer in layers:
        size += layer.dilation * (layer.kernel - 1) * stride
        padding += layer.padding * stride
        stride *= layer.stride
    assert receptive_field(layers) == ReceptiveField(size, stride, padding)


@given(st.lists(convs | st.lists(convs.filter(lambda c: c.stride == 1)).map(lambda b: ([], b))))
def test_the_field_spans_the_seen_pixels(layers):
    field, pixels = receptive_field(layers[:4]), seen_pixels(layers[:4])
    assert -field.padding == pixels[0]
    assert pixels[-1] - pixels[0] + 1 >= field.size
    if all(isinstance(layer, ConvSpec) for layer in layers[:4]):
        assert pixels[-1] - pixels[0] + 1 == field.size


def test_dilated_layers_see_linearly_more_with_depth():
    for depth in range(1, 6):
        field = receptive_field([ConvSpec(3, dilation=2, padding=2)] * depth)
        assert field == ReceptiveField(1 + 4 * depth, 1, 2 * depth)


def test_of_branches_the_largest_counts():
    """Pyramid pooling to 1, 2, 3 and 6 bins of 60 pixels and back; ASPP behind a stem."""
    pyramid = tuple(
        [ConvSpec(60 // bins, stride=60 // bins), ConvSpec(1, stride=Fraction(bins, 60))]
        for bins in (1, 2, 3, 6)
    )
    assert receptive_field([([], *pyramid)]) == ReceptiveField(60, 1, 0)
    stem = ConvSpec(7, stride=2, padding=3)
    aspp = tuple([ConvSpec(3, dilation=d, padding=d)] for d in (6, 12, 18))
    assert receptive_field([stem, aspp]) == ReceptiveField(7 + 2 * 36, 2, 3 + 2 * 18)


@pytest.mark.parametrize("outputs", range(2, 9))
def test_a_decoder_sees_whole_pixels_of_what_it_enlarges(outputs):
    """Of all places for neighbours behind two doublings, the worst one counts."""
    layers = [ConvSpec(4, stride=4), UP, UP, ConvSpec(outputs)]
    worst = max(4 * ((first + outputs - 1) // 4 - first // 4 + 1) for first in range(4))
    assert receptive_field(layers) == ReceptiveField(worst, 1, 0)


@given(st.integers(1, 200), st.integers(2, 7), st.integers(1, 6))
def test_min_depth_is_the_least_that_sees_enough(size, kernel, dilation):
    depth = min_depth(size, kernel=kernel, dilation=dilation)
    layers = [ConvSpec(kernel, dilation=dilation)] * depth
    assert receptive_field(layers).size >= size
    assert not layers or receptive_field(layers[1:]).size < size


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_effective_kernel_is_the_field_of_one_layer(kernel, dilation):
    field = receptive_field([ConvSpec(kernel, dilation=dilation)])
    assert effective_kernel(kernel, dilation=dilation) == field.size


@pytest.mark.parametrize(
    ("rates", "gaps"),
    [
        ((2, 2, 2), True),
        ((2, 4, 8), True),
        ((1, 2, 9), True),
        ((1, 2, 5), False),
        ((1, 2, 3), False),
    ],
)
def test_hybrid_dilations_leave_no_gaps(rates, gaps):
    """The examples of Wang et al., for kernels of 3."""
    assert has_gridding([ConvSpec(3, dilation=d) for d in rates]) == gaps


def test_a_gap_may_be_filled_by_another_branch():
    layers = [tuple([ConvSpec(3, dilation=d, padding=d)] for d in (1, 2))]
    assert not has_gridding(layers)
    assert has_gridding([layers[0][1:]])
    assert seen_pixels(layers) == (-2, -1, 0, 1, 2)


def test_steps_over_objects_are_in_pixels_of_the_input():
    aspp = ([ConvSpec(1)], [ConvSpec(3, dilation=6, padding=6)])
    layers = [ConvSpec(3, stride=2), ConvSpec(1, dilation=99), aspp]
    assert not skips_objects(layers, width=12)
    assert skips_objects(layers, width=11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvSpec(0), r"kernel, .*: expected .*got 0, 1, 1, 0"),
        (lambda: ConvSpec(3, padding=-1), r"padding: expected .*got 3, 1, 1, -1"),
        (lambda: receptive_field([([], [ConvSpec(3, stride=2)])]), r"layers: .*got \[1, 2\]"),
        (lambda: min_depth(9, kernel=1, dilation=1), r"kernel, .*: expected .*got 9, 1, 1"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
