"""The command line, end to end on pictures of three colours."""

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import optax
import pytest

from segjax import cli, viz
from segjax.commands import convert, evaluate, models, predict, train
from segjax.data import Classes, read_image
from segjax.data.palette import palette
from segjax.models.backbones import mit_b0
from segjax.pretrained import save
from segjax.pretrained.files import read_state_dict
from segjax.tasks import SemanticTask
from segjax.training import SemanticConfig, create_state
from segjax.training.build import make_model
from segjax.training.checkpoint import Checkpoints, load_variables
from segjax.training.run_folder import read_config, write_config

RANDOM = np.random.default_rng(0)
TINY = ["--model-options", "widths", "(4,8)"]


@pytest.fixture(autouse=True)
def _cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_image(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (*shape, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write_data(folder, split):
    for number in range(8):
        mask = RANDOM.integers(0, 3, (4, 5), np.uint8).repeat(8, 0).repeat(8, 1)
        for kind, pixels in (("images", 80 * mask), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            viz.save_image(folder / split / kind / f"{number}.png", pixels)
    (folder / "classes.json").write_text(json.dumps(["sky", "road", "car"]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by `segjax train`, of a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    for split in ("train", "val"):
        write_data(folder / "data", split)
    data, run = str(folder / "data"), folder / "run"
    steps = ["--steps", "4", "--batch-size", "8", "--size", "32", "32"]
    arguments = ["--run", str(run), "--data", data, *steps, *TINY]
    assert cli.main(["train", "semantic", *arguments, "--average-decay", "0"]) == 0
    return run


def test_training_leaves_a_run(trained):
    rows = [json.loads(row) for row in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert {"checkpoints", "config.json", "curves.png", "evaluation.json", "predictions.png"} <= {
        path.name for path in trained.iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("views", [[], ["--window", "32", "64", "--batch-size", "16"]])
def test_evaluation_gives_the_metrics_that_training_ended_with(trained, tmp_path, capsys, views):
    """A window as large as the picture, and another size of the batches, change nothing."""
    output = tmp_path / "metrics.json"
    options = ["--run", str(trained), "--checkpoint", "last", "--output", str(output), *views]
    assert cli.main(["evaluate", *options]) == 0
    expected = json.loads((trained / "evaluation.json").read_text())
    metrics = json.loads(output.read_text())
    confusion = metrics.pop("confusion_matrix")
    assert confusion["classes"] == ["sky", "road", "car"]
    assert np.sum(confusion["counts"]) == 8 * 32 * 40  # pixels
    assert metrics.keys() == expected.keys()
    np.testing.assert_allclose(list(metrics.values()), list(expected.values()), atol=1e-3)
    printed = capsys.readouterr().out
    assert f"{expected['mean_iou']:.3f}" in printed
    assert "sky" in printed


@pytest.mark.slow
def test_evaluation_on_another_split_in_windows_from_several_views(trained, tmp_path):
    output = tmp_path / "metrics.json"
    views = ["--window", "16", "24", "--overlap", "0.25", "--scales", "0.5", "1", "--flip"]
    options = ["--run", str(trained), "--split", "train", "--output", str(output), *views]
    assert cli.main(["evaluate", *options]) == 0
    assert 0 < json.loads(output.read_text())["mean_iou"] <= 1


def without_progress(text):
    """The lines but those of how far it is, which are there where that takes a second."""
    return [line for line in text.splitlines() if not re.match(r"\w+: \d+ of \d+", line)]


def test_prediction_of_a_folder_finishes_what_it_can(trained, tmp_path, capsys):
    folder, output = tmp_path / "images", tmp_path / "new" / "output"
    shapes = {"a.png": (32, 64), "b.jpg": (5, 33), "c.bmp": (1, 1)}
    files = {name: write_image(folder / name, shape) for name, shape in shapes.items()}
    (folder / "broken.png").write_bytes(files["a.png"].read_bytes()[:100])
    (folder / "notes.txt").write_text("no image, and none by its name")

    options = ["--run", str(trained), "--output", str(output), "--probabilities"]
    assert cli.main(["predict", str(folder), *options]) == 1
    said = capsys.readouterr()
    (line,) = without_progress(said.err)
    assert line.startswith(f"segjax: {folder / 'broken.png'}: expected an image")
    assert "3 of 4 images predicted" in said.out

    results = {f"{stem}{end}" for stem in "abc" for end in (".png", "_overlay.png", ".npz")}
    assert {path.name for path in output.iterdir()} == results | {"classes.json"}
    colors = read_config(trained).classes.colors
    for name, shape in shapes.items():
        stem = output / files[name].stem
        labels = cv2.imread(f"{stem}.png", cv2.IMREAD_UNCHANGED)
        assert (labels.shape, labels.dtype) == (shape, np.uint8)
        probs = np.load(f"{stem}.npz")["probs"]
        assert (probs.shape, probs.dtype) == ((*shape, 3), np.float16)
        np.testing.assert_allclose(probs.sum(-1, dtype=float), 1, atol=2e-3)
        chosen = np.take_along_axis(probs, labels[..., None].astype(int), -1)[..., 0]
        np.testing.assert_array_equal(chosen, probs.max(-1))
        overlay = viz.overlay(read_image(files[name]), labels, colors)
        np.testing.assert_array_equal(read_image(f"{stem}_overlay.png"), overlay)

    variables, _ = load_variables(trained / "checkpoints", "best")
    model = make_model(SemanticConfig(model_options={"widths": "(4,8)"}), 3)
    image = read_image(files["a.png"])[None]  # of a size that needs no padding
    expected = jax.jit(SemanticTask(3).predict, static_argnums=0)(model, variables, image)[0]
    np.testing.assert_allclose(np.load(output / "a.npz")["probs"], expected, atol=2e-3)


@pytest.mark.slow
def test_flipped_pictures_get_flipped_predictions_if_asked_for(trained, tmp_path):
    image = read_image(write_image(tmp_path / "right.png", (32, 64)))
    viz.save_image(tmp_path / "left.png", image[:, ::-1])
    patterns = [str(tmp_path / "*t.png"), str(tmp_path / "right.png")]
    options = ["--run", str(trained), "--output", str(tmp_path / "out"), "--probabilities"]
    views = ["--flip", "--window", "16", "16"]
    assert cli.main(["predict", *patterns, *options, *views]) == 0
    left, right = (np.load(tmp_path / "out" / f"{name}.npz")["probs"] for name in ("left", "right"))
    np.testing.assert_allclose(left, right[:, ::-1], atol=2e-3)


@pytest.mark.slow
def test_more_than_256_classes_take_16_bits(tmp_path):
    """And where no evaluation has been, the last checkpoint stands for the best."""
    run, count = tmp_path / "run", 300
    names = tuple(map(str, range(count)))
    colors = tuple((i % 256, i // 256, 0) for i in range(count))
    config = SemanticConfig(run=run, model="unet", model_options={"widths": "(2,2)"})
    write_config(config, Classes(names, colors), 3)
    model = make_model(config, count)
    images = np.zeros((1, 8, 8, 3), np.float32)
    state = jax.jit(lambda key: create_state(key, model, optax.sgd(1.0), images))(jax.random.key(0))
    state.params["logits"]["bias"] = state.params["logits"]["bias"].at[299].set(1e6)
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(state, {})
    checkpoints.close()
    image = write_image(tmp_path / "a.png", (8, 9))
    assert cli.main(["predict", str(image), "--run", str(run), "--output", f"{run}/out"]) == 0
    labels = cv2.imread(str(run / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, np.full((8, 9), 299, np.uint16), strict=True)


def test_inputs_are_files_folders_and_patterns_each_file_once(tmp_path):
    names = ("b/2.png", "b/1.JPG", "a/x[1].png", "a/deep/3.webp")
    files = {name: tmp_path / name for name in names}
    for file in (*files.values(), tmp_path / "b" / "list.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    inputs = [tmp_path / "a" / "x[1].png", tmp_path / "b", tmp_path / "**" / "[123].*"]
    found = predict.find_images(inputs)
    assert found == [files[n] for n in ("a/x[1].png", "b/1.JPG", "b/2.png", "a/deep/3.webp")]
    assert predict.find_images([tmp_path / "?"]) == [
        files[name] for name in ("a/x[1].png", "b/1.JPG", "b/2.png")
    ]


def test_no_result_overwrites_another():
    files = [
        Path(name)
        for name in ("a/x.jpg", "a/x.png", "b/x.png", "x_2.png", "X.png", "x_overlay.png", "y.png")
    ]
    names = predict.output_names(files)
    assert names == predict.output_names(files)
    assert (names[0], names[-1]) == ("x", "y")
    results = [name + end for name in names for end in (".png", "_overlay.png", ".npz")]
    assert len({name.lower() for name in results}) == 3 * len(files)


def test_conversion_of_published_weights(tmp_path, capsys):
    source, output, back = (tmp_path / f"{name}.safetensors" for name in "abc")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(mit_b0().init, jax.random.key(0), images)
    save(jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes), source, "mit_b0")
    model = ["--model", "mit_b0"]
    assert cli.main(["convert", str(source), str(output), *model, "--naming", "authors"]) == 0
    assert capsys.readouterr().out == f"mit_b0 of {source}: {output}\n"
    assert cli.main(["convert", str(output), str(back), *model]) == 0
    first, authors, again = (read_state_dict(path).keys() for path in (source, output, back))
    assert "patch_embed1.proj.weight" in authors - first
    assert first == again

    assert cli.main(["convert", str(source), f"{output}.pth", *model]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ("trian", 2, "unknown command 'trian': did you mean 'train'?"),
        (
            "train semantic --run RUN2 --model unet_tny",
            1,
            "model 'unet_tny': did you mean 'unet_t",
        ),
        ("train semantic --run RUN2 --model-options nrom group", 1, "did you mean 'norm'?"),
        (
            "train semantic --run RUN2 --data foldr:x",
            1,
            "did you mean 'folder'?",
        ),
        ("train semantic --run RUN2 --data folder:no", 1, "no: No such folder"),
        (
            "train semantic --run RUN --data DATA",
            1,
            "RUN: expected the configuration of the run in this folder",
        ),
        (
            "train semantic --run RUN2 --data DATA --batch-size 3",
            1,
            "batch_size: expected a multiple of 8",
        ),
        ("train semantic --run RUN2 --data DATA --eval-split vla", 1, "did you mean 'val'?"),
        ("evaluate --run nope", 1, "nope: no run there"),
        ("evaluate --run EMPTY", 1, "EMPTY/checkpoints: no checkpoint there"),
        ("evaluate --run RUN --split vla", 1, "unknown split 'vla': did you mean 'val'?"),
        ("evaluate --run RUN --data synthetic", 1, "data: expected the classes"),
        ("evaluate --run RUN --overlap 1 --window 8 8", 1, "overlap: expected a share in"),
        ("evaluate --run RUN --output RUN", 1, "RUN: Is a directory"),
        ("convert no.pth OUT.safetensors --model resnet18", 1, "no.pth: No such file or directory"),
        ("convert A/a.png OUT.safetensors --model resnet18", 1, "A/a.png: expected .safetensors"),
        ("convert A/a.png OUT.safetensors", 1, "A/a.png: expected a training run, or --model"),
        ("convert A/a.png OUT.safetensors --model resnet", 1, "did you mean 'resnet"),
        (
            "train semantic --run RUN2 --weights no.pth --model fcn_resnet50",
            1,
            "no.pth: No such",
        ),
        ("predict --run RUN --output OUT", 1, "IMAGES: expected images, folders or patterns"),
        ("predict no.png --run RUN --output OUT", 1, "no.png: no image found"),
        ("predict EMPTY --run RUN --output OUT", 1, "EMPTY: no image found"),
        ("predict A/a.png --run RUN --output A", 1, "--output A: expected a folder without images"),
        ("predict A --run EMPTY --output OUT", 1, "EMPTY/checkpoints: no checkpoint there"),
        ("predict A --run RUN --output OUT --scales -1", 1, "scales: expected one or more"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_a_user_can_mend_is_said_in_one_line(
    trained, tmp_path, capsys, monkeypatch, argv, code, message
):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "A" / "a.png", (8, 8))
    empty = tmp_path / "EMPTY"
    empty.mkdir()
    (empty / "config.json").write_text((trained / "config.json").read_text())
    (tmp_path / "RUN").symlink_to(trained)
    data = f"folder:{trained.parent / 'data'}"
    arguments = [data if word == "DATA" else word for word in argv.split()]
    assert cli.main(arguments) == code
    (line,) = without_progress(capsys.readouterr().err)
    assert line.startswith("segjax: ")
    assert message in line
    assert not (tmp_path / "RUN2").exists()


def raise_inside_segjax(options):
    return palette(-1)


def raise_inside_numpy(options):
    return np.zeros(2).reshape(3)


def raising(error):
    def run(options):
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (raising(FloatingPointError("step 3: loss not finite")), 1, "step 3: loss not finite"),
        (
            raising(MemoryError()),
            1,
            "out of memory: use a smaller batch size, image size or window",
        ),
        (
            raising(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes\nand more")),
            1,
            "out of memory (RESOURCE_EXHAUSTED: 9 bytes): use a smaller batch size, image size or "
            "window",
        ),
        (raising(PermissionError(13, "Permission denied", "a.png")), 1, "a.png: Permission denied"),
        (raising(KeyboardInterrupt()), 130, "interrupted"),
        (raise_inside_segjax, 1, "num_classes: expected 0 to 3449, got -1"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_exit_codes(monkeypatch, capsys, run, code, line):
    monkeypatch.setattr(train, "run", run)
    assert cli.main(["train", "semantic"]) == code
    assert capsys.readouterr().err == f"segjax: {line}\n"


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (raising(KeyError("x")), KeyError),
        (raising(jax.errors.JaxRuntimeError("INTERNAL: x")), jax.errors.JaxRuntimeError),
        (raise_inside_numpy, ValueError),
    ],
)
def test_a_mistake_in_the_program_keeps_its_traceback(monkeypatch, run, error):
    monkeypatch.setattr(train, "run", run)
    with pytest.raises(error):
        cli.main(["train", "semantic"])


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("train semantic --stepps 3", "--steps"),
        ("train semantic --optimizer.lerning-rate 3", "--optimizer.learning-rate"),
        ("evaluate --run x --chekpoint last", "--checkpoint"),
        ("train semantic --steps many", "--steps"),
        ("predict a.png", "--run"),
    ],
)
def test_wrong_usage_names_the_flag_that_was_meant(capsys, argv, meant):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv.split())
    assert stop.value.code == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("command", [train, evaluate, predict, convert, models])
def test_every_option_says_what_it_is(command):
    def check(kind):
        for field in dataclasses.fields(kind):
            docs = [base.__doc__ or "" for base in kind.__mro__]
            assert any(f"\n      {field.name}: " in doc for doc in docs), (kind, field.name)
            if dataclasses.is_dataclass(field.default):
                check(type(field.default))

    check(command.Options)


@pytest.mark.parametrize(
    "command",
    [*(sorted(cli.COMMANDS.keys() - {"train"})), *(f"train {task}" for task in cli.TASKS)],
)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert not stop.value.code
    assert f"usage: segjax {command}" in capsys.readouterr().out


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0
    listing = capsys.readouterr().out
    assert all(command in listing for command in cli.COMMANDS)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"segjax {importlib.metadata.version('segjax')}\n"
    assert cli.main(["train", "--help"]) == 0
    listing = capsys.readouterr().out
    assert all(task in listing for task in cli.TASKS)
    assert cli.main(["train", "--steps", "3"]) == 2
    assert "expected a task, semantic or instance or panoptic, got '--steps'" in (
        capsys.readouterr().err
    )
    assert cli.main([]) == 2
    assert "usage: segjax" in capsys.readouterr().err


def test_the_installed_command_is_main_and_helps_without_waiting_for_jax():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="segjax")
    module, function = script.value.split(":")
    program = (
        f"import sys, {module} as m; code = m.{function}(); print('jax' in sys.modules); exit(code)"
    )
    run = lambda *argv: subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False
    )
    assert run("--help").stdout.endswith("False\n")
    failed = run("evaluate", "--run", "nope")
    assert failed.returncode == 1
    assert failed.stderr == "segjax: nope: no run there (config.json is missing)\n"
