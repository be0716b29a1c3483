"""The U-Net by the names of milesial's; segmentation-models-pytorch's on ResNets."""

from segjax.pretrained.keys import POINTWISE, UP_CONV, KeyTable
from segjax.pretrained.tables.torchvision import RESNET, inside

_CONVS = (("Conv_0", "0"), ("BatchNorm_0", "1"), ("Conv_1", "3"), ("BatchNorm_1", "4"))

UNET = KeyTable(
    (
        *inside("encoder_0", "inc.double_conv", _CONVS),
        *inside("encoder_{i}", "down{i}.maxpool_conv.1.double_conv", _CONVS),
        # Ours count the levels from the top, theirs from the bottom.
        *(
            row
            for level in range(4)
            for row in (
                (f"up_{level}/Dense_0", f"up{4 - level}.up", UP_CONV),
                (f"up_{level}/bias", f"up{4 - level}.up.bias"),
                *inside(f"decoder_{level}", f"up{4 - level}.conv.double_conv", _CONVS),
            )
        ),
        ("logits", "outc.conv", POINTWISE),
    ),
    renames=(
        (r"^inc\.(?=\d)", "inc.double_conv."),
        (r"^down(\d)\.(?=\d)", r"down\1.maxpool_conv.1.double_conv."),
        (r"^up(\d)\.(conv\.)?(?=\d)", r"up\1.conv.double_conv."),
        (r"^outc\.(?!conv)", "outc.conv."),
        # Without norms, as in the paper, the second convolution comes one step sooner.
        (r"double_conv\.2\.", "double_conv.3."),
    ),
    stem="inc.double_conv.0.weight",
    heads=(r"outc\.conv\..*",),
)

UNET_RESNET = KeyTable(
    (
        *inside("backbone", "encoder", RESNET),
        ("decoder{b}/conv{i}", "decoder.blocks.{b}.conv{i}.0"),
        ("decoder{b}/norm{i}", "decoder.blocks.{b}.conv{i}.1"),
        ("logits", "segmentation_head.0"),
    ),
    renames=((r"^(?=(conv1|bn1|layer\d)\.)", "encoder."),),
    unused=(r"fc\..*",),
    stem="encoder.conv1.weight",
    heads=(r"segmentation_head\.0\..*",),
    backbone="encoder.",
)
