"""CLIP's tokenizer gives OpenAI's ids."""

import gzip
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from segjax.text import TEMPLATES, ClipTokenizer, fill_templates

pytest.importorskip("ftfy")
pytest.importorskip("regex")
SCRIPT = Path(__file__).parent / "golden" / "clip_ids.py"
PEER = runpy.run_path(str(SCRIPT))
GOLDEN = json.loads(SCRIPT.with_suffix(".json").read_text())
MERGES = "#version: 0.2\na t</w>\nc at</w>\n"


@pytest.fixture(scope="module")
def published(data_dir):
    return ClipTokenizer.from_file(data_dir / "vocab")


def test_ids_of_odd_strings_are_openai_s(published):
    assert len(published.ids) == 49408
    assert [published.encode(text) for text in PEER["ODD"]] == GOLDEN["odd"]


def test_ids_of_all_class_names_in_all_templates_are_openai_s(published, data_dir):
    lists = json.loads((data_dir / "vocab" / "vocabularies.json").read_text())
    classes = sorted({entry["text"] for entries in lists.values() for entry in entries})
    prompts = fill_templates(classes, TEMPLATES["imagenet80"])
    assert PEER["digest"]([published.encode(prompt) for prompt in prompts]) == GOLDEN["prompts"]


def test_a_text_ends_at_its_largest_id_and_zeros_follow(published):
    row = published("!!! what")[0]
    assert row.shape == (77,)
    assert row[0] == 49406
    assert row.argmax() == (row == 49407).argmax() == np.flatnonzero(row)[-1]
    assert published.decode(row) == "!!! what"


def test_a_text_that_is_too_long_is_cut_with_a_warning(tmp_path):
    (tmp_path / "merges.txt").write_text(MERGES)
    tokenizer = ClipTokenizer.from_file(tmp_path)
    with pytest.warns(UserWarning, match="cut to 4 tokens: 'cat cat cat'"):
        row = tokenizer("cat cat cat", length=4)[0]
    start, end = tokenizer.ids["<|startoftext|>"], tokenizer.end
    assert row.tolist() == [start, tokenizer.ids["cat</w>"], tokenizer.ids["cat</w>"], end]


def test_a_file_may_be_packed_or_plain(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(MERGES.encode()))
    (tmp_path / "b.txt").write_text(MERGES)
    packed, plain = (ClipTokenizer.from_file(tmp_path / name) for name in ("a.txt.gz", "b.txt"))
    assert packed.ids == plain.ids
    assert plain.encode("Cat") == [plain.ids["cat</w>"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8bbroken", "expected a text of merges"),
        (b"\xff\xfe", "expected a text of merges"),
        (b"#version\none two three\n", "expected two symbols in every line"),
        (b"", "expected two symbols in every line"),
    ],
)
def test_what_is_no_vocabulary_is_an_error_with_the_file_s_name(tmp_path, content, message):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"v.txt: {message}"):
        ClipTokenizer.from_file(tmp_path / "v.txt")
    with pytest.raises(FileNotFoundError, match="expected one of bpe_simple_vocab"):
        ClipTokenizer.from_file(tmp_path)
