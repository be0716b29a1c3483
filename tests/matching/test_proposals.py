"""Who a proposal's object is, who is left out, and that the sample is balanced and fair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segjax.matching import match_proposals, sample_proposals
from segjax.typing import Instances

NAN = float("nan")


def _objects(*boxes, valid=None, crowd=None):
    number = len(boxes)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(number, 4),
        classes=np.zeros(number, np.int32),
        valid=np.ones(number, bool) if valid is None else np.array(valid),
        crowd=None if crowd is None else np.array(crowd),
    )


def _strips(*widths):
    """Boxes 10 high from the corner: with one of width 10 their IoU is a tenth of the width."""
    return np.array([[0, 0, width, 10] for width in widths], np.float32)


SQUARE = (0, 0, 10, 10)


def test_thresholds_belong_to_the_better_kind():
    widths = [10, 7.5, 7, 5, 4]
    matches = match_proposals(_strips(*widths), _objects(SQUARE), high=0.75, low=0.5)
    assert_array_equal(matches, [0, 0, -2, -2, -1])


@pytest.mark.parametrize(("allowed", "expected"), [(True, [-1, 0, 0, 1]), (False, [-1, -1, -1, 1])])
def test_every_object_keeps_its_best_and_ties(allowed, expected):
    objects = _objects(SQUARE, (20, 0, 30, 10))
    proposals = np.concatenate([_strips(1, 2, 2), [[20, 0, 30, 10]]]).astype(np.float32)
    matches = match_proposals(proposals, objects, high=0.7, low=0.3, allow_low_quality=allowed)
    assert_array_equal(matches, expected)


def test_the_best_of_one_object_may_be_anothers():
    """The lone proposal overlaps both objects, and is the best of both: it gets the better one."""
    objects = _objects((0, 0, 2, 10), (0, 0, 4, 10))
    matches = match_proposals(_strips(10), objects, high=0.7, low=0.3, allow_low_quality=True)
    assert_array_equal(matches, [1])


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (90, 90, 99, 99)], ids=["no area", "far away"])
def test_an_object_that_no_proposal_meets_has_none(box):
    """Not all of them, though all overlap it equally."""
    matches = match_proposals(
        _strips(10, 2), _objects(box), high=0.7, low=0.3, allow_low_quality=True
    )
    assert_array_equal(matches, [-1, -1])


def test_padding_matches_nothing():
    """Padded objects and proposals may hold anything, and are nobody's best."""
    objects = _objects([NAN] * 4, SQUARE, SQUARE, valid=[False, True, False], crowd=[False] * 3)
    proposals = _strips(10, 2, NAN)
    where = np.array([True, True, False])
    matches = match_proposals(
        proposals, objects, high=0.7, low=0.3, allow_low_quality=True, where=where
    )
    assert_array_equal(matches, [1, -1, -2])
    matches = match_proposals(
        proposals,
        objects,
        high=0.7,
        low=0.3,
        allow_low_quality=True,
        where=where & [False, True, True],
    )
    assert_array_equal(matches, [-2, 1, -2])


@pytest.mark.parametrize("number", [0, 2])
def test_an_image_without_objects_is_background(number):
    objects = _objects(*[SQUARE] * number, valid=[False] * number)
    where = np.array([True, False])
    matches = match_proposals(
        _strips(10, 10), objects, high=0.5, low=0.0, allow_low_quality=True, where=where
    )
    assert_array_equal(matches, [-1, -2])


def test_no_proposals():
    matches = match_proposals(
        np.zeros((0, 4), np.float32), _objects(SQUARE), high=0.5, low=0.5, allow_low_quality=True
    )
    assert matches.shape == (0,)


def test_what_lies_in_a_crowd_is_neither():
    """Unless an object's; a share of the proposal's own area decides, however large the crowd."""
    objects = _objects((0, 0, 100, 10), (0, 0, 10, 10), crowd=[True, False])
    proposals = np.array(
        [[0, 0, 10, 10], [50, 0, 60, 10], [50, 3.5, 60, 13.5], [50, 2.5, 60, 12.5], [50, 9, 50, 9]],
        np.float32,
    )
    matches = match_proposals(proposals, objects, high=0.5, low=0.5, allow_low_quality=True)
    assert_array_equal(matches, [1, -2, -1, -2, -1])


