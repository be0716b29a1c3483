"""Masks by pycocotools, from texts and polygons: writes pycocotools_masks.npz beside this file.

Run `python pycocotools_masks.py` where pycocotools is installed.
"""

from pathlib import Path

import numpy as np


def golden(seed: int = 0) -> dict[str, np.ndarray]:
    """Masks and their texts; polygons `[n, points, 2]` and their masks, over one another too.

    Polygons cross themselves, leave the picture, have equal and collinear points, and points at
    and next to the middle of pixels.
    """
    from pycocotools import mask as peer

    rng = np.random.default_rng(seed)
    shape = (19, 23)
    masks = [rng.random(shape) < p for p in (0.02, 0.5, 0.98)]
    masks += [np.zeros(shape, bool), np.ones(shape, bool), np.pad(np.ones((1, 1), bool), (0, 9))]
    large = np.zeros((400, 500), bool)  # runs of several digits
    large[50:300, 20:130] = large[7, 400] = True
    masks.append(large)
    texts = [peer.encode(np.asfortranarray(mask))["counts"].decode() for mask in masks]

    free = rng.uniform(-8, 28, (60, 7, 2))
    halves = rng.integers(-6, 56, (60, 7, 2)) / 2
    tenths = rng.integers(-20, 260, (60, 7, 2)) / 10
    polygons = np.concatenate([free, halves, tenths])
    polygons[::3, 3] = polygons[::3, 2]
    polygons[::4, 5] = polygons[::4, 4] + [3, 0]
    polygons[::5, 6] = polygons[::5, 0]
    polygons[::7, 3:] = polygons[::7, :1]
    codes = peer.frPyObjects(polygons.reshape(len(polygons), -1).tolist(), *shape)
    union = peer.decode(peer.merge(codes[:4])).astype(bool)
    arrays = {f"mask {i}": np.packbits(mask) for i, mask in enumerate(masks)}
    return arrays | {
        "shapes": np.array([mask.shape for mask in masks]),
        "texts": np.array(texts),
        "polygons": polygons,
        "filled": np.packbits(np.moveaxis(peer.decode(codes), -1, 0).astype(bool)),
        "union": union,
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden())
