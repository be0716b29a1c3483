import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segjax.data.errors import DataError
from segjax.data.rle import decode_rle, encode_rle


@given(arrays(bool, st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_a_mask_comes_back(mask):
    text = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(text, mask.shape), mask)
    assert json.loads(json.dumps(text)) == text


@given(st.lists(st.integers(1, 2**20), min_size=1, max_size=6))
def test_runs_of_any_length_come_back(runs):
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)[:, None]
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)
    np.testing.assert_array_equal(decode_rle(runs, mask.shape), mask)


def test_runs_go_down_the_columns():
    mask = decode_rle([1, 3, 2], (2, 3))
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 1, 0]]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("1", "expected runs that fill .* got runs of 0 to 1"),
        ([3, -1, 2], "runs of -1 to 3"),
        ([1.5, 2.5], "expected a list of integers"),
        ([True, 3], "expected a list of integers"),
        ([2**63 - 1, 2**63 - 1, 2, 4], "runs of 0 to 9223372036854775807"),
        (np.array([2**64 - 4, 8], np.uint64), "runs of -4 to 8"),
        ([2**64, 4], "integers of up to 64 bits"),
        ("4\ud800", "a character that"),
        ([[4]], "expected a list of integers"),
        ("4 ", "a character that"),
        ("4é", "a character that"),
        ("4P", "ends within a number"),
        ("PPPPPPPPP0", "at most 40 bits"),
    ],
)
def test_what_is_no_mask_is_an_error(counts, message):
    with pytest.raises(DataError, match=message):
        decode_rle(counts, (2, 2))
