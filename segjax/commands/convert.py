"""`segjax convert`."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from segjax import pretrained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Writes weights as a safetensors file.

    The arrays have the names of the published model, for torch to load strictly into the original;
    of a model without one, those of our variables. The file of a training run says what the run's
    `config.json` does, so `segjax predict`, `evaluate` and `train --weights` read it as they read
    the run.

    Attributes:
      source: folder of a training run, or a file made of one; or published weights: a file
        (.safetensors, .pth, .pt, .bin, .ckpt) or a repository of the Hugging Face hub, OWNER/NAME.
      output: the file to write, NAME.safetensors.
      model: that the published weights are of; a run knows its own.
      model_options: attributes of its module, where they are not the published ones; a run knows
        its own.
      num_classes: of the logits of published weights, with a new head; None keeps the file's.
      channels: of the images, with an adapted first kernel; None keeps the file's.
      average: the moving average of published weights, where a file has both.
      naming: whose names the file's arrays have, where a model has those of several: "authors",
        "timm", "transformers", or "segjax" for those of our variables; None for those that it is
        best known by.
      checkpoint: of a run: the best one by its task's score (where there is none, the last), the
        last, or that of a step, by its number.
      seed: of what is newly initialised.
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
        raise ValueError(f"{options.output}: due is a name that ends in .safetensors")
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
        raise ValueError(f"{options.source}: no run there; --model is due for published weights")
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
    """Options that are for published weights have no use for a run."""
    for name in ("model", "model_options", "num_classes", "channels", "average"):
        if getattr(options, name):
            raise ValueError(
                f"{name}: expected none, for the run {options.source} knows its own; got "
                f"{getattr(options, name)}"
            )
