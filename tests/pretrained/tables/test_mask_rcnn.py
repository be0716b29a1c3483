"""Mask R-CNN's weights by torchvision's names of today and of before version 0.12."""

import functools
import re

import jax
import numpy as np

from segjax.models import MaskRCNN
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.pretrained.fitting import canonical, count_classes, fit
from segjax.pretrained.keys import map_paths, to_state_dict
from segjax.pretrained.tables.mask_rcnn import MASK_RCNN

# Convolutions without a norm were no sequences yet.
OLD_NAMES = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d)\.0\.", r"\1."),
    (r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    *(
        (rf"^roi_heads\.mask_head\.{i}\.0\.", f"roi_heads.mask_head.mask_fcn{i + 1}.")
        for i in (0, 1)
    ),
)


def test_read_under_old_and_new_names():
    backbone = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock)
    model = MaskRCNN(2, backbone, features=4, box_features=(3, 5), mask_convs=2)
    image = np.zeros((1, 32, 32, 3), np.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), template)
    new = to_state_dict(MASK_RCNN, variables)
    old = {}
    for name, array in new.items():
        key = name
        for pattern, replacement in OLD_NAMES:
            key = re.sub(pattern, replacement, key)
        old[key] = array
    renamed = {
        "backbone.fpn.inner_blocks.0.weight",
        "rpn.head.conv.bias",
        "roi_heads.mask_head.mask_fcn2.weight",
    }
    assert renamed <= old.keys() - new.keys()
    for written in (new, old):
        assert count_classes(MASK_RCNN, written) == 2
        fitted = fit(MASK_RCNN, canonical(MASK_RCNN, written), variables)
        assert (fitted.new, fitted.adapted) == ({}, ())
        jax.tree.map(
            np.testing.assert_array_equal,
            map_paths(lambda path, _, fitted=fitted: fitted.arrays[path], variables),
            variables,
        )
