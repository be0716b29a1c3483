"""Tokenizers of checkpoints, as their files describe them."""

import json

import pytest

from segjax.text import TokenizerFile

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path):
    """A tokenizer of whole words that starts and ends as CLIP's, and pads with its end."""
    words = ["<start>", "<end>", "a", "red", "car", "<unknown>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unknown>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"pad_token": {"content": "<end>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_rows_are_padded_with_the_token_that_the_file_names(folder):
    tokenizer = TokenizerFile.from_file(folder, length=6, lower=True)
    assert tokenizer(["a RED car", "car"]).tolist() == [[0, 2, 3, 4, 1, 1], [0, 4, 1, 1, 1, 1]]
    (folder / "tokenizer_config.json").unlink()
    assert TokenizerFile.from_file(folder / "tokenizer.json", length=4)("car").tolist() == [
        [0, 4, 1, 0]
    ]


def test_a_text_that_is_too_long_keeps_its_end(folder):
    tokenizer = TokenizerFile.from_file(folder, length=4)
    with pytest.warns(UserWarning, match="cut to 4 tokens"):
        assert tokenizer("a red car").tolist() == [[0, 2, 3, 1]]


def test_what_is_no_tokenizer_is_an_error_with_the_file_s_name(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: expected a tokenizer"):
        TokenizerFile.from_file(folder)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        TokenizerFile.from_file(folder / "none")
