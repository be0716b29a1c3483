"""Which images a model does best and worst with."""

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segjax.commands.extremes import ImageEvaluator, write_extremes
from segjax.data import Classes, Source
from segjax.inference import Predictor
from segjax.models import SemanticOutput
from segjax.tasks import SemanticTask
from segjax.training import SemanticConfig
from segjax.training.evaluate import make_evaluate
from segjax.training.parallel import Parallel
from segjax.typing import Record

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))


class Brightness(nn.Module):
    """A pixel is bright above one half."""

    def __call__(self, images, train=False):
        bright = images[..., :1]
        return SemanticOutput(jnp.concatenate([-bright, bright], axis=-1))


class Pictures(Source):
    """Bright on the right; each label of some columns is wrong, and of some images all is void."""

    classes = CLASSES
    channels = 3

    def __init__(self, wrong):
        self.wrong = wrong
        self.sizes = np.array([[8, 8 + i] for i in range(len(wrong))])

    def read(self, index):
        height, width = self.sizes[index]
        labels = np.broadcast_to(np.arange(width) >= width // 2, (height, width)).astype(np.int32)
        wrong = self.wrong[index]
        shown = labels.copy()
        shown[:, : wrong or 0] ^= 1
        image = np.repeat(shown[..., None], 3, axis=-1).astype(np.uint8) * 255
        return Record(image=image, labels=labels, where=np.full(labels.shape, wrong is not None))


def _trained():
    return Predictor(SemanticTask(2), Brightness(), {}, CLASSES, config=SemanticConfig())


@pytest.mark.slow
def test_images_are_ranked_by_their_own_score(tmp_path):
    """Those that are void have none."""
    judge = ImageEvaluator(_trained(), Pictures([3, None, 1, 0, 2, None]))
    scores, _ = judge.scores()
    found = write_extremes(tmp_path / "new", judge, scores)
    assert found == {"best": 3, "median": 2, "worst": 0}
    assert scores[3] == pytest.approx(1)
    # Of 8 columns 3 are wrong: of 4 dark ones 1 is found, and 3 are called bright.
    assert scores[0] == pytest.approx((1 / 4 + 4 / 7) / 2)
    assert_array_equal(np.isnan(scores), [False, True, False, False, False, True])
    for name in found:
        assert cv2.imread(str(tmp_path / "new" / f"{name}.png")) is not None


@pytest.mark.slow
def test_the_metric_of_all_is_that_of_a_whole_split():
    """Whose examples come in batches, over all devices."""
    trained, source, parallel = _trained(), Pictures([3, None, 1, 0, 2, 8]), Parallel()
    batch_size = jax.device_count()
    evaluate = make_evaluate(trained.task, trained.model, source, parallel, batch_size=batch_size)
    _, metric = ImageEvaluator(trained, source).scores()
    expected = evaluate(parallel.place(trained.variables))
    jax.tree.map(assert_array_equal, metric, expected.metric)


def test_nothing_to_judge_is_an_error(tmp_path):
    judge = ImageEvaluator(_trained(), Pictures([None, None]))
    with pytest.raises(ValueError, match="data: expected an image with a score, got none in 2"):
        write_extremes(tmp_path / "new", judge, judge.scores()[0])
    assert not (tmp_path / "new").exists()
