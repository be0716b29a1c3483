"""Optimizers, learning rate schedules and parameter groups."""

import fnmatch
import functools
import re
from collections.abc import Collection
from typing import Any

import jax
import optax

from segjax.suggestions import unknown_name
from segjax.training.optimizer_config import OptimizerConfig, fill_options


def learning_rate(config: OptimizerConfig, steps: int, *, backbone: bool = False) -> optax.Schedule:
    """Creates the learning rate schedule of a configuration.

    Args:
      config: Options of the optimizer; options that are None get segjax's defaults.
      steps: Number of steps of the whole training.
      backbone: Whether to return the schedule of the backbone, which has a warm-up of its own.

    Returns:
      Schedule: a function from the step to the learning rate.

    Example:
      >>> config = OptimizerConfig(learning_rate=1.0, warmup=10)
      >>> schedule = learning_rate(config, 110)
      >>> [round(float(schedule(step)), 3) for step in (0, 10, 60, 110)]
      [0.0, 1.0, 0.5, 0.0]
    """
    config = fill_options(config, steps=steps, batch_size=1)
    peak: Any = config.learning_rate
    warmup: Any = config.warmup
    later: Any = config.backbone_warmup if backbone else 0
    start = warmup + later
    rest = max(1, steps - start)
    if config.schedule == "step" and not config.drops:
        raise ValueError(
            "optimizer.drops: expected shares of the training for the step schedule, got none"
        )
    drops = {max(0, round(share * steps) - start): 0.1 for share in config.drops or ()}
    after = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "poly": lambda: optax.polynomial_schedule(peak, 0.0, config.power, rest),
        "step": lambda: optax.piecewise_constant_schedule(peak, drops),
        "constant": lambda: optax.constant_schedule(peak),
    }[config.schedule or "cosine"]()
    if later:
        still, rise = optax.constant_schedule(0.0), optax.linear_schedule(0.0, peak, later)
        return optax.join_schedules([still, rise, after], [warmup, start])
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Creates the optimizer of a configuration.

    Args:
      config: Options of the optimizer; options that are None get segjax's defaults.
      steps: Number of steps of the whole training.

    Returns:
      Optax transformation: gradient clipping, the optimizer, decoupled weight decay of kernels,
      the learning rate schedule, and learning rate factors for parts of the model. Frozen
      parameters have no optimizer state and are not part of the gradient norm. Its `init` raises a
      ValueError if a pattern of `freeze` matches no parameter, or if a factor is for a part that
      the model does not have.

    References:
      Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; layer-wise decay:
      Bao et al., "BEiT", 2022, its last block at the full rate as in Kerssies et al., "EoMT", 2025.
    """
    config = fill_options(config, steps=steps, batch_size=1)
    optimizers = {
        "adamw": lambda: optax.scale_by_adam(b1=config.momentum),
        "sgd": lambda: optax.trace(config.momentum),
        "nesterov": lambda: optax.trace(config.momentum, nesterov=True),
    }
    stages: tuple[optax.GradientTransformation, ...] = (
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optimizers[config.name or "adamw"](),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
    )
    if config.freeze:
        groups = {"learns": optax.chain(*stages), "frozen": optax.set_to_zero()}
        stages = (optax.partition(groups, functools.partial(_frozen, config.freeze)),)
    return optax.chain(*stages, _rates(config, steps), _factors(config))


def decayed(params: Any) -> Any:
    """Pytree of booleans: True for kernels, the only parameters with weight decay."""
    return _map_paths(lambda path: path.rpartition("/")[2] == "kernel", params)


def frozen_paths(patterns: tuple[str, ...], params: Any) -> set[str]:
    """The parameters that match patterns.

    Args:
      patterns: Patterns of parameter or module paths, as in `OptimizerConfig.freeze`.
      params: Parameters of the model.

    Returns:
      Paths of the parameters, such as "decoder/conv/kernel".

    Raises:
      ValueError: If a pattern matches no parameter.
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


