"""Optimizers, schedules and parameter groups by their options."""

import dataclasses
import fnmatch
import re
from typing import Any, Literal

import jax
import optax

from segjax.naming import unknown_name
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
      name: The optimizer: AdamW, or SGD with Nesterov momentum; by default adamw, or the recipe's.
      learning_rate: Learning rate at its peak; by default 3e-3, or the recipe's.
      schedule: Decay after the warm-up: a half cosine to 0, a polynomial to 0, to a tenth at each
        of --optimizer.drops, or none; by default cosine, or the recipe's.
      power: Power of the polynomial schedule; by default 0.9, or the recipe's.
      drops: Shares of the training at which the step schedule drops; by default the recipe's.
      warmup: Steps of linear warm-up; by default 50, or the recipe's, but at most a tenth of all.
      weight_decay: Decoupled weight decay, times the learning rate; only kernels have it, not
        norms, biases, tokens and position embeddings. By default 1e-2, or the recipe's.
      momentum: Momentum of SGD, or the first of AdamW's; by default 0.9, or the recipe's.
      clip: Largest global norm of a gradient, which is clipped above it; 0 does not clip. By
        default 1, or the recipe's.
      backbone: Factor of the backbone's learning rate; by default 1, or the recipe's.
      layer_decay: Factor of the learning rate from each block of a vision transformer to the one
        before it; by default 1, or the recipe's.
      freeze: Parameters that stay as they are: patterns of their paths or of a module's, such as
        'decoder/*', or the word backbone. Statistics of batch norms follow the images all the same.
        By default none, or the recipe's.
    """

    name: Literal["adamw", "sgd"] | None = None
    learning_rate: float | None = None
    schedule: Literal["cosine", "poly", "step", "constant"] | None = None
    power: float | None = None
    drops: tuple[float, ...] | None = None
    warmup: int | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    clip: float | None = None
    backbone: float | None = None
    layer_decay: float | None = None
    freeze: tuple[str, ...] | None = None


def fill_options(
    config: OptimizerConfig, recipe: Recipe = SCRATCH, *, steps: int, batch_size: int
) -> OptimizerConfig:
    """The options with a recipe's wherever they leave one open.

    Args:
      config: of the optimizer.
      recipe: whose learning rate is scaled by the batch size if it is for one, and whose warm-up is
        at most a tenth of the steps.
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
    }
    return dataclasses.replace(
        config, **{n: settings[n] for n, value in vars(config).items() if value is None}
    )


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate by step.

    Args:
      config: of the optimizer; what it leaves open is as from scratch.
      steps: of the whole training.

    Returns:
      The schedule, a function of the step.

    Example:
      >>> config = OptimizerConfig(learning_rate=1.0, warmup=10)
      >>> schedule = learning_rate(config, 110)
      >>> [round(float(schedule(step)), 3) for step in (0, 10, 60, 110)]
      [0.0, 1.0, 0.5, 0.0]
    """
    config = fill_options(config, steps=steps, batch_size=1)
    peak: Any = config.learning_rate
    warmup: Any = config.warmup
    rest = max(1, steps - warmup)
    if config.schedule == "step" and not config.drops:
        raise ValueError("optimizer.drops: expected a share of the training for the step schedule")
    drops = {max(0, round(share * steps) - warmup): 0.1 for share in config.drops or ()}
    after = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "poly": lambda: optax.polynomial_schedule(peak, 0.0, config.power, rest),
        "step": lambda: optax.piecewise_constant_schedule(peak, drops),
        "constant": lambda: optax.constant_schedule(peak),
    }[config.schedule or "cosine"]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a configuration.

    Args:
      config: of the optimizer; what it leaves open is as from scratch.
      steps: of the whole training.

    Returns:
      The optax transformation: clipping, the optimizer, decoupled weight decay on kernels alone,
      the schedule, and the factors of parts of the model. Frozen parameters have no state, and do
      not count in the gradient's norm. Its `init` raises a ValueError for a pattern that matches no
      parameter, or for a factor of what the model does not have.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; layer-wise decay:
      Bao et al., "BEiT", 2022, its last block at the full rate as in Kerssies et al., "EoMT", 2025.
    """
    config = fill_options(config, steps=steps, batch_size=1)
    directions = {
        "adamw": lambda: optax.scale_by_adam(b1=config.momentum),
        "sgd": lambda: optax.trace(config.momentum, nesterov=True),
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        directions[config.name or "adamw"](),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
        optax.identity() if config.backbone == config.layer_decay == 1 else _scale(config),
    )
    if not config.freeze:
        return optimizer

    def labels(params):
        frozen = frozen_paths(config.freeze or (), params)
        return _map_paths(lambda path: "frozen" if path in frozen else "learns", params)

    return optax.multi_transform({"learns": optimizer, "frozen": optax.set_to_zero()}, labels)


