"""Models on canvases larger than the picture: they give what they give on the picture's own."""

import functools

import jax
import numpy as np
import pytest

from segjax import models
from segjax.models.backbones import mobilenet_v3
from segjax.models.backbones.mit import MixTransformer
from segjax.models.backbones.resnet import BasicBlock, ResNet
from segjax.models.deeplab import DeepLabHead

KEY = jax.random.key(0)
RESNET = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock)
MOBILENET = functools.partial(mobilenet_v3.MobileNetV3, mobilenet_v3.SMALL[:4])
MIT = functools.partial(MixTransformer, (8, 16, 16, 16), (1, 1, 1, 1))
QUERIES = {"num_queries": 4, "features": 32, "num_heads": 4, "decoder_layers": 2}
DETR = functools.partial(models.Detr, 2, RESNET, encoder_layers=1, hidden_features=16, **QUERIES)
DETECTOR = {"features": 8, "box_features": (8,), "score_threshold": 0.0}
BUILT = {
    "unet": lambda: models.unet(2, widths=(4, 8, 8, 8)),
    "unet with group norm": lambda: models.unet(2, widths=(8, 16), norm="group"),
    "unet on patches": lambda: models.unet_patch2(2, widths=(4, 8, 8), refinement=4),
    "unet on resnet": lambda: models.UNetResNet(2, RESNET, widths=(8,) * 5),
    "fcn": lambda: models.DenseClassifier(2, RESNET),
    "deeplab": lambda: models.DenseClassifier(2, RESNET, DeepLabHead),
    "deeplab plus": lambda: models.DeepLabV3Plus(2, RESNET, features=8),
    "lr-aspp": lambda: models.LRASPP(2, MOBILENET),
    "segformer": lambda: models.SegFormer(2, MIT, features=8),
    "detr": lambda: DETR(models.ProductMaskHead),
    "panoptic detr": lambda: DETR(models.AttentionMaskHead),
    "maskformer": lambda: models.MaskFormer(2, RESNET, hidden_features=16, **QUERIES),
    "mask2former": lambda: models.Mask2Former(2, RESNET, encoder_layers=1, **QUERIES),
    "mask r-cnn": lambda: models.maskrcnn_tiny(2, backbone=RESNET, **DETECTOR),
    "mask r-cnn v2": lambda: models.maskrcnn_resnet50_fpn_v2(2, backbone=RESNET, **DETECTOR),
}
QUICK = {"unet"}
# The last level of a detector has another stride on the picture's own canvas than on the other.
SIZE, OWN, LARGE = (90, 61), (96, 64), (128, 96)


def _variables(model):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        width = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        if {"box_head", "rpn"} & {part.key for part in path}:  # no score of 1, and boxes apart
            width /= 20
        return rng.normal(size=leaf.shape, scale=width).astype(np.float32)

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.tree.map_with_path(draw, jax.eval_shape(model.init, KEY, images))


def _seen(model, outputs):
    """What of the outputs is of the picture."""
    strided = lambda x, size: x[..., : -(-size[0] // 4), : -(-size[1] // 4)]
    if isinstance(outputs, models.SemanticOutput):
        logits = np.moveaxis(outputs.logits, -1, -3)
        if isinstance(model, models.SegFormer):
            return strided(logits, SIZE)
        return logits[..., : SIZE[0], : SIZE[1]]
    if isinstance(outputs, models.QueryOutput):
        return outputs.class_logits, outputs.boxes, strided(outputs.mask_logits, SIZE)
    found = outputs.objects
    valid = np.asarray(found.valid)
    assert valid.sum() > 10
    scores = (found.boxes[valid] / 100, found.scores[valid], found.classes[valid])
    return valid, scores, outputs.mask_logits[valid]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in BUILT]
)
def test_a_model_gives_the_same_on_every_canvas(name):
    """Whatever lies beyond the picture's own."""
    model = BUILT[name]()
    assert models.is_canvas_invariant(model)
    rng, variables = np.random.default_rng(0), _variables(model)
    own = rng.normal(size=(1, *OWN, 3)).astype(np.float32)
    large = 9 * rng.normal(size=(1, *LARGE, 3)).astype(np.float32)
    large[:, : OWN[0], : OWN[1]] = own
    sizes = np.int32([SIZE])

    @jax.jit
    def apply(variables, images):
        options = {}
        if isinstance(model, models.MaskRCNN):
            options["sizes"] = sizes
        if isinstance(model, models.Detr):
            options["where"] = models.layers.inside(sizes, images.shape[1:3])
        with models.blind_beyond(sizes, images.shape[1:3]):
            return model.apply(variables, images, **options)

    on_large, on_own = (
        _seen(model, jax.device_get(apply(variables, images))) for images in (large, own)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, on_large, on_own)


def test_which_models_do():
    """All but those that lay positions or windows over the whole canvas."""
    expected = {n for n in models.MODELS if not n.startswith(("segmenter", "vit", "eomt"))}
    expected -= {n for n in expected if "swin" in n}
    found = {n for n in models.MODELS if models.is_canvas_invariant(models.create(n, 2))}
    assert found == expected
    for options in ({"dimensions": 3}, {"widths": (4,) * 7}):
        assert not models.is_canvas_invariant(models.unet(2, **options))
