"""What segjax saves, torch loads strictly; what torch saves, segjax loads; nothing is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.pretrained import load, save
from segjax.registry import make_model

torch = pytest.importorskip("torch")

CLASSES = 3


def torchvision(name, **options):
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    build = getattr(segmentation, name)
    return build(weights=None, weights_backbone=None, num_classes=CLASSES, **options)


def mask_rcnn(name):
    detection = pytest.importorskip("torchvision.models.detection")
    build = getattr(detection, name)
    return build(weights=None, weights_backbone=None, num_classes=CLASSES + 1)


def smp(name, encoder):
    package = pytest.importorskip("segmentation_models_pytorch")
    return getattr(package, name)(encoder, encoder_weights=None, classes=CLASSES)


def segformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(num_labels=CLASSES)
    return transformers.SegformerForSemanticSegmentation(config)


ORIGINALS = {
    "fcn_resnet50": lambda: torchvision("fcn_resnet50", aux_loss=True),
    "deeplabv3_resnet50": lambda: torchvision("deeplabv3_resnet50", aux_loss=True),
    "deeplabv3_mobilenet_v3_large": lambda: torchvision(
        "deeplabv3_mobilenet_v3_large", aux_loss=True
    ),
    "lraspp_mobilenet_v3_large": lambda: torchvision("lraspp_mobilenet_v3_large"),
    "maskrcnn_resnet50_fpn": lambda: mask_rcnn("maskrcnn_resnet50_fpn"),
    "maskrcnn_resnet50_fpn_v2": lambda: mask_rcnn("maskrcnn_resnet50_fpn_v2"),
    "deeplabv3plus_resnet34": lambda: smp("DeepLabV3Plus", "resnet34"),
    "segformer_b0": segformer,
}


def maskformer(backbone):
    transformers = pytest.importorskip("transformers")
    stages = [f"stage{i}" for i in range(1, 5)]
    config = transformers.MaskFormerConfig(
        backbone_config=getattr(transformers, backbone)(out_features=stages), num_labels=CLASSES
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def draw(name):
    module = make_model(name, CLASSES)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


@pytest.mark.parametrize("name", ORIGINALS)
def test_from_segjax_to_torch_and_back(tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    variables = draw(name)
    save(variables, tmp_path / "ours.safetensors", name)
    model = ORIGINALS[name]()
    model.load_state_dict(safetensors.load_file(tmp_path / "ours.safetensors"), strict=True)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "theirs.pth", name), variables)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("maskformer_resnet50", "ResNetConfig"), ("maskformer_swin_tiny", "SwinConfig")],
)
def test_maskformer_from_segjax_to_torch_and_back_by_old_and_new_names(tmp_path, name, backbone):
    safetensors = pytest.importorskip("safetensors.torch")
    variables = draw(name)
    save(variables, tmp_path / "ours.safetensors", name)
    model = maskformer(backbone)
    state_dict = safetensors.load_file(tmp_path / "ours.safetensors")
    keys = model.load_state_dict(state_dict, strict=False)
    # What follows from the windows' size, and the loss's weights.
    constants = ("relative_position_index", "empty_weight")
    assert [k for k in keys.missing_keys if not k.endswith(constants)] == keys.unexpected_keys == []
    torch.save(model.state_dict(), tmp_path / "new.pth")
    model.save_pretrained(tmp_path / "old")  # by the names of transformers 4
    for file in ("new.pth", "old"):
        jax.tree.map(np.testing.assert_array_equal, load(tmp_path / file, name), variables)


def test_a_classifier_of_timm_gives_its_swin_to_the_backbone(tmp_path):
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224")
    torch.save({"model": model.state_dict()}, tmp_path / "swin.pth")
    params = load(tmp_path / "swin.pth", "swin_tiny", key=jax.random.key(0))["params"]
    merging = model.layers[1].downsample.reduction.weight.detach().numpy()
    np.testing.assert_array_equal(params["merging1"]["reduction"]["kernel"].T, merging)
    key = np.split(model.layers[2].blocks[4].attn.qkv.weight.detach().numpy(), 3)[1]
    np.testing.assert_array_equal(params["stage3_block4"]["attention"]["key"]["kernel"].T, key)


@pytest.mark.parametrize("package", ["torchvision.models", "timm"])
@pytest.mark.parametrize("depth", [18, 50])
def test_classifiers_give_their_backbone_to_backbones_and_models(tmp_path, package, depth):
    build = getattr(pytest.importorskip(package), "create_model", None)
    name = f"resnet{depth}"
    model = build(name) if build else getattr(pytest.importorskip(package), name)(weights=None)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "classifier.pth")
    expected = model.layer3[0].downsample[0].weight.detach().numpy()

    def check(params):
        kernel = params["stage3_block0"]["shortcut_conv"]["kernel"]
        np.testing.assert_array_equal(np.moveaxis(kernel, (-1, -2), (0, 1)), expected)

    check(load(tmp_path / "classifier.pth", name)["params"])
    if depth == 50:
        options = {"num_classes": CLASSES, "key": jax.random.key(0)}
        loaded = load(tmp_path / "classifier.pth", "deeplabv3_resnet50", **options)
        check(loaded["params"]["backbone"])


def test_a_classifier_of_timm_gives_its_transformer_to_segmenter(tmp_path):
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224")
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    options = {"num_classes": CLASSES, "key": jax.random.key(0)}
    loaded = load(tmp_path / "vit.pth", "segmenter_tiny_patch16", **options)
    encoder = loaded["params"]["encoder"]
    assert encoder["position_embedding"].shape == (1, 1 + 32**2, 192)
    expected = model.blocks[0].attn.qkv.weight.detach().numpy().T
    np.testing.assert_array_equal(encoder["block0"]["attention"]["qkv"]["kernel"], expected)
