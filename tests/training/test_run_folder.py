"""The run folder: it says what ran, and holds a run to what it was."""

import dataclasses
import json
import pathlib

import jax
import pytest

from segjax.data import Classes
from segjax.objectives import PixelObjective
from segjax.training import OptimizerConfig, SemanticConfig
from segjax.training.config import MAY_CHANGE_ON_RESUME, to_dict
from segjax.training.resolve import parse_config
from segjax.training.run_folder import LIBRARIES, read_config, write_config

CLASSES = Classes(("sky", "road"), ((1, 2, 3), (4, 5, 6)), ids=(3, 90))
CONFIG = SemanticConfig(
    data="folder:there",
    model_options={"widths": "(4, 8)"},
    size=(32, 48),
    objective=PixelObjective(class_weights=(1.0, 2.0)),
    optimizer=OptimizerConfig(clip=None),
)


def _config(tmp_path, **changes):
    return dataclasses.replace(CONFIG, run=tmp_path / "run", **changes)


def test_configurations_survive_json():
    assert parse_config(json.loads(json.dumps(to_dict(CONFIG)))) == CONFIG


def test_a_run_folder_says_what_ran(tmp_path):
    config = _config(tmp_path)
    write_config(config, CLASSES, 3)
    info = read_config(config.run)
    assert (info.config, info.classes, info.channels) == (config, CLASSES, 3)
    content = json.loads((config.run / "config.json").read_text())
    assert content["versions"]["jax"] == jax.__version__
    assert set(content["versions"]) == set(LIBRARIES)
    assert len(content["devices"]) == jax.device_count()


def test_the_scale_of_a_run_is_not_guessed(tmp_path):
    config = _config(tmp_path)
    write_config(config, CLASSES, 3)
    content = json.loads((config.run / "config.json").read_text())
    del content["config"]["scale"]
    (config.run / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="config: expected the scale of the run, got none"):
        read_config(config.run)


def test_a_run_of_other_classes_is_refused(tmp_path):
    write_config(_config(tmp_path), CLASSES, 3)
    other = dataclasses.replace(CLASSES, names=("sky", "sea"))
    with pytest.raises(ValueError, match=r"in this folder \(sky, road; 3\), got sky, sea; 3"):
        write_config(_config(tmp_path), other, 3)
    with pytest.raises(ValueError, match=r"got sky, road; 1;"):
        write_config(_config(tmp_path), CLASSES, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected JSON, got other text"),
        (b"\xff", "expected UTF-8 text"),
        (b"[" * 100_000, "expected JSON, got text that is nested too deeply"),
        (b"[]", "expected config, classes"),
    ],
)
def test_a_damaged_configuration_is_one_line(tmp_path, content, told):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"^[^\n]*config.json: {told}[^\n]*$"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("config", {"scale": 10**400}, "scale: expected a number"),
        ("config", {"stesp": 3}, "unknown option 'stesp': did you mean 'steps'"),
        ("config", {"task": 3}, "task: expected semantic or instance or panoptic"),
        ("classes", {"names": ["sky", 3]}, "names: expected one text or more"),
        ("classes", {"names": []}, "names: expected one text or more"),
        ("classes", {"colors": [[1, 2, 3], [4, 5, 2**64]]}, "colors: expected 2 colours"),
        ("classes", {"things": [1, 0]}, "things: expected 2 booleans"),
        ("classes", {"ids": [1, 1]}, "ids: expected 2 different"),
    ],
)
def test_an_edited_configuration_is_one_line(tmp_path, part, values, told):
    config = _config(tmp_path)
    write_config(config, CLASSES, 3)
    content = json.loads((config.run / "config.json").read_text())
    content[part] |= values
    (config.run / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^[^\n]*config.json: {told}"):
        read_config(config.run)


def test_a_run_goes_on_where_nothing_differs_that_counts(tmp_path):
    write_config(_config(tmp_path), CLASSES, 3)
    before = (tmp_path / "run" / "config.json").read_text()
    write_config(_config(tmp_path, parallel="mesh", fsdp=2, save_every=7, threads=9), CLASSES, 3)
    assert (tmp_path / "run" / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, r"\(seed 0\), got seed 1;"),
        ({"size": (32, 32)}, r"\(size \[32, 48\]\), got size \[32, 32\]"),
        (
            {"model": "unet", "steps": 7},
            r"\(model unet_patch2, steps 1000\), got model unet, steps 7;",
        ),
        (
            {"optimizer": OptimizerConfig(clip=1.0)},
            r"\(optimizer\.clip None\), got optimizer\.clip 1\.0",
        ),
    ],
)
def test_a_folder_of_another_run_is_refused_with_what_differs(tmp_path, changes, told):
    write_config(_config(tmp_path), CLASSES, 3)
    with pytest.raises(ValueError, match=told):
        write_config(_config(tmp_path, **changes), CLASSES, 3)


def test_what_may_differ_are_fields():
    assert {field.name for field in dataclasses.fields(SemanticConfig)} > MAY_CHANGE_ON_RESUME


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run there"):
        read_config(pathlib.Path(tmp_path))


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write_config(_config(tmp_path), CLASSES, 3)
    assert list(tmp_path.iterdir()) == []
