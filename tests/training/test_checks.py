"""What is wrong with a configuration is said before any data is read."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from segjax.data import Augmentation
from segjax.objectives import DetrObjective, Mask2FormerObjective, PixelObjective
from segjax.training import OptimizerConfig
from segjax.training.checks import check, check_devices
from segjax.training.config import CONFIGS, GROUPS, MAY_CHANGE_ON_RESUME

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
INSTANCE = {"task": "instance", "model": "mask2former_tiny"}
PANOPTIC = {"task": "panoptic", "model": "mask2former_tiny"}


def _config(task="semantic", **changes):
    return CONFIGS[task](**changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "unet_tny"}, "unknown model 'unet_tny': did you mean 'unet_tiny'"),
        ({"model_options": {"nrom": "group"}}, "did you mean 'norm'"),
        (
            {"model_options": {"norm": "grp"}},
            "options that unet_patch2 accepts, got .*norm grp",
        ),
        (
            {"model": "segformer_b0", "size": (16, 16)},
            "expected a size .* that segformer_b0 accepts, got size",
        ),
        ({"model": "maskrcnn_tiny"}, "model: expected one for semantic segmentation"),
        ({**INSTANCE, "model": "unet"}, "model: expected one for instance segmentation"),
        ({**PANOPTIC, "model": "maskrcnn_tiny"}, "which is for instance"),
        ({**PANOPTIC, "model": "detr_resnet50"}, "which is for instance"),
        (
            {**INSTANCE, "objective": PixelObjective()},
            "objective: expected Mask2FormerObjective for mask2former_tiny, got PixelObjective",
        ),
        (
            {**INSTANCE, "model": "maskrcnn_tiny", "objective": Mask2FormerObjective(matches=2)},
            "objective: expected ProposalObjective for maskrcnn_tiny",
        ),
        ({"objective": PixelObjective(dice=-1.0)}, "objective.dice: expected at least 0, got -1.0"),
        ({**PANOPTIC, "max_objects": 0}, "max_objects: expected at least 1, got 0"),
        ({"void": 3}, "void: expected None, got 3; it has no effect for synthetic"),
        ({"void": 3, "data": "coco:x"}, "void: expected None, got 3; it has no effect for coco:x"),
        ({"scale": 0.5}, "scale: expected 1.0, got 0.5; it has no effect for synthetic"),
        ({"max_value": 4095}, "max_value: expected None, got 4095; it has no effect for synth"),
        ({"max_value": 0, "data": "folder:x"}, "max_value: expected 1 to 65535, got 0"),
        (
            {"strict": True, "data": "folder:x"},
            "strict: expected False, got True; it has no effect for folder:x",
        ),
        ({"fsdp": 2}, "fsdp: expected 1, got 2; it has no effect without parallel mesh"),
        ({"coordinator": "a:1"}, "coordinator: expected None, got a:1; it has no effect without"),
        (
            {"steps": 60, "optimizer": OptimizerConfig(warmup=100)},
            "optimizer.warmup: expected fewer than the 60 steps of the run, got 100",
        ),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"eval_every": 0}, "eval_every: expected at least 1"),
        ({"size": (32, 0)}, "size: expected at least 1"),
        ({"scale": 0.0}, "scale: expected a positive number"),
        ({"optimizer": OptimizerConfig(learning_rate=float("nan"))}, "optimizer.learning_rate: "),
        (
            {"augmentation": Augmentation(zoom=(2.0, 1.0))},
            "augmentation.zoom: expected the smaller",
        ),
        ({"augmentation": Augmentation(hue=0.6)}, "augmentation.hue: expected 0 to 0.5"),
        ({"weights": "no.pth"}, "no.pth: No such file or directory"),
        ({"weights": "./no"}, "./no: No such file or directory"),
        ({"data": "folder:no/where"}, "no/where: No such folder"),
        ({"eval_split": "vla"}, "eval_split: unknown split 'vla': did you mean 'val'"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_is_said_with_the_option_s_name(tmp_path, changes, told):
    with pytest.raises((ValueError, OSError), match=told):
        check(_config(run=tmp_path / "run", **changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 12}, r"batch_size: expected a multiple of 8 \(8 device\(s\)\), got 12"),
        ({"accumulate": 4}, "batch_size: expected a multiple of 32"),
        ({"eval_batch_size": 4}, "eval_batch_size: expected a multiple of 8"),
        (
            {"batch_size": 8, "augmentation": Augmentation(copy_paste=0.5)},
            "batch_size: expected an even number of examples for each of 8 parts",
        ),
        ({"parallel": "mesh", "fsdp": 3}, "fsdp: expected a divisor of the 8 devices"),
    ],
)
def test_batches_divide_by_the_devices(changes, told):
    with pytest.raises(ValueError, match=told):
        check_devices(_config(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 4},  # a trial, whose warm-up is but the default
        {"weights": "facebook/mask2former-resnet50-coco-panoptic", "size": (8, 8)},
        {**INSTANCE, "model": "maskrcnn_tiny", "max_objects": 3},
        {**INSTANCE, "model": "detr_tiny", "objective": DetrObjective(l1=1.0)},
        {**PANOPTIC, "model": "detr_resnet50_panoptic", "score_threshold": 0.4},
        {"distributed": True, "coordinator": "a:1", "parallel": "mesh", "fsdp": 2},
    ],
)
def test_what_makes_sense_passes(tmp_path, changes):
    check(_config(run=tmp_path / "run", **changes))


@pytest.mark.parametrize("name", ["semantic", "instance", "panoptic"])
def test_the_experiments_pass(tmp_path, name):
    config = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))["CONFIG"]
    check(dataclasses.replace(config, run=tmp_path / "run"))


def test_tables_name_fields():
    names = {field.name for kind in CONFIGS.values() for field in dataclasses.fields(kind)}
    assert MAY_CHANGE_ON_RESUME | GROUPS.keys() <= names
