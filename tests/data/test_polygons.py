import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segjax.data.polygons import rasterize_polygons

numbers = st.floats(-5, 15)
triangles = st.lists(numbers, min_size=6, max_size=6)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.integers(1, 5))
def test_whole_pixels_are_a_rectangle(left, top, width, height):
    right, bottom = left + width, top + height
    mask = rasterize_polygons([[left, top, right, top, right, bottom, left, bottom]], (9, 8))
    expected = np.zeros((9, 8), bool)
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(mask, expected)


def test_polygons_are_united_and_may_leave_the_picture():
    shape, rng = (9, 8), np.random.default_rng(0)
    for i in range(200):
        a, b = rng.uniform(-5, 15, (2, 6)) if i % 2 else rng.integers(-10, 30, (2, 6)) / 2
        both = rasterize_polygons([a.tolist(), b.tolist()], shape)
        alone = [rasterize_polygons([x.tolist()], shape) for x in (a, b)]
        np.testing.assert_array_equal(both, alone[0] | alone[1])


@given(triangles)
def test_a_triangle_holds_the_centres_inside_it(triangle):
    """All that lie further than a pixel from the outline: nearer ones the grid decides."""
    corners = np.reshape(triangle, (3, 2))
    y, x = np.mgrid[:9, :8] + 0.5
    distances = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = end - start
        across = (x - start[0]) * edge[1] - (y - start[1]) * edge[0]
        distances.append(across / max(np.linalg.norm(edge), 1e-9))
    inside = np.maximum(np.min(distances, axis=0), np.min(np.negative(distances), axis=0))
    mask = rasterize_polygons([triangle], (9, 8))
    assert mask[inside > 1].all()
    assert not mask[inside < -1].any()


def test_no_polygon_is_no_pixel():
    assert not rasterize_polygons([], (3, 4)).any()
    assert not rasterize_polygons([[1, 1, 1, 1, 1, 1]], (3, 4)).any()
