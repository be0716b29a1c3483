import pytest

from segjax.suggestions import unknown_name


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("unet_tny", ["unet", "unet_tiny"], "did you mean 'unet_tiny' or 'unet'?"),
        ("zebra", ["val", "train"], "unknown split 'zebra' (there are: train, val)"),
        ("zebra", [], "(there are: none)"),
    ],
)
def test_the_message_has_the_near_matches_and_all_there_are(name, known, message):
    assert message in unknown_name("split", name, known)
