"""Embeddings of class names: computed once, kept in a file, and used without the text tower."""

import dataclasses
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from segjax.files import write_file
from segjax.text.names import ClassNames
from segjax.text.prompts import ensemble, fill_templates
from segjax.typing import Array


@dataclasses.dataclass(frozen=True)
class TextEmbeddings:
    """The embedding of every name of some classes.

    Attributes:
      classes: The classes and their names.
      templates: Prompts that each embedding is the mean of.
      model: Name of the model whose text tower made them.
      vectors: float32 `[n, d]`, of length 1, one for each of `classes.flat`.
    """

    classes: ClassNames
    templates: tuple[str, ...]
    model: str
    vectors: Float[np.ndarray, "n d"]

    def save(self, path: str | os.PathLike) -> None:
        """Writes them into a NumPy archive, without pickles.

        Args:
          path: NAME.npz; a file that is there is replaced.

        Raises:
          OSError: if the file cannot be written.
        """
        about = {
            "names": self.classes.names,
            "templates": self.templates,
            "model": self.model,
        }
        content = io.BytesIO()
        np.savez(content, about=np.array(json.dumps(about)), vectors=self.vectors)
        write_file(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "TextEmbeddings":
        """Reads what `save` wrote.

        Args:
          path: NAME.npz.

        Returns:
          The embeddings.

        Raises:
          OSError: if there is no such file.
          ValueError: if it does not hold embeddings of names.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
        try:
            with np.load(path, allow_pickle=False) as file:
                about, vectors = json.loads(str(file["about"])), np.array(file["vectors"])
            names = tuple(tuple(map(str, synonyms)) for synonyms in about["names"])
            classes, templates = ClassNames(names), tuple(map(str, about["templates"]))
            model = str(about["model"])
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: expected embeddings of names, got {error}") from None
        if vectors.dtype != np.float32 or vectors.shape[:-1] != (len(classes.flat),):
            raise ValueError(
                f"{path}: expected float32 vectors of {len(classes.flat)} names, got "
                f"{vectors.dtype} of shape {vectors.shape}"
            )
        return cls(classes, templates, model, vectors)


def embed_names(
    encode: Callable[[Array], jax.Array],
    tokenize: Callable[[Sequence[str]], np.ndarray],
    classes: ClassNames,
    *,
    model: str = "",
    templates: Sequence[str] = ("a photo of a {}.",),
    batch_size: int = 256,
) -> TextEmbeddings:
    """Embeds the names of classes, each as the mean over its prompts.

    Args:
      encode: Function from token ids `[n, length]` to embeddings `[n, d]`: a text tower, compiled
        with its variables as an argument. It is called with one shape of ids alone.
      tokenize: Function from texts to token ids `[n, length]`, such as a `ClipTokenizer`.
      classes: Classes and their names.
      model: Name of the model, for the file.
      templates: Prompts, in which `{}` stands for the name.
      batch_size: Number of prompts that are encoded at a time.

    Returns:
      One embedding of length 1 for each name.

    Raises:
      ValueError: for a template without a place for the name.

    Example:
      >>> from segjax import text
      >>> import jax, numpy as np
      >>> encode = lambda ids: jax.nn.one_hot(ids[:, 0], 3)
      >>> tokenize = lambda texts: np.array([[len(text) - 3] for text in texts])
      >>> classes = text.ClassNames.parse(["cat", "mouse"])
      >>> text.embed_names(encode, tokenize, classes, templates=["{}"]).vectors
      array([[1., 0., 0.],
             [0., 0., 1.]], dtype=float32)
    """
    prompts = fill_templates(classes.flat, templates)
    ids = tokenize(prompts)
    count, batch = len(ids), min(batch_size, len(ids))
    padded = np.concatenate([ids, np.repeat(ids[-1:], -count % batch, axis=0)])
    parts = [np.asarray(encode(part)) for part in np.split(padded, len(padded) // batch)]
    vectors = jnp.concatenate(parts)[:count].reshape(len(classes.flat), len(templates), -1)
    return TextEmbeddings(
        classes, tuple(templates), model, np.asarray(ensemble(vectors), np.float32)
    )
