import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from segjax.ops import connected_components

STRUCTURES = {4: ndimage.generate_binary_structure(2, 1), 8: np.ones((3, 3))}
SIDE = 48
components = jax.jit(connected_components, static_argnames="connectivity")


def _assert_scipys(mask, connectivity):
    """The same pieces, numbered alike: both go by the first pixel."""
    expected, _ = ndimage.label(mask, structure=STRUCTURES[connectivity])
    np.testing.assert_array_equal(components(mask, connectivity=connectivity), expected)


def _spiral():
    """A line that winds inwards, with a gap of one pixel between its turns."""
    mask = np.zeros((SIDE, SIDE), bool)
    place, step = 0j, 1
    for length in [SIDE - 1, *np.repeat(np.arange(SIDE - 1, 0, -2), 2)]:
        for _ in range(length):
            mask[int(place.imag), int(place.real)] = True
            place += step
        step *= 1j
    return mask


def _snake():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


HARD = {
    "spiral": _spiral(),
    "between the spiral": ~_spiral(),
    "snake": _snake(),
    "upright snake": _snake().T,
    "checkerboard": np.indices((SIDE, SIDE)).sum(0) % 2 == 0,
    "all": np.ones((SIDE, SIDE), bool),
    "nothing": np.zeros((SIDE, SIDE), bool),
    "percolation": np.random.default_rng(0).random((SIDE, SIDE)) < 0.59,
}


@pytest.mark.parametrize("connectivity", [4, 8])
@given(hnp.arrays(bool, (7, 9)) | hnp.arrays(bool, (7, 9), elements=st.just(True)))
def test_components_are_scipys(connectivity, mask):
    _assert_scipys(mask, connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", HARD)
def test_components_of_winding_shapes_are_scipys(name, connectivity):
    _assert_scipys(HARD[name], connectivity)


def test_pictures_of_a_batch_are_numbered_each_for_itself():
    batch = np.stack(list(HARD.values()))
    expected = np.stack([components(mask, connectivity=4) for mask in batch])
    np.testing.assert_array_equal(connected_components(batch, connectivity=4), expected)
    mapped = jax.vmap(jax.vmap(lambda mask: connected_components(mask, connectivity=4)))
    np.testing.assert_array_equal(mapped(batch[None]), expected[None])


def test_no_picture_has_no_components():
    assert connected_components(np.ones((0, 3, 4), bool), connectivity=4).shape == (0, 3, 4)


def test_components_of_real_masks_are_scipys(data_dir):
    path = min((data_dir / "tiny" / "dsb2018" / "train" / "instances").iterdir())
    _assert_scipys(np.asarray(Image.open(path)) > 0, 8)


@pytest.mark.parametrize(
    ("mask", "connectivity", "error", "message"),
    [
        (np.ones(4, bool), 4, ValueError, r"mask: expected .*got \(4,\)"),
        (np.ones((4, 4)), 4, TypeError, r"mask: expected .*got float64"),
        (np.ones((4, 4), bool), 6, ValueError, r"connectivity: expected .*got 6"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(mask, connectivity, error, message):
    with pytest.raises(error, match=message):
        connected_components(mask, connectivity=connectivity)
