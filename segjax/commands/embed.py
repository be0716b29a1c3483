"""`segjax embed`."""

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from segjax.text import ClassNames, ClipTokenizer, TextEmbeddings, TokenizerFile

TemplateSet = Literal["photo", "imagenet7", "imagenet80", "maskclip85"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How class names become embeddings.

    Attributes:
      vocabulary: Vocabulary of the tokenizer: bpe_simple_vocab_16e6.txt.gz, a merges.txt or a
        tokenizer.json, or a folder with one of them; by default the folder of the weights.
      templates: Prompts that an embedding is the mean of.
      gelu: Whether the weights are for the exact GELU, as open_clip's are whose names do not end in
        -quickgelu; OpenAI's are not (CLIP only).
    """

    vocabulary: pathlib.Path | None = None
    templates: TemplateSet = "imagenet80"
    gelu: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TextOptions):
    """Embeds class names by the text tower of a CLIP or SigLIP, so that no tower is needed later.

    Attributes:
      names: Text file with one line a class, in which commas separate synonyms.
      output: File to write, NAME.npz.
      weights: Published weights: a file, or OWNER/NAME on the Hugging Face hub.
      model: Name of the model of the weights, such as clip_vit_base_patch16.
    """

    names: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="NAMES")]
    output: pathlib.Path
    weights: str
    model: str


def run(options: Options) -> int:
    """Writes the embeddings."""
    # Not sooner: `--help` need not wait for JAX.
    from segjax.text import ClassNames

    if options.output.suffix != ".npz":
        raise ValueError(f"output: expected NAME.npz, got {options.output}")
    classes = ClassNames.from_file(options.names)
    embeddings = embed(classes, options.weights, options.model, options)
    embeddings.save(options.output)
    print(f"{len(classes.flat)} names of {len(classes)} classes: {options.output}")
    return 0


def embed(
    classes: "ClassNames", weights: str, model: str, options: TextOptions
) -> "TextEmbeddings":
    """Embeds names by a published model.

    Args:
      classes: Classes and their names.
      weights: A file, or OWNER/NAME on the Hugging Face hub.
      model: Name of the model of the weights.
      options: How names become embeddings.

    Returns:
      The embeddings.

    Raises:
      ValueError: if the model is no CLIP, or its vocabulary is missing.
      OSError: if a file cannot be read.
    """
    import jax

    from segjax import pretrained
    from segjax.models import Clip
    from segjax.registry import find_entry, make_model
    from segjax.text import TEMPLATES, embed_names

    find_entry(model)
    settings = model_settings(options)
    module = make_model(model, 0, **settings)
    if not isinstance(module, Clip):
        raise ValueError(f"model: expected a CLIP or SigLIP, got {model}")
    tokenize = _tokenizer(weights, model, options.vocabulary)
    variables = jax.device_put(pretrained.load(weights, model, **settings))
    apply = jax.jit(functools.partial(module.apply, method="encode_text"))
    encode: Any = functools.partial(apply, variables)
    templates = TEMPLATES[options.templates]
    return embed_names(encode, tokenize, classes, model=model, templates=templates)


def model_settings(options: TextOptions) -> dict[str, Any]:
    """The options of the model's constructor."""
    return {"activation": "gelu"} if options.gelu else {}


def _tokenizer(
    weights: str, model: str, vocabulary: pathlib.Path | None
) -> "ClipTokenizer | TokenizerFile":
    """The tokenizer of the model: that of a `tokenizer.json` where there is one."""
    from segjax.text import ClipTokenizer, TokenizerFile

    path = vocabulary
    if path is None:
        file = pathlib.Path(weights)
        if not file.exists():
            raise ValueError(f"vocabulary: expected a file for {weights}, got none")
        path = file if file.is_dir() else file.parent
    is_siglip = model.startswith("siglip")
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.suffix == ".json" and (file.is_file() or is_siglip):
        lower = model.startswith("siglip2")
        return TokenizerFile.from_file(file, length=64 if is_siglip else 77, lower=lower)
    if is_siglip:
        raise ValueError(f"vocabulary: expected a tokenizer.json for {model}, got {path}")
    return ClipTokenizer.from_file(path)