def test_thresholds_in_order():
    with pytest.raises(ValueError, match=r"low, high: expected .*got 0\.7, 0\.3"):
        match_proposals(_strips(1), _objects(SQUARE), high=0.3, low=0.7)


def _kinds(positives, negatives, others):
    return np.repeat(np.array([2, -1, -2], np.int32), [positives, negatives, others])


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(6, 6, (2, 6)), (1, 11, (1, 7)), (0, 12, (0, 8)), (12, 0, (2, 0)), (5, 2, (2, 2))],
)
def test_at_most_so_many_positives_and_background_for_the_rest(positives, negatives, expected):
    matches = _kinds(positives, negatives, 12 - positives - negatives)
    indices, valid = map(np.asarray, _sample(jax.random.key(0), matches))
    taken = indices[valid]
    assert len(set(taken)) == len(taken)
    assert ((matches[taken] == 2).sum(), (matches[taken] == -1).sum()) == expected
    assert (np.diff(matches[taken]) <= 0).all()  # positives first
    assert (indices >= 0).all()
    assert (indices < len(matches)).all()


@jax.jit
def _sample(key, matches):
    return sample_proposals(key, matches, count=8, positive_fraction=0.25)


def test_every_pair_is_as_likely():
    """2 of 4 positives, and 6 of 8 negatives, drawn often: within 5 standard deviations."""
    draws = 4000
    matches = np.broadcast_to(_kinds(4, 8, 0), (draws, 12))
    indices, valid = _sample(jax.random.split(jax.random.key(0), draws), matches)
    assert valid.all()
    chosen = (np.asarray(indices)[..., None] == np.arange(12)).any(axis=1)
    pairs = chosen.astype(int).T @ chosen

    def expected(i, j):
        same, share = (i < 4) == (j < 4), lambda k: 2 / 4 if k < 4 else 6 / 8
        if i == j:
            return share(i)
        both = 2 * 1 / (4 * 3) if i < 4 else 6 * 5 / (8 * 7)
        return both if same else share(i) * share(j)

    chance = np.array([[expected(i, j) for j in range(12)] for i in range(12)])
    deviation = np.sqrt(draws * chance * (1 - chance))
    assert (np.abs(pairs - draws * chance) < 5 * deviation).all()


def test_fewer_proposals_than_asked_for():
    indices, valid = _sample(jax.random.key(1), _kinds(1, 2, 1))
    assert_array_equal(valid, np.arange(8) < 3)
    assert set(np.asarray(indices)[:3].tolist()) == {0, 1, 2}


def test_images_do_not_share_a_key():
    with pytest.raises(ValueError, match=r"key: expected .*got \(\)"):
        sample_proposals(
            jax.random.key(0), _kinds(2, 2, 0).reshape(2, 2), count=1, positive_fraction=1.0
        )


@pytest.mark.parametrize(
    ("matches", "options", "message"),
    [
        (_kinds(0, 0, 0), {}, "matches: expected"),
        (_kinds(1, 1, 1), {"count": 0}, r"count: expected .*got 0"),
        (_kinds(1, 1, 1), {"positive_fraction": 1.5}, r"positive_fraction: expected .*got 1\.5"),
    ],
)
def test_options_out_of_range(matches, options, message):
    with pytest.raises(ValueError, match=message):
        sample_proposals(
            jax.random.key(0),
            jnp.asarray(matches),
            **{"count": 1, "positive_fraction": 0.5, **options},
        )


def test_batches_are_images_by_themselves():
    objects = [
        _objects(SQUARE, (0, 0, 4, 10)),
        _objects((0, 0, 4, 10), SQUARE, valid=[False, True]),
    ]
    proposals = np.stack([_strips(10, 4, 2), _strips(3, 8, 10)])
    together = jax.tree.map(lambda *x: np.stack(x), *objects)
    options = {"high": 0.7, "low": 0.3, "allow_low_quality": True}
    alone = [match_proposals(p, o, **options) for p, o in zip(proposals, objects, strict=True)]
    assert_array_equal(match_proposals(proposals, together, **options), np.stack(alone))
