"""The command line of a training run: files, flags, hints and help."""

import dataclasses

import pytest

from segjax.data import Classes
from segjax.flags import check_flags, flags
from segjax.objectives import DetrObjective, Mask2FormerObjective, PixelObjective
from segjax.training import InstanceConfig, OptimizerConfig, SemanticConfig
from segjax.training.arguments import HINTS, parse_args, parse_experiment
from segjax.training.run_folder import write_config

CONFIG = SemanticConfig(
    steps=77,
    size=(64, 96),
    model_options={"norm": "group", "widths": "(4, 8)"},
    objective=PixelObjective(class_weights=(1.0, 2.0)),
    optimizer=OptimizerConfig(learning_rate=1e-5, clip=None),
)


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "steps: 60\nsize: [32, 64]\noptimizer: {learning-rate: 1e-3}\noptimizer.warmup: 5\n"
        "model_options: {widths: [4, 8]}\n"
    )
    file = ["--config", str(tmp_path / "run.yaml")]
    config = parse_args(CONFIG, args=[*file, "--steps", "9", "--objective.class-weights", "None"])
    assert config == dataclasses.replace(
        CONFIG,
        steps=9,
        size=(32, 64),
        model_options={"widths": "(4, 8)"},
        objective=PixelObjective(),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=5, clip=None),
    )


@pytest.mark.parametrize("what", ["", "config.json"])
def test_the_configuration_of_a_run_gives_the_same_run(tmp_path, what):
    config = dataclasses.replace(CONFIG, run=tmp_path / "run")
    write_config(config, Classes(("sky", "road"), ((1, 2, 3), (4, 5, 6))), 3)
    assert parse_args(SemanticConfig(), args=[f"--config={config.run / what}"]) == config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stepps: 3", "unknown option 'stepps': did you mean 'steps'"),
        ("optimizer: {lerning_rate: 3}", "did you mean 'optimizer.learning_rate'"),
        ("optimizer: adamw", "optimizer: expected options by name, got 'adamw'"),
        ("steps: many", "steps: expected int, got 'many'"),
        ("steps: 1.5", "steps: expected int, got 1.5"),
        ("steps: true", "steps: expected int, got True"),
        ("scale: large", "scale: expected a number, got 'large'"),
        ("size: 3", "size: expected .*, got 3"),
        ("task: panoptic", "task: expected semantic, got 'panoptic'"),
        ("distributed: 1", "distributed: expected bool, got 1"),
        ("- steps", "expected options by name, got list"),
        ("a: b: c", "expected YAML or JSON"),
        ("steps: !!int many", "expected YAML or JSON"),
        ("[" * 3000, "expected YAML or JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_name(tmp_path, text, told):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        parse_args(SemanticConfig(), args=["--config", str(path)])
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--resume", "run the same command again; it resumes from the last checkpoint of --run"),
        ("--img_size=3", "use --size HEIGHT WIDTH"),
        ("--stepps", "did you mean --steps?"),
        ("--learning-rate", "did you mean --optimizer.learning-rate?"),
        ("--xyzzy", "no such option; see --help"),
    ],
)
def test_a_flag_that_is_not_there_is_one_line(capsys, flag, told):
    with pytest.raises(SystemExit) as stop:
        parse_args(SemanticConfig(), args=["--steps", "3", flag, "4"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ([], {"width": "32"}),
        (["--model-options", "num_queries", "5"], {"num_queries": "5"}),
        (["--model", "maskrcnn_tiny"], {}),
        (["--model", "maskrcnn_tiny", "--model-options", "width", "16"], {"width": "16"}),
    ],
)
def test_options_are_those_of_the_model(args, options):
    default = InstanceConfig(model="mask2former_tiny", model_options={"width": "32"})
    assert parse_args(default, args=args).model_options == options


def test_no_hint_stands_for_a_flag_there_is():
    known = set(flags(CONFIG))
    assert not known & HINTS.keys()
    check_flags(["--steps=3", "--augmentation.no-flip", "--run", "-x", "--", "--no"], known)


def test_help_shows_every_option_in_a_group_with_a_sentence(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parse_args(CONFIG, args=["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for flag in flags(CONFIG):
        assert flag in text
    for title in ("run", "data", "training", "objective", "devices and hosts"):
        assert f"{title} options" in text
    assert "(default: 64 96)" in text
    assert "(default: None)" not in text


def test_the_options_of_the_objective_are_those_of_the_model(capsys):
    """Where it is of the same kind it stays; another model brings its own."""
    default = InstanceConfig(objective=Mask2FormerObjective(points=9), max_objects=3)
    parse = lambda *args: parse_args(default, args=args).objective
    assert parse("--model", "eomt_tiny", "--objective.dice", "2") == Mask2FormerObjective(
        points=9, dice=2.0
    )
    assert parse("--model=detr_resnet50", "--objective.l1", "3") == DetrObjective(l1=3.0)
    with pytest.raises(SystemExit):
        parse("--model=detr_resnet50", "--objective.points", "3")
    assert "--objective.points: no such option" in capsys.readouterr().err
    assert parse_args(SemanticConfig(model="fcn_resnet50"), args=[]).objective.dice == 0


@dataclasses.dataclass(frozen=True)
class Several:
    """Runs of an experiment.

    Attributes:
      seeds: Seeds of the runs.
    """

    seeds: tuple[int, ...] = (0, 1)


def test_an_experiment_has_options_of_its_own():
    options, config = parse_experiment(Several(), CONFIG, args=["--seeds", "5", "--steps", "9"])
    assert options == Several(seeds=(5,))
    assert config == dataclasses.replace(CONFIG, steps=9)
