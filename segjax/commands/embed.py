"""`segjax embed`."""

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from segjax.text import ClipTokenizer, TokenizerFile

TemplateSet = Literal["photo", "imagenet7", "imagenet80", "maskclip85"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Embeds class names by the text tower of a CLIP or SigLIP, for labels without that tower.

    Attributes:
      names: Text file with one line a class, in which commas separate synonyms.
      output: File to write, NAME.npz.
      weights: Published weights: a file, or OWNER/NAME on the Hugging Face hub.
      model: Name of the model that the weights are of, such as clip_vit_base_patch16.
      vocabulary: What the tokenizer is read from: bpe_simple_vocab_16e6.txt.gz, a merges.txt or a
        tokenizer.json, or a folder with one of them; without it, the folder of the weights.
      templates: Prompts that an embedding is the mean of.
      gelu: Whether the weights are for the exact GELU, as open_clip's are whose names do not end in
        -quickgelu; OpenAI's are not (CLIP only).
    """

    names: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="NAMES")]
    output: pathlib.Path
    weights: str
    model: str
    vocabulary: pathlib.Path | None = None
    templates: TemplateSet = "imagenet80"
    gelu: bool = False


def run(options: Options) -> int:
    """Writes the embeddings."""
    # Not sooner: `--help` need not wait for JAX.
    from segjax import pretrained
    from segjax.models import Clip
    from segjax.registry import find_entry, make_model
    from segjax.text import TEMPLATES, ClassNames, embed_names

    if options.output.suffix != ".npz":
        raise ValueError(f"output: expected NAME.npz, got {options.output}")
    find_entry(options.model)
    settings: dict[str, Any] = {"activation": "gelu"} if options.gelu else {}
    model = make_model(options.model, 0, **settings)
    if not isinstance(model, Clip):
        raise ValueError(f"model: expected a CLIP or SigLIP, got {options.model}")
    classes = ClassNames.from_file(options.names)
    tokenize = _tokenizer(options)
    variables = pretrained.load(options.weights, options.model, **settings)
    encode: Any = functools.partial(model.apply, variables, method="encode_text")
    embeddings = embed_names(
        encode,
        tokenize,
        classes,
        model=options.model,
        templates=TEMPLATES[options.templates],
    )
    embeddings.save(options.output)
    print(f"{len(classes.flat)} names of {len(classes)} classes: {options.output}")
    return 0


def _tokenizer(options: Options) -> "ClipTokenizer | TokenizerFile":
    """The tokenizer of the model: that of a `tokenizer.json` where there is one."""
    from segjax.text import ClipTokenizer, TokenizerFile

    path = options.vocabulary
    if path is None:
        weights = pathlib.Path(options.weights)
        path = weights if weights.is_dir() else weights.parent
        if not weights.exists():
            raise ValueError(
                f"vocabulary: expected a file for {options.weights}, got none: give --vocabulary"
            )
    is_siglip = options.model.startswith("siglip")
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.suffix == ".json" and (file.is_file() or is_siglip):
        length = 64 if is_siglip else 77
        return TokenizerFile.from_file(
            file, length=length, lower=options.model.startswith("siglip2")
        )
    if is_siglip:
        raise ValueError(f"vocabulary: expected a tokenizer.json for {options.model}, got {path}")
    return ClipTokenizer.from_file(path)
