"""Training that starts from weights: it starts from just those, and goes on without them."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from runs import tiny

from segjax import cli
from segjax.data import Classes
from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_metadata, read_state_dict, write_safetensors
from segjax.pretrained.recipes import DEFAULT
from segjax.registry import find_entry
from segjax.training import OptimizerConfig, loop, train
from segjax.training.build import load_weights, make_task
from segjax.training.run_folder import read_config

COLOURS = ((0, 0, 0), (1, 1, 1), (2, 2, 2))

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture
def start_state(monkeypatch):
    """`config -> state` with which a run starts, or goes on; it saves that, and takes no step."""
    states = []

    def save_and_stop(config, run, checkpoints, *_):
        states.append(jax.device_get(run.state))
        checkpoints.save(run.state, {"batches": run.batches.get_state(), "best": -1.0})
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

    for source in (first.run, file):
        second = tiny(tmp_path / f"from_{source.name}", data, seed=5, weights=str(source))
        loaded = start_state(second)
        for part in ("params", "model_state", "average"):
            jax.tree.map(assert_array_equal, getattr(loaded, part), getattr(drawn, part))
        assert loaded.key.tolist() != drawn.key.tolist()  # of the run's own seed

    file.unlink()  # what goes on needs it no more
    jax.tree.map(assert_array_equal, start_state(second), loaded)


def test_the_file_of_a_run_knows_what_the_run_does(data, tmp_path, start_state, capsys):
    run = tiny(tmp_path / "run", data)
    start_state(run)
    file, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert cli.main(["convert", str(run.run), str(file)]) == 0
    assert read_config(file) == read_config(run.run)
    assert cli.main(["convert", str(file), str(again)]) == 0  # a file of a file
    assert read_metadata(again) == read_metadata(file)
    jax.tree.map(assert_array_equal, read_state_dict(again), read_state_dict(file))

    assert cli.main(["convert", str(run.run), str(file), "--num-classes", "7"]) == 1
    assert "num_classes: expected none" in capsys.readouterr().err
    write_safetensors(read_state_dict(file), again)
    with pytest.raises(WeightsError, match="expected a file converted from a run"):
        read_config(again)


def test_a_head_that_a_run_has_learnt_for_as_many_other_classes_is_new(data, tmp_path, start_state):
    first = tiny(tmp_path / "first", data)
    drawn = start_state(first)
    config = dataclasses.replace(first, weights=str(first.run))
    same = load_weights(config, Classes(("ground", "red", "green"), COLOURS), 3)
    other = load_weights(config, Classes(("soil", "box", "leaf"), COLOURS), 3)
    heads = [v["params"]["logits"]["kernel"] for v in (drawn.average, same, other)]
    assert_array_equal(heads[1], heads[0])
    assert np.any(heads[2] != heads[0])
    jax.tree.map(assert_array_equal, other["params"]["encoder_0"], same["params"]["encoder_0"])


def test_a_head_for_other_classes_is_drawn_by_the_seed(data, tmp_path, start_state):
    first = tiny(tmp_path / "first", data)
    start_state(first)
    file = tmp_path / "weights.safetensors"
    assert cli.main(["convert", str(first.run), str(file)]) == 0
    arrays = read_state_dict(file)
    names = ("params/logits/kernel", "params/logits/bias")
    write_safetensors(arrays | {name: arrays[name][..., :4] for name in names}, file)

    loaded = start_state(tiny(tmp_path / "second", data, weights=str(file)))
    assert loaded.params["logits"]["kernel"].shape == arrays["params/logits/kernel"].shape
    assert np.std(loaded.params["logits"]["kernel"]) > 0
    assert_array_equal(
        loaded.params["encoder_0"]["Conv_0"]["kernel"], arrays["params/encoder_0/Conv_0/kernel"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [{}, {"parallel": "mesh", "fsdp": 2}])
def test_frozen_parameters_have_no_state_that_is_saved_or_goes_on(
    data, tmp_path, start_state, parallel
):
    options = OptimizerConfig(name="adamw", freeze=("encoder_*",))
    config = tiny(tmp_path / "run", data, optimizer=options, **parallel)
    begun = start_state(config)
    learns = {name: x for name, x in begun.params.items() if not name.startswith("encoder_")}
    sizes = [x.size for x in jax.tree.leaves(begun.opt_state) if x.ndim]
    assert sum(sizes) == 2 * sum(x.size for x in jax.tree.leaves(learns))
    jax.tree.map(assert_array_equal, start_state(config), begun)


def test_with_weights_the_recipe_is_what_config_json_has(data, tmp_path, start_state):
    first = tiny(tmp_path / "first", data, optimizer=OptimizerConfig())
    start_state(first)
    second = tiny(
        tmp_path / "second", data, optimizer=OptimizerConfig(clip=0.5), weights=str(first.run)
    )
    start_state(second)
    scratch, recipe = (read_config(run.run).config.optimizer for run in (first, second))
    assert (scratch.learning_rate, recipe.learning_rate) == (3e-3, DEFAULT.learning_rate)
    assert (scratch.clip, recipe.clip) == (1.0, 0.5)
    start_state(second)  # goes on, for the same options resolve to the same


def test_images_are_normalised_as_the_published_model_takes_them(data, tmp_path):
    classes = Classes(("a",), ((0, 0, 0),))
    task = make_task(tiny(tmp_path, data, model="fcn_resnet50"), classes)
    entry = find_entry("fcn_resnet50")
    assert (task.mean, task.std) == (entry.mean, entry.std)


def test_weights_that_cannot_be_leave_no_run(data, tmp_path):
    config = tiny(tmp_path / "run", data, weights="no.pth")
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        train(config)
    assert not config.run.exists()
