import json

import pytest
from flax import linen as nn

from segjax import cli, models, registry
from segjax.commands import costs
from segjax.commands.models import TABLE
from segjax.models import layers

ENTRIES = json.loads(TABLE.read_text())


def test_table_holds_every_model():
    """And of each what takes no trace to know."""
    assert list(ENTRIES) == list(models.MODELS)
    for name, entry in ENTRIES.items():
        known = registry.find_entry(name)
        assert entry["receptive_field"] == costs.receptive_field(models.create(name, 21)), name
        assert entry["paper"] == known.paper, name
        assert entry["size"] == list(known.size), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "unet_tiny",
        "lraspp_mobilenet_v3_large",
        "deeplabv3plus_resnet34",
        "segformer_b0",
        "segmenter_tiny_patch16",
        "detr_tiny",
        "mask2former_tiny",
        "maskrcnn_tiny",
        "eomt_tiny",
    ],
)
def test_table_is_true(name):
    """Where a model has changed, `python -m segjax.commands.costs` writes the table anew."""
    assert ENTRIES[name] == costs.describe(name)


def test_layers_are_counted_by_hand():
    layer = nn.Dense(5, use_bias=False)
    assert costs.costs(layer, (2, 4, 6, 3)) == (3 * 5, 2 * 4 * 6 * 3 * 5)
    conv = layers.Conv(5, 3, 2, use_bias=False)  # products with the border's zeros count
    assert costs.costs(conv, (2, 4, 6, 3)) == (9 * 3 * 5, 2 * 2 * 3 * 9 * 3 * 5)
    attention = layers.SelfAttention(2, layers.Dense, train=False)
    projections = 4 * 7 * 6 * 6
    assert costs.costs(attention, (1, 7, 6))[1] == projections + 2 * 7 * 7 * 6
    # Of so many tokens a CPU takes one head after the other.
    many = costs.costs(attention, (1, 730, 6))[1]
    assert many == projections // 7 * 730 + 2 * 730 * 730 * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("fcn_resnet50", 152.717),
        ("deeplabv3_resnet50", 178.722),
        ("fcn_resnet101", 232.738),
        ("deeplabv3_resnet101", 258.743),
        ("deeplabv3_mobilenet_v3_large", 10.452),
        ("lraspp_mobilenet_v3_large", 2.086),
    ],
)
def test_multiply_adds_are_torchvision_s(name, giga):
    assert ENTRIES[name]["size"] == [520, 520]
    assert round(ENTRIES[name]["multiply_adds"] / 1e9, 3) == giga


def test_parts_add_up_to_the_model():
    whole, *parts = costs.trace(models.create("eomt_tiny", 5), (1, 64, 64, 3))
    tops = [part for part in parts if "/" not in part.path]
    # Beside its modules the model has the products of its queries with the pixels.
    within = sum(part.multiply_adds for part in tops)
    assert 0.8 * whole.multiply_adds < within <= whole.multiply_adds
    by_path = {part.path: part for part in parts}
    for part in parts:
        inner = [p for path, p in by_path.items() if path.rpartition("/")[0] == part.path]
        assert sum(p.parameters for p in inner) <= part.parameters
        assert sum(p.multiply_adds for p in inner) <= part.multiply_adds


def test_listing(capsys):
    assert cli.main(["models"]) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in models.MODELS)

    names = ["unet", "fcn_resnet50", "deeplabv3_resnet50"]
    assert cli.main(["models", *names, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"num_classes": 21, "models": {name: ENTRIES[name] for name in names}}


def test_layers_of_a_model_at_a_size(capsys):
    options = ["models", "unet_tiny", "--size", "32", "64", "--num-classes", "3"]
    assert cli.main([*options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    entry, (whole, *parts) = said["models"]["unet_tiny"], said["layers"]
    assert entry["size"] == [32, 64]
    assert whole["shapes"] == [[1, 32, 64, 3]]
    assert whole["multiply_adds"] == entry["multiply_adds"]
    assert {part["path"].count("/") for part in parts} == {0, 1}

    assert cli.main([*options, "--depth", "1"]) == 0
    printed = capsys.readouterr().out
    assert "32 x 64 x 3" in printed
    assert f"{whole['multiply_adds']:,}" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("unet_tny", "did you mean 'unet_tiny'"),
        ("--size 8 8", "names: expected models"),
        ("unet_tiny --size 0 8", "size: expected at least 1, got (0, 8)"),
    ],
)
def test_mistakes(capsys, argv, message):
    assert cli.main(["models", *argv.split()]) == 1
    assert message in capsys.readouterr().err
