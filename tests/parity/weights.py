"""Weights drawn by NumPy from their keys, so that both sides hold the same without a file."""

import zlib

import numpy as np


def draw_state_dict(shapes) -> dict[str, np.ndarray]:
    """Float64 arrays by key, such that a deep network's activations neither vanish nor explode.

    Args:
      shapes: by key, as of a torch module's state dict.
    """
    return {key: _draw(key, tuple(shape)) for key, shape in shapes.items()}


def load_drawn(model) -> None:
    """Gives a torch module drawn weights; its integers, such as indices, stay."""
    import torch

    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    weights = draw_state_dict({key: value.shape for key, value in state.items()})
    arrays = {key: torch.tensor(value) for key, value in weights.items()}
    model.load_state_dict(arrays, strict=False)


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) >= 2:  # kernels: He's variance
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    if key.endswith("weight"):  # scales of norms
        return rng.uniform(0.5, 1.0, shape)
    return np.asarray(0.1 * rng.normal(size=shape))
