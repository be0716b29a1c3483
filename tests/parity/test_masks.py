"""Texts of masks and filled polygons are pycocotools', bit for bit."""

import runpy
from pathlib import Path

import numpy as np

from segjax.data import decode_rle, encode_rle, rasterize_polygons

SCRIPT = Path(__file__).parent / "golden" / "pycocotools_masks.py"
PEER = runpy.run_path(str(SCRIPT))
PEERS = ("pycocotools",)


def unpacked(bits, shape):
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def test_texts_both_ways(golden):
    for i, (text, shape) in enumerate(zip(golden["texts"], golden["shapes"], strict=True)):
        mask = unpacked(golden[f"mask {i}"], shape)
        assert encode_rle(mask) == str(text)
        np.testing.assert_array_equal(decode_rle(str(text), tuple(shape.tolist())), mask)


def test_polygons(golden):
    polygons, union = golden["polygons"], golden["union"]
    filled = unpacked(golden["filled"], (len(polygons), *union.shape))
    for polygon, expected in zip(polygons, filled, strict=True):
        actual = rasterize_polygons([polygon.ravel()], union.shape)
        np.testing.assert_array_equal(actual, expected)
    actual = rasterize_polygons([polygon.ravel() for polygon in polygons[:4]], union.shape)
    np.testing.assert_array_equal(actual, union)
