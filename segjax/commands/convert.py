"""`segjax convert`."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import jax
import tyro

from segjax import pretrained
from segjax.training.build import read_options
from segjax.training.checkpoint import load_variables
from segjax.training.run_folder import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Writes weights as a safetensors file with the names of the published model.

    From the folder of a run the file is what torch loads strictly, into the original. From
    published weights of whichever form it is what `segjax train --weights` reads without an extra.

    Attributes:
      source: folder of a training run; or published weights: a file (.safetensors, .pth, .pt, .bin,
        .ckpt) or a repository of the Hugging Face hub, OWNER/NAME.
      output: the file to write, NAME.safetensors.
      model: that the published weights are of; a run knows its own.
      model_options: attributes of its module, where they are not the published ones.
      num_classes: of the logits, with a new head; None keeps the file's.
      channels: of the images, with an adapted first kernel; None keeps the file's.
      naming: whose names the file's arrays have, where a model has those of several: "authors",
        "timm", "transformers"; None for those that it is best known by.
      checkpoint: of a run: the best one by its mean IoU (where there is none, the last), or the
        last.
      seed: of what is drawn anew.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    output: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="OUTPUT")]
    model: str | None = None
    model_options: dict[str, str] = dataclasses.field(default_factory=dict)
    num_classes: int | None = None
    channels: int | None = None
    naming: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    seed: int = 0


def run(options: Options) -> int:
    """Writes the file."""
    if options.output.suffix != ".safetensors":
        raise ValueError(f"{options.output}: due is a name that ends in .safetensors")
    folder = pathlib.Path(options.source)
    if (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
        name = read_config(folder).config.model
        variables, step = load_variables(folder / "checkpoints", options.checkpoint)
        origin = f"step {step} of {folder}"
    elif options.model is None:
        raise ValueError(f"{options.source}: no run there; --model is due for published weights")
    else:
        name, origin = options.model, options.source
        variables = pretrained.load(
            options.source,
            name,
            num_classes=options.num_classes,
            channels=options.channels,
            key=jax.random.key(options.seed),
            **read_options(options.model_options),
        )
    pretrained.save(variables, options.output, name, naming=options.naming)
    print(f"{name} of {origin}: {options.output}")
    return 0
