"""The options of the optimizer, and their defaults."""

import dataclasses
from typing import Literal

from segjax.pretrained.recipes import Recipe

SCRATCH = Recipe(
    source="segjax's own, for training from scratch",
    learning_rate=3e-3,
    schedule="cosine",
    warmup=50,
    weight_decay=1e-2,
    clip=1.0,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate schedule.

    Options that are None get their defaults when training starts. With --weights, the defaults are
    the fine-tuning recipe of the model's authors (see `segjax.pretrained.recipes`).

    Attributes:
      name: Optimizer: AdamW, SGD with momentum, or SGD with Nesterov momentum. Default: adamw, or
        the recipe's.
      learning_rate: Peak learning rate. Default: 3e-3, or the recipe's, which is scaled to
        --batch-size if it was published for a certain batch size.
      schedule: Learning rate after the warm-up: cosine or polynomial decay to 0, a tenth of it
        after each of --optimizer.drops (step), or constant. Default: cosine, or the recipe's.
      power: Power of the polynomial decay. Default: 0.9, or the recipe's.
      drops: Points of the training, as shares of all steps, at which the step schedule drops.
        Default: the recipe's.
      warmup: Number of steps of linear warm-up. Default: 50, or the recipe's, but at most a tenth
        of all steps.
      backbone_warmup: Number of steps of the backbone's own warm-up, which begins after the other
        one; the backbone does not change before. 0 uses one warm-up for all. Default: 0, or the
        recipe's, but at most a tenth of all steps.
      weight_decay: Decoupled weight decay of kernels; norms, biases, tokens and position embeddings
        have none. Default: 1e-2, or the recipe's.
      momentum: Momentum of SGD, or beta1 of AdamW. Default: 0.9, or the recipe's.
      clip: Maximum global norm of the gradient; 0 does not clip. Default: 1, or the recipe's.
      backbone: Learning rate factor of the backbone. Default: 1, or the recipe's.
      auxiliary: Learning rate factor of auxiliary heads, if the model has any. Default: 1, or the
        recipe's.
      layer_decay: Layer-wise learning rate decay of a vision transformer: the factor from each
        block to the one before. Default: 1, or the recipe's.
      freeze: Parameters to freeze: patterns of parameter or module paths, such as 'decoder/*', or
        the word backbone. Batch norm statistics are updated anyway. Default: none, or the recipe's.
    """

    name: Literal["adamw", "sgd", "nesterov"] | None = None
    learning_rate: float | None = None
    schedule: Literal["cosine", "poly", "step", "constant"] | None = None
    power: float | None = None
    drops: tuple[float, ...] | None = None
    warmup: int | None = None
    backbone_warmup: int | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    clip: float | None = None
    backbone: float | None = None
    auxiliary: float | None = None
    layer_decay: float | None = None
    freeze: tuple[str, ...] | None = None


def fill_options(
    config: OptimizerConfig, recipe: Recipe = SCRATCH, *, steps: int, batch_size: int
) -> OptimizerConfig:
    """Replaces options that are None by those of a recipe.

    Args:
      config: Options of the optimizer.
      recipe: Recipe. Its learning rate is scaled to `batch_size` if it was published for a certain
        batch size, and each warm-up is shortened to at most a tenth of the steps.
      steps: Number of steps of the whole training.
      batch_size: Batch size of the training.

    Returns:
      Options of which none is None.

    Raises:
      ValueError: If the optimizer is not the recipe's and has no learning rate.

    Example:
      >>> fill_options(OptimizerConfig(clip=0.1), steps=200, batch_size=16).warmup
      20
    """
    other = config.name not in (None, recipe.name) and recipe is not SCRATCH
    if other and config.learning_rate is None:
        raise ValueError(
            f"optimizer.learning_rate: expected one for {config.name}, got none; the recipe's is "
            f"for {recipe.name}"
        )
    scale = 1.0 if recipe.batch_size is None else batch_size / recipe.batch_size
    settings = vars(recipe) | {
        "learning_rate": recipe.learning_rate * scale,
        "warmup": min(recipe.warmup, steps // 10),
        "backbone_warmup": min(recipe.backbone_warmup, steps // 10),
    }
    return dataclasses.replace(
        config, **{n: settings[n] for n, value in vars(config).items() if value is None}
    )
