"""Instances and panoptic segments from the shell: trained, evaluated and predicted."""

import json
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from segjax import cli
from segjax.models import MODELS, QueryOutput, SemanticOutput
from segjax.objectives import Mask2FormerObjective, PixelObjective
from segjax.registry import ENTRIES, Entry

QUERIES = 6


class Queries(nn.Module):
    """Each query a mask by colour, and a class: a model that compiles at once."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        masks = jnp.moveaxis(nn.Dense(QUERIES)(images), -1, -3)[..., ::2, ::2]
        logits = nn.Dense(QUERIES * (self.num_classes + 1))(images.mean((-3, -2)))
        return QueryOutput(logits.reshape(-1, QUERIES, self.num_classes + 1), mask_logits=masks)


class Pixels(nn.Module):
    """A class of each pixel by its colour."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        return SemanticOutput(nn.Dense(self.num_classes)(images))


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    """Both are models by their names."""
    for model, objective in ((Pixels, PixelObjective()), (Queries, Mask2FormerObjective())):
        name = model.__name__.lower()
        monkeypatch.setitem(MODELS, name, lambda n, model=model, **options: model(n, **options))
        monkeypatch.setitem(ENTRIES, name, Entry(objective))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Bright discs on dark ground, each of its own value in the label image."""
    folder = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    for split, examples in (("train", 8), ("val", 3)):
        for kind in ("images", "instances"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(examples):
            image = rng.integers(0, 60, (32, 48, 3), np.uint8)
            instances = np.zeros((32, 48), np.uint8)
            for k, x in enumerate((10, 34), start=1):
                cv2.circle(instances, (x, int(rng.integers(10, 22))), 6, k, -1)
            image[instances > 0] += 150
            cv2.imwrite(str(folder / split / "images" / f"{i}.png"), image)
            cv2.imwrite(str(folder / split / "instances" / f"{i}.png"), instances)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("task", "score"), [("instance", "ap"), ("panoptic", "pq")])
def test_from_training_to_prediction(task, score, data, tmp_path, capsys):
    run, output = tmp_path / "run", tmp_path / "output"
    options = ["--data", f"folder:{data}", "--model", "queries"]
    options += ["--steps", "2", "--batch-size", "8", "--size", "32", "32", "--log-every", "1"]
    options += ["--objective.points", "32", "--max-objects", "4"]
    assert cli.main(["train", task, "--run", str(run), *options]) == 0
    figures = json.loads((run / "evaluation.json").read_text())
    assert 0 <= figures[score] <= 1
    assert (run / "predictions.png").is_file()

    written = tmp_path / "figures.json"
    options = ["--run", str(run), "--checkpoint", "last", "--output", str(written)]
    options += ["--pictures", str(tmp_path / "pictures")]
    assert cli.main(["evaluate", *options]) == 0
    assert json.loads(written.read_text()) == pytest.approx(figures, abs=1e-6)
    assert score.upper() in capsys.readouterr().out
    pictures = {file.name for file in (tmp_path / "pictures").iterdir()}
    assert pictures == {"best.png", "median.png", "worst.png"}

    images = str(data / "val" / "images")
    assert cli.main(["predict", images, "--run", str(run), "--output", str(output)]) == 0
    assert cv2.imread(str(output / "0_overlay.png")).shape == (32, 48, 3)
    assert isinstance(json.loads((output / "0.json").read_text()), list)
    assert (output / "0.png").is_file() == (task == "panoptic")
    results = json.loads((output / "results.json").read_text())
    results = results["annotations"] if task == "panoptic" else results
    assert {each["image_id"] for each in results} <= {0, 1, 2}

    arguments = ["predict", images, "--run", str(run), "--output", str(output)]
    assert cli.main([*arguments, "--flip"]) == 1
    assert "no effect but for the semantic task" in capsys.readouterr().err
    assert cli.main([*arguments, "--probabilities"]) == 1
    assert "--probabilities: no effect" in capsys.readouterr().err


def _labels_alone(folder):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
            cv2.imwrite(str(folder / split / kind / "0.png"), np.zeros((32, 32), np.uint8))
    (folder / "classes.json").write_text('["ground"]')
    return f"folder:{folder}"


@pytest.mark.parametrize(
    ("task", "model", "message"),
    [
        ("instance", "queries", "data: expected objects or panoptic segments"),
        ("panoptic", "pixels", "pixels, which is for semantic"),
        ("semantic", "queries", "queries, which is for instance and panoptic"),
    ],
)
def test_what_does_not_fit_ends_at_the_start(task, model, message, tmp_path, capsys):
    options = ["--model", model, "--data", _labels_alone(tmp_path / "data")]
    run = tmp_path / "run"
    options += ["--size", "32", "32", "--batch-size", "8", "--run", str(run)]
    assert cli.main(["train", task, *options]) == 1
    assert message in capsys.readouterr().err
    assert not run.exists()
