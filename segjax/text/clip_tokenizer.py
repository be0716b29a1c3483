"""CLIP's tokenizer: byte pairs of words in lower case."""

import functools
import gzip
import html
import importlib
import itertools
import os
import pathlib
import types
import warnings
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"  # the last symbol of a word
_MERGES = 48894  # of the published vocabulary; the file has more, which were never used
# What is a word: a special token, an English suffix, letters, one digit, or other marks.
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_KEPT_WORDS = 2**16  # whose tokens are remembered


class ClipTokenizer:
    """Tokenizer of OpenAI's CLIP, whose ids it gives for any string.

    A text is repaired (mojibake, HTML entities), its whitespace collapsed, and put into lower case.
    Each of its words starts as the symbols of its UTF-8 bytes, and the pair of neighbours that the
    vocabulary lists first is merged until none is left.

    Attributes:
      merges: Pairs of symbols, those that are merged first before others.
      ids: Id of each symbol.

    Example:
      >>> from segjax import text
      >>> tokenizer = text.ClipTokenizer([("c", "a"), ("ca", "t</w>")])
      >>> tokenizer("cat", length=6)
      array([[514, 513, 515,   0,   0,   0]], dtype=int32)

    References:
      Radford et al., "Learning transferable visual models from natural language supervision",
      2021, section 2.4; Sennrich et al., "Neural machine translation of rare words with subword
      units", 2016, section 3.2.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self.merges = list(merges)
        symbols = list(_byte_symbols().values())
        symbols += [symbol + WORD_END for symbol in symbols]
        symbols += ["".join(pair) for pair in self.merges]
        symbols += [START, END]
        self.ids = {symbol: i for i, symbol in enumerate(symbols)}
        self._ranks = {pair: i for i, pair in enumerate(self.merges)}
        self._word_ids = functools.lru_cache(_KEPT_WORDS)(self._merge_word)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "ClipTokenizer":
        """Reads the vocabulary of merges.

        Args:
          path: `bpe_simple_vocab_16e6.txt.gz` as OpenAI publishes it, or as text; a `merges.txt` of
            Hugging Face's; or a folder that holds one of them.

        Returns:
          The tokenizer.

        Raises:
          OSError: if there is no such file, or it cannot be read.
          ValueError: if the file is not one of merges.
        """
        path = pathlib.Path(path)
        if path.is_dir():
            names = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt", "merges.txt")
            found = [path / name for name in names if (path / name).is_file()]
            if not found:
                raise FileNotFoundError(
                    f"{path}: expected one of {', '.join(names)} in it, got none"
                )
            path = found[0]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
        content = path.read_bytes()
        try:
            text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise ValueError(f"{path}: expected a text of merges, got {error}") from None
        # The first line is the version.
        lines = itertools.islice(text.splitlines(), 1, _MERGES + 1)
        pairs = [tuple(line.split()) for line in lines if line.strip()]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{path}: expected two symbols in every line after the first")
        return cls((first, second) for first, second in pairs)

    @property
    def end(self) -> int:
        """Id of the token at which a text ends."""
        return self.ids[END]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without those of its start and its end.

        Args:
          text: Any string.

        Returns:
          As many ids as there are symbols.

        Raises:
          ImportError: where the packages of the extra `text` are missing.
        """
        regex = _package("regex")
        words = regex.findall(_WORDS, clean(text), flags=regex.IGNORECASE)
        return [i for word in words for i in self._word_ids(word)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids; bytes that are no text become U+FFFD.

        Args:
          ids: Ids of tokens, of which those of start and end, and all after the first end, are
            left out.

        Returns:
          The text, with a space after each word.
        """
        symbols = {i: symbol for symbol, i in self.ids.items()}
        kept = itertools.takewhile(lambda i: i != self.end, map(int, ids))
        joined = "".join(symbols[i] for i in kept if i != self.ids[START])
        values = {symbol: value for value, symbol in _byte_symbols().items()}
        text = joined.replace(WORD_END, " ")
        return (
            bytearray(values[c] if c != " " else 32 for c in text).decode(errors="replace").strip()
        )

    def __call__(self, texts: str | Sequence[str], *, length: int = 77) -> np.ndarray:
        """The ids of texts as the text tower of CLIP takes them.

        Args:
          texts: One text, or several.
          length: Number of tokens of a row, those of start and end included. A longer text is cut,
            with a warning.

        Returns:
          int32 `[n, length]`: the start, the text, the end, and zeros. (0 is also the id of "!", so
          the text ends at the largest id, not at the first 0.)

        Raises:
          ValueError: if `length` is below 2.
          ImportError: where the packages of the extra `text` are missing.
        """
        if length < 2:
            raise ValueError(f"length: expected at least 2, got {length}")
        texts = [texts] if isinstance(texts, str) else texts
        rows = np.zeros((len(texts), length), np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.ids[START], *self.encode(text), self.end]
            if len(ids) > length:
                warnings.warn(f"cut to {length} tokens: {text[:40]!r} ...", stacklevel=2)
                ids = [*ids[: length - 1], self.end]
            row[: len(ids)] = ids
        return rows

    def _merge_word(self, word: str) -> list[int]:
        if word in (START, END):
            return [self.ids[word]]
        symbols = [_byte_symbols()[value] for value in word.encode()]
        symbols[-1] += WORD_END
        while len(symbols) > 1:
            pair = min(itertools.pairwise(symbols), key=self._rank)
            if pair not in self._ranks:
                break
            symbols = _merge(symbols, pair)
        return [self.ids[symbol] for symbol in symbols]

    def _rank(self, pair: tuple[str, str]) -> int:
        return self._ranks.get(pair, len(self._ranks))


def clean(text: str) -> str:
    """A text as CLIP's tokenizer reads it: repaired, in lower case, with single spaces.

    Args:
      text: Any string.

    Returns:
      The text.

    Raises:
      ImportError: where the packages of the extra `text` are missing.
    """
    text = _package("ftfy").fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return _package("regex").sub(r"\s+", " ", text).strip().lower()


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with every occurrence of the pair joined, from left to right."""
    merged: list[str] = []
    rest = iter(range(len(symbols)))
    for i in rest:
        if tuple(symbols[i : i + 2]) == pair:
            merged.append("".join(pair))
            next(rest)
        else:
            merged.append(symbols[i])
    return merged


@functools.cache
def _byte_symbols() -> dict[int, str]:
    """A printable character for each byte: itself, or the next one from U+0100 on.

    The order is that of the vocabulary's ids.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {value: chr(value) for value in printable} | {
        value: chr(0x100 + i) for i, value in enumerate(others)
    }


def _package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is missing: pip install 'segjax[text]'") from None
