"""The options of optimizers, and what they are where nobody says."""

import dataclasses
from typing import Literal

from segjax.pretrained.recipes import Recipe

SCRATCH = Recipe(
    source="segjax's own, for weights drawn at random",
    learning_rate=3e-3,
    schedule="cosine",
    warmup=50,
    weight_decay=1e-2,
    clip=1.0,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, and how its learning rate goes.

    With --weights the defaults are the recipe by which the model's family was published.

    Attributes:
      name: The optimizer: AdamW, SGD with momentum, or SGD with Nesterov momentum (nesterov); by
        default adamw, or the recipe's.
      learning_rate: Learning rate at its peak; by default 3e-3, or the recipe's, scaled linearly
        to --batch-size where it was published for one.
      schedule: Decay after the warm-up: a half cosine to 0, a polynomial to 0, to a tenth at each
        of --optimizer.drops, or none; by default cosine, or the recipe's.
      power: Power of the polynomial schedule; by default 0.9, or the recipe's.
      drops: Shares of the training at which the step schedule drops; by default the recipe's.
      warmup: Steps of linear warm-up; by default 50, or the recipe's, but at most a tenth of all.
      backbone_warmup: Steps of linear warm-up of the backbone, which stays as it is until the rest
        is warmed up; 0 warms all up together. By default 0, or the recipe's, but at most a tenth
        of all.
      weight_decay: Decoupled weight decay, times the learning rate; only kernels have it, not
        norms, biases, tokens and position embeddings. By default 1e-2, or the recipe's.
      momentum: Momentum of SGD, or the first of AdamW's; by default 0.9, or the recipe's.
      clip: Largest global norm of a gradient, which is clipped above it; 0 does not clip. By
        default 1, or the recipe's.
      backbone: Factor of the backbone's learning rate; by default 1, or the recipe's.
      auxiliary: Factor of the learning rate of auxiliary heads, where the model has any; by default
        1, or the recipe's.
      layer_decay: Factor of the learning rate from each block of a vision transformer to the one
        before it; by default 1, or the recipe's.
      freeze: Parameters that stay as they are: patterns of their paths or of a module's, such as
        'decoder/*', or the word backbone. Statistics of batch norms follow the images all the same.
        By default none, or the recipe's.
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
    """The options with a recipe's wherever they leave one open.

    Args:
      config: of the optimizer.
      recipe: whose learning rate is scaled by the batch size if it is for one, and whose warm-ups
        are each at most a tenth of the steps.
      steps: of the whole training.
      batch_size: of a step.

    Returns:
      Options, none of them open.

    Raises:
      ValueError: for another optimizer than the recipe's without a learning rate of its own.

    Example:
      >>> fill_options(OptimizerConfig(clip=0.1), steps=200, batch_size=16).warmup
      20
    """
    other = config.name not in (None, recipe.name) and recipe is not SCRATCH
    if other and config.learning_rate is None:
        raise ValueError(
            f"optimizer.learning_rate: expected one for {config.name}, got none; that of the "
            f"recipe is for {recipe.name}"
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
