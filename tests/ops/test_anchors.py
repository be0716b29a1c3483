import numpy as np
import pytest

from segjax.ops import pyramid_anchors


def test_every_anchor_by_its_formula():
    """detectron2's: sizes before ratios, the corners not rounded, the centre offset by half."""
    shapes, strides, sizes, ratios = (
        [(2, 3), (1, 2)],
        [4, (8, 16)],
        [[16.0], [32.0, 64.0]],
        [0.5, 2.0],
    )
    levels = pyramid_anchors(shapes, strides=strides, sizes=sizes, aspect_ratios=ratios, offset=0.5)
    for level, (height, width), step, level_sizes in zip(
        levels, shapes, [(4, 4), (8, 16)], sizes, strict=True
    ):
        expected = []
        for row in range(height):
            for column in range(width):
                x, y = step[1] * (column + 0.5), step[0] * (row + 0.5)
                for size in level_sizes:
                    for ratio in ratios:
                        w = np.sqrt(size**2 / ratio)
                        h = ratio * w
                        expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        np.testing.assert_allclose(level, expected, rtol=1e-6)


def test_rounding_is_of_the_anchor_around_zero():
    (level,) = pyramid_anchors(
        [(1, 2)], strides=[5], sizes=[[5.0]], aspect_ratios=[1.0], offset=0.5, rounded=True
    )
    np.testing.assert_array_equal(level, [[0.5, 0.5, 4.5, 4.5], [5.5, 0.5, 9.5, 4.5]])


def test_order_by_ratio_is_a_transposition():
    options = {"strides": [8], "sizes": [[8.0, 16.0]], "aspect_ratios": [0.5, 1.0, 2.0]}
    by_size, by_ratio = (
        pyramid_anchors([(2, 2)], **options, order=order)[0] for order in ("size", "ratio")
    )
    swapped = by_size.reshape(4, 2, 3, 4).swapaxes(1, 2).reshape(-1, 4)
    np.testing.assert_array_equal(by_ratio, swapped)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="strides: expected one for each of 1 levels"):
        pyramid_anchors([(1, 1)], strides=[4, 8], sizes=[[8.0]])
    with pytest.raises(ValueError, match="sizes: expected one for each of 1 levels"):
        pyramid_anchors([(1, 1)], strides=[4], sizes=[[8.0], [16.0]])
    with pytest.raises(ValueError, match=r"order: expected .*got 'scale'"):
        pyramid_anchors([(1, 1)], strides=[4], sizes=[[8.0]], order="scale")
