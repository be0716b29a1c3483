"""Models by name: the right one, with its options, or an error that helps."""

import pytest

from segjax import models
from segjax.models import MODELS, create


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_its_public_function(name):
    assert create(name, 3) == getattr(models, name)(3)


def test_options_reach_the_module():
    model = create("unet_tiny", 5, norm="group", widths=(4, 8))
    assert (model.num_classes, model.norm, model.widths) == (5, "group", (4, 8))


def test_an_unknown_model_is_answered_with_those_that_come_near():
    with pytest.raises(ValueError, match=r"'unet_tinny'.*unet_tiny"):
        create("unet_tinny", 3)


def test_an_unlike_name_is_answered_with_all_models():
    with pytest.raises(ValueError, match=r"unet, unet_patch2, .*unet_small, unet_tiny"):
        create("xyz", 3)


def test_an_unknown_option_is_answered_with_those_that_come_near():
    with pytest.raises(ValueError, match=r"'upsample'.*upsampling"):
        create("unet_tiny", 3, upsample="bilinear")


def test_the_module_s_own_fields_are_no_options():
    with pytest.raises(ValueError, match="'parent'"):
        create("unet_tiny", 3, parent=None)
