import json

import cv2
import numpy as np
import pytest


@pytest.fixture
def write_folder(tmp_path):
    """Writes a folder of images and masks of three classes, in which each pixel's colour is 80
    times its class; void pixels are 255 in the mask and white in the image."""

    def write(sizes, *, split="train", masks="masks", seed=0):
        generator = np.random.default_rng(seed)
        (tmp_path / "classes.json").write_text(json.dumps(["sky", "road", "car"]))
        for kind in ("images", masks):
            (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
        for number, size in enumerate(sizes):
            mask = generator.choice([0, 1, 2, 255], size).astype(np.uint8)
            image = np.where(mask == 255, 255, 80 * mask).astype(np.uint8)
            for kind, pixels in (("images", image), (masks, mask)):
                encoded = cv2.imencode(".png", pixels)[1]
                encoded.tofile(tmp_path / split / kind / f"{number:03}.png")
        return tmp_path

    return write
