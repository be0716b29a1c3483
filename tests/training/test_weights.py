"""Training that starts from weights: it starts from just those, and goes on without them."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from runs import tiny

from segjax import cli
from segjax.data import Classes
from segjax.pretrained import PUBLISHED, Published
from segjax.pretrained.files import read_state_dict, write_safetensors
from segjax.pretrained.keys import SAME, KeyTable, Original
from segjax.training import loop, train
from segjax.training.build import make_task

pytestmark = pytest.mark.usefixtures("compiled")


class OwnNames(KeyTable):
    """Our names, with dots."""

    def original(self, path):
        return Original((path.replace("/", "."),), SAME)


@pytest.fixture(autouse=True)
def _published(monkeypatch):
    own = OwnNames((), counters=False, stem="encoder_0.Conv_0.kernel", heads=(r"logits\..*",))
    monkeypatch.setitem(PUBLISHED, "unet_patch2", Published(own, "none", (32, 32)))


@pytest.fixture
def start_state(monkeypatch):
    """`config -> state` with which a run starts, or goes on; it saves that, and takes no step."""
    states = []

    def save_and_stop(config, run, checkpoints, *_):
        states.append(jax.device_get(run.state))
        checkpoints.save("last", run.state, {"batches": run.batches.get_state(), "best": -1.0})
        return 0

    monkeypatch.setattr(loop, "_fit", save_and_stop)

    def start(config):
        train(config)
        return states[-1]

    return start


def test_from_a_run_to_a_file_to_a_run(data, tmp_path, start_state):
    first = tiny(tmp_path / "first", data)
    drawn = start_state(first)
    file = tmp_path / "weights.safetensors"
    assert cli.main(["convert", str(first.run), str(file)]) == 0

    second = tiny(tmp_path / "second", data, seed=5, weights=str(file))
    loaded = start_state(second)
    for part in ("params", "model_state", "average", "opt_state"):
        jax.tree.map(assert_array_equal, getattr(loaded, part), getattr(drawn, part))
    assert loaded.key.tolist() != drawn.key.tolist()  # of the run's own seed

    file.unlink()  # what goes on needs it no more
    jax.tree.map(assert_array_equal, start_state(second), loaded)


def test_a_head_for_other_classes_is_drawn_by_the_seed(data, tmp_path, start_state):
    first = tiny(tmp_path / "first", data)
    start_state(first)
    file = tmp_path / "weights.safetensors"
    assert cli.main(["convert", str(first.run), str(file)]) == 0
    arrays = read_state_dict(file)
    names = ("logits.kernel", "logits.bias")
    write_safetensors(arrays | {name: arrays[name][..., :4] for name in names}, file)

    loaded = start_state(tiny(tmp_path / "second", data, weights=str(file)))
    assert loaded.params["logits"]["kernel"].shape == arrays["logits.kernel"].shape
    assert np.std(loaded.params["logits"]["kernel"]) > 0
    assert_array_equal(
        loaded.params["encoder_0"]["Conv_0"]["kernel"], arrays["encoder_0.Conv_0.kernel"]
    )


def test_images_are_normalised_as_the_published_model_takes_them(data, tmp_path):
    classes = Classes(("a",), ((0, 0, 0),))
    task = make_task(tiny(tmp_path, data, model="fcn_resnet50"), classes)
    published = PUBLISHED["fcn_resnet50"]
    assert (task.mean, task.std) == (published.mean, published.std)


def test_weights_that_cannot_be_leave_no_run(data, tmp_path):
    config = tiny(tmp_path / "run", data, weights="no.pth")
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        train(config)
    assert not config.run.exists()