def rate_factors(config: OptimizerConfig, params: Any) -> Any:
    """The learning rate factor of each parameter.

    Args:
      config: Options of the optimizer.
      params: Parameters of the model.

    Returns:
      Pytree of numbers like `params`: `layer_decay^(blocks − 1 − i)` in block i of a vision
      transformer (its embeddings count as block 0), times `backbone` in the backbone or `auxiliary`
      in auxiliary heads.

    Raises:
      ValueError: If the model does not have the part that a factor is for.
    """
    paths = _paths(params)
    factors = dict.fromkeys(paths, 1.0)
    if config.backbone not in (None, 1):
        for path in _require(_backbone(paths), config, "backbone", 1, "a backbone"):
            factors[path] *= config.backbone
    if config.auxiliary not in (None, 1):
        for path in paths:
            factors[path] *= config.auxiliary if path.startswith("auxiliary") else 1
    if config.layer_decay not in (None, 1):
        numbers = {path: _block(path) for path in _backbone(paths)}
        blocks = {number for number in numbers.values() if number is not None}
        _require(blocks, config, "layer_decay", 1, "transformer blocks")
        for path, number in numbers.items():
            if number is None:
                number = max(blocks) if path.endswith(("norm/scale", "norm/bias")) else 0
            factors[path] *= config.layer_decay ** (max(blocks) - number)
    return _map_paths(factors.__getitem__, params)


def _frozen(patterns: tuple[str, ...], params: Any) -> Any:
    frozen = frozen_paths(patterns, params)
    return _map_paths(lambda path: "frozen" if path in frozen else "learns", params)


def _rates(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Multiplies updates by the learning rate of the step."""
    rest = optax.scale_by_learning_rate(learning_rate(config, steps))
    if not config.backbone_warmup:
        return rest
    backbone = optax.scale_by_learning_rate(learning_rate(config, steps, backbone=True))

    def labels(params):
        paths = _backbone(_paths(params))
        found = set(_require(paths, config, "backbone_warmup", 0, "a backbone"))
        return _map_paths(lambda path: "backbone" if path in found else "rest", params)

    return optax.partition({"backbone": backbone, "rest": rest}, labels)


def _factors(config: OptimizerConfig) -> optax.GradientTransformation:
    """Multiplies updates by the learning rate factor of the parameter."""
    if config.backbone == config.auxiliary == config.layer_decay == 1:
        return optax.identity()

    def init(params):
        rate_factors(config, params)
        return optax.EmptyState()

    def update(updates, state, params):
        factors = rate_factors(config, params)
        return jax.tree.map(lambda update, factor: update * factor, updates, factors), state

    return optax.GradientTransformation(init, update)


# The paths of the backbone's parameters within a model; the first pattern that matches any counts.
_BACKBONES = (
    re.compile(r"backbone/.*"),
    re.compile(r"encoder/.*"),
    re.compile(r"(block\d+|patch_embedding)/.*|(class|register)_tokens?|position_embedding"),
)


def _backbone(paths: list[str]) -> list[str]:
    """The paths of the backbone's parameters, if the model has one."""
    found = ([path for path in paths if names.fullmatch(path)] for names in _BACKBONES)
    return next(filter(None, found), [])


def _block(path: str) -> int | None:
    """The index of the transformer block that a parameter belongs to, if any."""
    match = re.match(r"((backbone|encoder)/)?block(\d+)/", path)
    return int(match[3]) if match else None


def _require(
    found: Collection, config: OptimizerConfig, name: str, neutral: int, part: str
) -> Collection:
    """Returns what was found of a part of the model; if that is nothing, refuses the option."""
    if not found:
        raise ValueError(
            f"optimizer.{name}: expected {neutral} for a model without {part}, got "
            f"{getattr(config, name)}"
        )
    return found


def _paths(params: Any) -> list[str]:
    return [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]


def _map_paths(function, params):
    return jax.tree_util.tree_map_with_path(lambda keys, _: function(_path(keys)), params)


def _path(keys: tuple) -> str:
    return "/".join(key.key for key in keys)