def decayed(params):
    """Which parameters decay: kernels, not norms, biases, tokens and embeddings of positions."""
    return _map_paths(lambda path: path.rpartition("/")[2] == "kernel", params)


def frozen_paths(patterns: tuple[str, ...], params) -> set[str]:
    """The parameters that patterns name.

    Args:
      patterns: as `OptimizerConfig.freeze` has them.
      params: of the model.

    Returns:
      Their paths, such as "decoder/conv/kernel".

    Raises:
      ValueError: for a pattern that matches nothing.
    """
    paths = _paths(params)
    frozen = set()
    for pattern in patterns:
        if pattern == "backbone":
            found = _backbone(paths)
        else:
            found = fnmatch.filter(paths, pattern) + fnmatch.filter(paths, f"{pattern}/*")
        if not found:
            modules = {path.rpartition("/")[0] or path for path in paths}
            modules |= {path.partition("/")[0] for path in paths}
            message = unknown_name("parameters", pattern, modules).partition(" (there are")[0]
            tops = ", ".join(sorted({path.partition("/")[0] for path in paths}))
            raise ValueError(f"optimizer.freeze: {message} (there are: {tops})")
        frozen.update(found)
    return frozen


def rate_factors(config: OptimizerConfig, params):
    """The factor of each parameter's learning rate.

    Args:
      config: of the optimizer.
      params: of the model.

    Returns:
      Numbers, in the tree of the parameters: `layer_decay^(blocks − 1 − i)` in block i of a vision
      transformer and, as in its first, in its embeddings; times `backbone` in the backbone.

    Raises:
      ValueError: for a factor of what the model does not have.
    """
    paths = _paths(params)
    factors = dict.fromkeys(paths, 1.0)
    if config.backbone not in (None, 1):
        for path in _required(_backbone(paths), "backbone", "a backbone"):
            factors[path] *= config.backbone
    if config.layer_decay not in (None, 1):
        numbers = {path: _block(path) for path in _backbone(paths)}
        blocks = {number for number in numbers.values() if number is not None}
        _required(blocks, "layer_decay", "the blocks of a vision transformer")
        for path, number in numbers.items():
            if number is None:
                number = max(blocks) if path.endswith(("norm/scale", "norm/bias")) else 0
            factors[path] *= config.layer_decay ** (max(blocks) - number)
    return _map_paths(factors.__getitem__, params)


def _scale(config: OptimizerConfig) -> optax.GradientTransformation:
    def init(params):
        rate_factors(config, params)
        return optax.EmptyState()

    def update(updates, state, params):
        factors = rate_factors(config, params)
        return jax.tree.map(lambda update, factor: update * factor, updates, factors), state

    return optax.GradientTransformation(init, update)


# What a published backbone holds, within a model: the first of these that there is.
_BACKBONES = (
    re.compile(r"backbone/.*"),
    re.compile(r"encoder/.*"),
    re.compile(r"(block\d+|patch_embedding)/.*|(class|register)_tokens?|position_embedding"),
)


def _backbone(paths: list[str]) -> list[str]:
    """Those of the backbone; none where the model has none."""
    found = ([path for path in paths if names.fullmatch(path)] for names in _BACKBONES)
    return next(filter(None, found), [])


def _block(path: str) -> int | None:
    """The number of the block of a vision transformer that a parameter is in."""
    match = re.match(r"((backbone|encoder)/)?block(\d+)/", path)
    return int(match[3]) if match else None


def _required(found, name: str, what: str):
    if not found:
        raise ValueError(f"optimizer.{name}: expected 1 for a model without {what}")
    return found


def _paths(params) -> list[str]:
    return [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]


def _map_paths(function, params):
    return jax.tree_util.tree_map_with_path(lambda keys, _: function(_path(keys)), params)


def _path(keys) -> str:
    return "/".join(key.key for key in keys)
