"""Where names stand in the regions of a map."""

import cv2
import numpy as np
import pytest

from segjax.viz.regions import find_spots, region_borders


@pytest.mark.parametrize("seed", range(3))
def test_spots_are_those_of_each_region_by_itself(seed):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(-1, 6, (5, 7))
    regions = np.kron(blocks, np.ones((9, 11), int))
    spots = find_spots(regions)
    assert spots.keys() == set(np.unique(blocks)) - {-1}
    for k, spot in spots.items():
        mask = regions == k
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        assert mask[int(spot.y), int(spot.x)]
        assert depth[int(spot.y), int(spot.x)] >= 0.85 * depth.max()
        assert spot.depth == pytest.approx(depth.max(), rel=0.15)
        assert spot.columns == mask.any(0).sum()


def test_borders_are_the_pixels_beside_another_region():
    regions = np.zeros((5, 7), int)
    regions[:, 5:] = 1
    inside = np.zeros((5, 7), bool)
    inside[1:4, 1:4] = True
    np.testing.assert_array_equal(region_borders(regions), ~inside)
    assert region_borders(regions[:1]).all()
