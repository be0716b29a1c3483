"""`segjax convert`."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from segjax import pretrained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Writes weights as a safetensors file.

    The arrays have the names of the published model, so that torch loads them strictly into the
    original; models without published weights have segjax's own names. The file of a training run
    contains its configuration, so that `segjax predict`, `evaluate` and `train --weights` take it
    in place of the run.

    Attributes:
      source: Folder of a training run, or a file made from one; or published weights: a file
        (.safetensors, .pth, .pt, .bin, .ckpt) or a repository of the Hugging Face hub, OWNER/NAME.
      output: File to write, NAME.safetensors.
      model: Name of the model of published weights; a run has its own.
      model_options: Attributes of the model's module with their values, where they are not the
        published ones; a run has its own.
      num_classes: Number of classes of published weights, with a new head; by default that of the
        file.
      channels: Number of image channels of published weights, with an adapted first kernel; by
        default that of the file.
      average: Whether to take the moving average of published weights, if a file has both.
      naming: Naming convention of the arrays, if there are several: authors, timm, transformers, or
        segjax for segjax's own names; by default the usual one of the model.
      checkpoint: Checkpoint of a run: the best by the task's score (if there is none, the last),
        the last, or that of a step, by its number.
      seed: Seed of what is newly initialised.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    output: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="OUTPUT")]
    model: str | None = None
    model_options: dict[str, str] = dataclasses.field(default_factory=dict)
    num_classes: int | None = None
    channels: int | None = None
    average: bool = False
    naming: str | None = None
    checkpoint: Literal["best", "last"] | int = "best"
    seed: int = 0


def run(options: Options) -> int:
    """Writes the file."""
    if options.output.suffix != ".safetensors":
        raise ValueError(f"output: expected a name that ends in .safetensors, got {options.output}")
    # Not sooner: `--help` need not wait for JAX.
    import jax

    from segjax.pretrained.files import read_metadata
    from segjax.pretrained.weights import is_run, usual_naming
    from segjax.training.build import read_options
    from segjax.training.learnt import load_learnt
    from segjax.training.run_folder import METADATA, read_content

    source = pathlib.Path(options.source)
    metadata = {}
    if is_run(source) or METADATA in (read_metadata(source) if source.is_file() else {}):
        _check_run(options)
        metadata = {METADATA: read_content(source)}
        info, variables, origin = load_learnt(source, options.checkpoint)
        name = info.config.model
        naming = options.naming or usual_naming(variables, name)
    elif options.model is None:
        raise ValueError(
            f"{options.source}: expected a training run, or --model for published weights"
        )
    else:
        name, origin, naming = options.model, options.source, options.naming
        variables = pretrained.load(
            options.source,
            name,
            num_classes=options.num_classes,
            channels=options.channels,
            average=options.average,
            key=jax.random.key(options.seed),
            **read_options(options.model_options),
        )
    pretrained.save(variables, options.output, name, naming=naming, metadata=metadata)
    print(f"{name} of {origin}: {options.output}")
    return 0


def _check_run(options: Options) -> None:
    """Refuses options that have no effect on a run."""
    for name in ("model", "model_options", "num_classes", "channels", "average"):
        if getattr(options, name):
            raise ValueError(
                f"{name}: expected none, as the run {options.source} has its own; got "
                f"{getattr(options, name)}"
            )
