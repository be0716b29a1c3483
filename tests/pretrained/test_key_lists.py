"""Our models hold exactly the arrays of the originals, by name and shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.pretrained.keys import matches, to_state_dict
from segjax.pretrained.tables import (
    clip,
    detr,
    eomt,
    mask2former,
    mask_rcnn,
    maskformer,
    segformer,
    smp,
    torchvision,
    u_net,
    vit,
)
from segjax.registry import make_model

# The published state dict: our model, its options, its table.
ORIGINALS = {
    "tv_fcn_resnet50_aux": ("fcn_resnet50", {}, torchvision.FCN_RESNET),
    "tv_fcn_resnet101_aux": ("fcn_resnet101", {}, torchvision.FCN_RESNET),
    "tv_deeplabv3_resnet50_aux": ("deeplabv3_resnet50", {}, torchvision.DEEPLABV3_RESNET),
    "tv_deeplabv3_resnet101_aux": ("deeplabv3_resnet101", {}, torchvision.DEEPLABV3_RESNET),
    "smp_deeplabv3plus_resnet34_c1": (
        "deeplabv3plus_resnet34",
        {"num_classes": 1},
        smp.DEEPLABV3PLUS_RESNET,
    ),
    **{
        f"hf5_segformer_b{i}_ade": (f"segformer_b{i}", {"num_classes": 150}, segformer.SEGFORMER)
        for i in range(6)
    },
    "unet_paper_1in_2out_nobn": ("unet", {"num_classes": 2, "norm": "none"}, u_net.UNET),
    "unet_milesial_3in_1out_bn": ("unet", {"num_classes": 1}, u_net.UNET),
    "unet_milesial_3in_2out_bn": ("unet", {"num_classes": 2}, u_net.UNET),
    "unet_milesial_bilinear_3in_2out": (
        "unet",
        {"num_classes": 2, "upsampling": "bilinear"},
        u_net.UNET,
    ),
    **{
        f"smp_unet_resnet{n}_c1": (f"unet_resnet{n}", {"num_classes": 1}, u_net.UNET_RESNET)
        for n in (18, 34, 50)
    },
    **{
        f"segmenter_{short}16_{decoder}": (
            f"segmenter_{size}_patch16{ending}",
            {"num_classes": 150},
            table,
        )
        for short, size in (("ti", "tiny"), ("s", "small"), ("b", "base"), ("l", "large"))
        for decoder, ending, table in (
            ("mask", "", vit.SEGMENTER_MASK),
            ("linear", "_linear", vit.SEGMENTER_LINEAR),
        )
    },
    "tv_maskrcnn_resnet50_fpn": (
        "maskrcnn_resnet50_fpn",
        {"num_classes": 90},
        mask_rcnn.MASK_RCNN,
    ),
    "tv_maskrcnn_resnet50_fpn_v2": (
        "maskrcnn_resnet50_fpn_v2",
        {"num_classes": 90},
        mask_rcnn.MASK_RCNN_V2,
    ),
    "hf5_detr_r50": ("detr_resnet50", {"num_classes": 91}, detr.DETR),
    "orig_detr_r50": ("detr_resnet50", {"num_classes": 91}, detr.DETR_AUTHORS),
    **{
        original: ("detr_resnet50_panoptic", {"num_classes": 250}, table)
        for original, table in (
            ("hf5_detr_r50_panoptic", detr.DETR_PANOPTIC),
            ("orig_detr_r50_panoptic", detr.DETR_PANOPTIC_AUTHORS),
        )
    },
    "hf5_maskformer_r50_ade": (
        "maskformer_resnet50",
        {"num_classes": 150},
        maskformer.MASKFORMER_RESNET,
    ),
    **{
        f"hf5_maskformer_swin_{size}_{data}": (
            f"maskformer_swin_{size}",
            {"num_classes": classes},
            maskformer.MASKFORMER_SWIN,
        )
        for size, data, classes in (
            ("tiny", "ade", 150),
            ("base", "ade", 150),
            ("base", "coco", 133),
        )
    },
    "hf5_mask2former_r50_coco_panoptic": (
        "mask2former_resnet50",
        {"num_classes": 133},
        mask2former.MASK2FORMER_RESNET,
    ),
    **{
        f"hf5_mask2former_swin_{original}": (
            f"mask2former_swin_{size}",
            {"num_classes": classes},
            mask2former.MASK2FORMER_SWIN,
        )
        for original, size, classes in (
            ("tiny_coco_panoptic", "tiny", 133),
            ("tiny_coco_instance", "tiny", 80),
            ("tiny_ade_semantic", "tiny", 150),
            ("large_coco_panoptic", "large", 133),
        )
    },
    **{
        f"hf5_eomt_{original}": (f"eomt_{original.split('_')[0]}", options, eomt.EOMT)
        for original, options in (
            ("large_640_coco_pan", {"num_classes": 133}),
            ("base_640_coco_pan", {"num_classes": 133, "query_blocks": 4}),
            ("small_640_coco_pan", {"num_classes": 133, "query_blocks": 4}),
            ("large_512_ade_sem", {"num_classes": 150, "num_queries": 100, "image_size": 512}),
            (
                "large_1024_cityscapes_sem",
                {"num_classes": 19, "num_queries": 100, "image_size": 1024},
            ),
        )
    },
    **{
        f"hf5_eomt_dinov3_{size}_coco_pan": (
            f"eomt_dinov3_{size}",
            {"num_classes": 133, "query_blocks": 4},
            eomt.EOMT_DINOV3,
        )
        for size in ("small", "base", "large")
    },
    **{
        f"{naming}_clip_vit_{short}": (f"clip_vit_{name}", {}, table)
        for short, name in (
            ("b32", "base_patch32"),
            ("b16", "base_patch16"),
            ("l14", "large_patch14"),
            ("l14_336", "large_patch14_336"),
        )
        for naming, table in (("hf5", clip.CLIP), ("openai", clip.CLIP_OPENAI))
    },
    "openai_clip_rn50": ("clip_resnet50", {}, clip.CLIP_RESNET),
    "openai_clip_rn101": ("clip_resnet101", {}, clip.CLIP_RESNET),
    "hf5_clipseg_rd16": ("clipseg_rd16", {}, clip.CLIPSEG),
    "hf5_clipseg_rd64": ("clipseg_rd64", {}, clip.CLIPSEG),
    "hf5_clipseg_rd64_refined": ("clipseg_rd64_refined", {}, clip.CLIPSEG_REFINED),
    "hf5_siglip_b16": ("siglip_base_patch16", {}, clip.SIGLIP),
    "hf5_siglip2_b16_fixed": ("siglip2_base_patch16", {}, clip.SIGLIP),
}


@pytest.mark.parametrize("original", ORIGINALS)
def test_keys_and_shapes(original_shapes, original):
    name, options, table = ORIGINALS[original]
    theirs = {table.canonical(key): shape for key, shape in original_shapes(original).items()}
    theirs = {key: shape for key, shape in theirs.items() if not matches(table.unused, key)}
    template = _template(make_model(name, **{"num_classes": 21} | options), theirs[table.stem][1])
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), template)
    ours = {key: array.shape for key, array in to_state_dict(table, zeros).items()}
    assert ours == theirs


@functools.cache
def _template(model, channels):
    """The shapes of a model's variables, traced once for all of its namings."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)
