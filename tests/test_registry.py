"""The registry: one entry for each model, its objective that of its paper."""

import dataclasses

import pytest

from segjax import models, registry
from segjax.models import backbones
from segjax.objectives import (
    DetrObjective,
    Mask2FormerObjective,
    MaskFormerObjective,
    PixelObjective,
    ProposalObjective,
)
from segjax.registry import ENTRIES, Entry, default_objective, find_entry

# The criteria of the originals, by family: weights as their authors' code has them.
CROSS_ENTROPY = {"cross_entropy": 1.0, "dice": 0.0, "lovasz": 0.0, "label_smoothing": 0.0}
ORIGINALS = {
    # torchvision, references/segmentation/train.py: cross-entropy, 0.5 of the auxiliary head's
    "fcn_resnet50": (PixelObjective, CROSS_ENTROPY | {"auxiliary": 0.5}),
    "deeplabv3_resnet101": (PixelObjective, CROSS_ENTROPY | {"auxiliary": 0.5}),
    "deeplabv3_mobilenet_v3_large": (PixelObjective, CROSS_ENTROPY | {"auxiliary": 0.5}),
    "lraspp_mobilenet_v3_large": (PixelObjective, CROSS_ENTROPY),
    # tensorflow/models, research/deeplab/utils/train_utils.py
    "deeplabv3plus_resnet50": (PixelObjective, CROSS_ENTROPY),
    # the paper's equation 1
    "unet": (PixelObjective, CROSS_ENTROPY),
    # NVlabs/SegFormer and facebookresearch/dinov2: mmsegmentation's CrossEntropyLoss of weight 1
    "segformer_b5": (PixelObjective, CROSS_ENTROPY),
    "vit_linear": (PixelObjective, CROSS_ENTROPY),
    # rstrudel/segmenter, segm/train.py
    "segmenter_large_patch16": (PixelObjective, CROSS_ENTROPY),
    "segmenter_tiny_patch16_linear": (PixelObjective, CROSS_ENTROPY),
    # facebookresearch/detr, main.py: the class loss has no option, and so weight 1
    "detr_resnet101": (
        DetrObjective,
        {"cross_entropy": 1.0, "l1": 5.0, "giou": 2.0, "focal": 1.0, "dice": 1.0, "no_object": 0.1},
    ),
    # facebookresearch/MaskFormer, mask_former/config.py and configs/ade20k-150
    "maskformer_swin_large": (
        MaskFormerObjective,
        {"cross_entropy": 1.0, "focal": 20.0, "dice": 1.0, "no_object": 0.1},
    ),
    # facebookresearch/Mask2Former, configs/coco/panoptic-segmentation
    "mask2former_swin_small": (
        Mask2FormerObjective,
        {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0, "no_object": 0.1, "points": 12544}
        | {"oversample": 3.0, "importance": 0.75},
    ),
    # tue-mps/eomt, training/mask_classification_loss.py and configs
    "eomt_base": (
        Mask2FormerObjective,
        {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0, "no_object": 0.1, "points": 12544},
    ),
    "eomt_dinov3_large": (
        Mask2FormerObjective,
        {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0, "no_object": 0.1, "points": 12544},
    ),
    # torchvision, models/detection: the sum of all
    "maskrcnn_resnet50_fpn_v2": (
        ProposalObjective,
        dict.fromkeys(("objectness", "anchor_box", "cross_entropy", "box", "mask"), 1.0),
    ),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_published_model_is_trained_on_its_paper_s_criterion(name):
    kind, weights = ORIGINALS[name]
    objective = default_objective(name)
    assert type(objective) is kind
    fields = dataclasses.asdict(objective)
    assert fields | weights == fields


def test_models_of_a_family_share_their_objective():
    """But for those of SMP, which leaves it to its users, and those that are our own."""
    objectives = {name.partition("_")[0]: default_objective(name) for name in ORIGINALS}
    published = {name for name in models.MODELS if find_entry(name).table is not None}
    for name in published - {"unet_resnet18", "unet_resnet34", "unet_resnet50"}:
        assert default_objective(name) == objectives[name.partition("_")[0]], name


def test_every_model_and_backbone_has_an_entry():
    assert set(models.MODELS) <= set(ENTRIES)
    for name, entry in ENTRIES.items():
        assert (name in models.MODELS) == (entry.objective is not None), name
        assert hasattr(models, name) or hasattr(backbones, name)
        assert len(entry.mean) == len(entry.std)
        assert entry.table is None or entry.table.stem


def test_a_backbone_has_no_objective():
    with pytest.raises(ValueError, match="expected a model, got the backbone 'resnet50'"):
        default_objective("resnet50")
    with pytest.raises(ValueError, match="unknown model 'unett': did you mean 'unet"):
        find_entry("unett")


def test_a_model_of_one_s_own_is_known_by_its_constructor(monkeypatch):
    monkeypatch.setattr(registry, "ENTRIES", dict(ENTRIES))
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))

    def unet_mine(num_classes, **options):
        return models.unet_tiny(num_classes, **options)

    registry.register(unet_mine, Entry(PixelObjective(lovasz=1.0)))
    assert registry.default_objective("unet_mine").lovasz == 1.0
    with pytest.raises(ValueError, match="constructor: expected a new name, got 'unet_mine'"):
        registry.register(unet_mine, Entry(PixelObjective()))
