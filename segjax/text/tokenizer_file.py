"""Tokenizers of checkpoints: what a `tokenizer.json` says, by the library `tokenizers`."""

import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


class TokenizerFile:
    """The tokenizer that a `tokenizer.json` describes, such as Hugging Face's of CLIP or SigLIP2.

    Attributes:
      length: Number of tokens of a row.
      pad: Id that fills a row up after its text.
      lower: Whether texts are put into lower case first, as SigLIP2's are.
    """

    def __init__(self, tokenizer: Any, *, length: int, pad: int, lower: bool = False):
        self._tokenizer, self.length, self.pad, self.lower = tokenizer, length, pad, lower

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, *, length: int = 77, lower: bool = False
    ) -> "TokenizerFile":
        """Reads a tokenizer.

        Args:
          path: `tokenizer.json`, or the folder of the checkpoint that holds it. The token to pad
            with is read from `tokenizer_config.json` beside it; without one it is id 0.
          length: Number of tokens of a row; 77 in CLIP, 64 in SigLIP.
          lower: Whether texts are put into lower case first.

        Returns:
          The tokenizer.

        Raises:
          OSError: if there is no such file.
          ValueError: if it is no tokenizer.
          ImportError: where the package `tokenizers` is missing.
        """
        try:
            import tokenizers
        except ImportError:
            raise ImportError("tokenizers is missing: pip install 'segjax[text]'") from None
        path = pathlib.Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises nothing more specific
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: expected a tokenizer, got {reason}") from None
        return cls(tokenizer, length=length, pad=_pad_id(tokenizer, path), lower=lower)

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """The ids of texts, with the special tokens that the file adds.

        Args:
          texts: One text, or several. Those that are too long are cut, with a warning.

        Returns:
          int32 `[n, length]`.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.lower:
            texts = [text.lower() for text in texts]
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.length)
        rows = np.full((len(texts), self.length), self.pad, np.int32)
        encodings = self._tokenizer.encode_batch(texts)
        for row, text, encoding in zip(rows, texts, encodings, strict=True):
            if encoding.overflowing:
                warnings.warn(f"cut to {self.length} tokens: {text[:40]!r} ...", stacklevel=2)
            row[: len(encoding.ids)] = encoding.ids
        return rows


def _pad_id(tokenizer: Any, path: pathlib.Path) -> int:
    config = path.with_name("tokenizer_config.json")
    if not config.is_file():
        return 0
    try:
        token = json.loads(config.read_text(encoding="utf-8")).get("pad_token")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config}: expected a JSON object, got {error}") from None
    if isinstance(token, dict):
        token = token.get("content")
    found = None if token is None else tokenizer.token_to_id(token)
    return 0 if found is None else found
