import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, PartitionSpec
from PIL import Image
from scipy import ndimage

from segjax.ops import distance_transform, signed_distance

dense_masks = hnp.arrays(bool, (7, 9))
masks = dense_masks | hnp.arrays(bool, (7, 9), elements=st.just(False), fill=st.just(True))
spacings = st.sampled_from([(1.0, 1.0), (0.5, 2.0), (3.0, 0.7)])


def _blobs(*shape, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (0, sigma, sigma)) > 0


@given(masks.filter(lambda mask: not mask.all()), spacings)
def test_distances_are_scipys(mask, spacing):
    expected = ndimage.distance_transform_edt(mask, sampling=spacing)
    np.testing.assert_allclose(distance_transform(mask, spacing=spacing), expected, rtol=1e-6)


def test_distances_in_volumes_are_scipys():
    """Also through slices that are all True, of more of them than a tile has, and where none is."""
    volumes = np.random.default_rng(0).random((3, 20, 5, 6)) < 0.97
    volumes[1, :17] = True
    volumes[2] = True
    spacing = 2.5, 0.5, 1.5
    distances = distance_transform(volumes, spacing=spacing)
    for volume, distance in zip(volumes[:2], distances[:2], strict=True):
        expected = ndimage.distance_transform_edt(volume, sampling=spacing)
        np.testing.assert_allclose(distance, expected, rtol=1e-6)
    np.testing.assert_allclose(distances[2], np.linalg.norm([50, 2.5, 9]), rtol=1e-6)


def _shapes_of_many_sizes():
    """Pictures of several tiles of rows and strips of columns, the last of them not whole."""
    corner, far, stripe, diagonal, circle = np.ones((5, 1, 100, 90), bool)
    corner[0, 99, 89] = False
    far[0, [0, 99], [89, 0]] = False
    stripe[0, 70:72] = False
    diagonal[0, np.arange(90), np.arange(90)] = False
    y, x = np.mgrid[:100, :90]
    circle[0] = np.hypot(y - 50, x - 45) < 44
    blobs = _blobs(1, 100, 90, sigma=3), _blobs(1, 100, 90, sigma=20)
    noise = np.random.default_rng(0).random((1, 100, 90)) < 0.5
    return np.concatenate([corner, far, stripe, diagonal, circle, noise, *blobs, ~blobs[0]])


def test_distances_are_scipys_in_large_pictures_alone_in_a_batch_and_on_devices():
    batch = _shapes_of_many_sizes()
    expected = np.stack([ndimage.distance_transform_edt(mask) for mask in batch])
    np.testing.assert_allclose(distance_transform(batch), expected, rtol=1e-6)
    for mask, its_own in zip(batch[:2], expected[:2], strict=True):
        np.testing.assert_allclose(distance_transform(mask), its_own, rtol=1e-6)
    mesh = jax.make_mesh((3,), ("data",), (AxisType.Auto,), devices=jax.devices()[:3])
    spec = PartitionSpec("data")
    mapped = jax.shard_map(jax.vmap(distance_transform), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(mapped)(batch), expected, rtol=1e-6)


def test_one_picture_does_not_reach_into_the_next():
    batch = np.ones((2, 3, 4), bool)
    batch[0] = False
    np.testing.assert_array_equal(
        distance_transform(batch), np.stack([np.zeros((3, 4)), [[5] * 4] * 3])
    )


def test_a_mask_without_background_is_a_diagonal_away():
    everything = np.ones((3, 4), bool)
    np.testing.assert_array_equal(distance_transform(everything), 5)
    np.testing.assert_allclose(distance_transform(everything, spacing=(4.0, 1.25)), 13)
    np.testing.assert_array_equal(distance_transform(everything[:1, :1]), np.float32(np.sqrt(2)))


@given(masks.filter(lambda mask: mask.any() and not mask.all()))
def test_signed_distance_is_positive_outside_and_negative_inside(mask):
    to_mask, to_background = (ndimage.distance_transform_edt(m) for m in (~mask, mask))
    np.testing.assert_allclose(signed_distance(mask), to_mask - to_background, rtol=1e-6)


@given(masks)
def test_signed_distance_changes_its_sign_with_the_side(mask):
    np.testing.assert_array_equal(signed_distance(~mask), -signed_distance(mask))


@pytest.mark.parametrize("inside", [False, True])
def test_a_mask_without_a_border_has_no_distance_to_it(inside):
    assert not signed_distance(np.full((3, 4), inside)).any()


def test_void_pixels_lie_on_neither_side():
    """A void gap between the sides makes both farther; what it holds does not matter."""
    where = np.array([[True, True, False, False, True]])
    for content in (False, True):
        mask = np.array([[True, True, content, content, False]])
        signed = signed_distance(mask, where=where)
        np.testing.assert_array_equal(np.where(where, signed, 0), [[-4, -3, 0, 0, 3]])


def test_distances_in_real_masks_are_scipys(data_dir):
    paths = sorted((data_dir / "tiny" / "dsb2018" / "train" / "instances").iterdir())[:2]
    for path in paths:
        mask = np.asarray(Image.open(path)) > 0
        assert mask.any()
        expected = ndimage.distance_transform_edt(mask)
        np.testing.assert_allclose(distance_transform(mask), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda mask: distance_transform(mask[0]),
            ValueError,
            r"mask: expected shape \[\*b, h, w\], got \(4,\)",
        ),
        (
            lambda mask: distance_transform(mask * 1.0),
            TypeError,
            "mask: expected bool, got float64",
        ),
        (
            lambda mask: distance_transform(mask, spacing=(0, 1)),
            ValueError,
            r"spacing: expected two or three positive numbers, got \(0, 1\)",
        ),
        (
            lambda mask: signed_distance(mask[0]),
            ValueError,
            r"mask: expected shape \[\*b, h, w\], got \(4,\)",
        ),
        (lambda mask: signed_distance(mask + 1), TypeError, "mask: expected bool, got int64"),
        (
            lambda mask: signed_distance(mask, where=jnp.ones(3, bool)),
            ValueError,
            "where: expected",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((3, 4), bool))
