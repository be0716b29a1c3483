import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.analysis import effective_receptive_field, field_extent
from segjax.models import MODELS, DenseClassifier, UNetResNet, create
from segjax.models.backbones import BasicBlock, Bottleneck, ResNet
from segjax.ops import ConvSpec, receptive_field, seen_pixels


def _network(specs):
    """Convolutions with weights of 1, as in `specs`, on images of one channel."""

    def apply(images):
        for spec in specs:
            images = jax.lax.conv_general_dilated(
                images,
                jnp.ones((spec.kernel, spec.kernel, 1, 1)),
                window_strides=(spec.stride,) * 2,
                padding=[(spec.padding,) * 2] * 2,
                rhs_dilation=(spec.dilation,) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return images

    return apply


@pytest.mark.parametrize(
    "specs",
    [
        [ConvSpec(3, padding=1), ConvSpec(3, stride=2, padding=1), ConvSpec(3, dilation=2)],
        [ConvSpec(4, stride=2, padding=2), ConvSpec(3, dilation=3, padding=1)],
    ],
)
def test_convolutions_see_the_pixels_that_their_description_names(specs):
    """The gaps between them too."""
    row, column = 3, 5
    field = effective_receptive_field(
        _network(specs), jnp.ones((1, 32, 36, 1)), position=(row, column)
    )
    expected, stride = np.zeros((32, 36), bool), receptive_field(specs).stride
    rows, columns = (np.array(seen_pixels(specs)) + i * stride for i in (row, column))
    expected[np.ix_(rows[rows >= 0], columns[columns >= 0])] = True
    np.testing.assert_array_equal(field > 0, expected)


def _thin(name, **options):
    """The model of that name with few channels: its field does not depend on their number."""
    return create(name, 2, widths=(4,) * len(create(name, 2).widths), **options)


MODELS_TRIED = {
    "unet": _thin("unet"),
    "unet, bilinear": _thin("unet", upsampling="bilinear"),
    "unet_patch2": _thin("unet_patch2"),
    "fcn": DenseClassifier(2, functools.partial(ResNet, (1, 2, 1, 2), Bottleneck)),
    "unet_resnet": UNetResNet(2, functools.partial(ResNet, (1, 1, 1, 1), BasicBlock), (4,) * 5),
}


def _sees_everything(model):
    try:
        return not hasattr(model, "layer_specs") or not model.layer_specs()
    except ValueError:
        return True


def test_every_kind_of_model_that_names_its_layers_is_tried():
    models = [create(name, 2) for name in MODELS]
    kinds = {type(model) for model in models if not _sees_everything(model)}
    assert kinds == {type(model) for model in MODELS_TRIED.values()}


@pytest.mark.parametrize("name", MODELS_TRIED)
def test_a_model_sees_no_farther_than_its_layers(name):
    """At a pixel whose field is fixed: the first one of a block of the coarsest level."""
    model, column = MODELS_TRIED[name], 320
    field = receptive_field(model.layer_specs())
    rng = np.random.default_rng(0)
    images = rng.random((2, 2, 640, 1), np.float32)

    # Weights above 0, so that nothing cancels and no unit is off.
    def weights(leaf):
        channels = leaf.shape[-2] if leaf.ndim > 1 else 1
        return (rng.uniform(0.4, 1.2, leaf.shape) / channels).astype(leaf.dtype)

    variables = jax.tree.map(weights, jax.eval_shape(model.init, jax.random.key(0), images))

    @jax.jit
    def measure(images):
        logits = lambda images: model.apply(variables, images).logits
        return effective_receptive_field(logits, images, position=(0, column))

    first, _, end, _ = field_extent(measure(images))
    assert column - field.padding <= first
    assert end <= column - field.padding + field.size
    assert end - first > 0.8 * field.size


def test_norms_over_the_picture_have_no_layers_to_name():
    with pytest.raises(ValueError, match="'group': with it every output depends on the whole"):
        create("unet", 2, norm="group").layer_specs()


def test_the_extent_is_of_what_is_above_a_share_of_the_maximum():
    field = np.zeros((2, 6, 7), np.float32)
    field[0, 2:4, 1:6] = [0.1, 0.5, 1.0, 0.5, 0.1]
    extent = functools.partial(field_extent, field)
    np.testing.assert_array_equal(extent(), [[1, 2, 6, 4], [0, 0, 0, 0]])
    np.testing.assert_array_equal(extent(threshold=0.2), [[2, 2, 5, 4], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: effective_receptive_field(lambda x: x, x[0]),
            r"images: expected .*got \(4, 5, 1\)",
        ),
        (
            lambda x: effective_receptive_field(lambda x: x, x, position=(4, 0)),
            r"position: expected .*got \(4, 0\)",
        ),
        (lambda x: field_extent(x[0, 0, :, 0]), r"field: expected .*got \(5,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((1, 4, 5, 1), np.float32))
