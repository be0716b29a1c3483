import numpy as np
import pytest

from segjax.data.palette import palette


def dichromats(linear):
    """Viénot, Brettel and Mollon, 1999: protanopes and deuteranopes by a projection in LMS."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for project in (protan, deutan):
        yield np.clip(linear @ (np.linalg.inv(to_lms) @ project @ to_lms).T, 0, 1)


def lab(linear):
    """CIE L*a*b* of linear sRGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.transpose(to_xyz) / [0.9505, 1, 1.089]
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize(("num_classes", "least"), [(7, 15), (21, 15), (40, 9)])
def test_palette_colors_are_told_apart_by_every_eye(num_classes, least):
    # A difference of 2.3 is just noticeable.
    scaled = palette(num_classes) / 255
    linear = np.where(scaled > 0.04045, ((scaled + 0.055) / 1.055) ** 2.4, scaled / 12.92)
    for seen in (linear, *dichromats(linear)):
        difference = np.linalg.norm(lab(seen)[:, None] - lab(seen), axis=-1)
        assert difference[np.triu_indices(num_classes, 1)].min() > least


def test_palette_starts_with_the_same_colors_however_many_there_are():
    assert palette(0).shape == (0, 3)
    many = palette(300)
    assert len(np.unique(many, axis=0)) == 300
    for count in (1, 7, 8, 50):
        np.testing.assert_array_equal(palette(count), many[:count])
    with pytest.raises(ValueError, match=r"num_classes: expected .*got 3450"):
        palette(3450)
    assert len(palette(3449)) == 3449
