"""Ids by OpenAI's tokenizer: writes clip_ids.json beside this file.

Run `python clip_ids.py bpe_simple_vocab_16e6.txt.gz vocabularies.json` where clip-anytorch is
installed, which has OpenAI's `simple_tokenizer.py` as it is.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np

from segjax.text import TEMPLATES, fill_templates

ODD = [
    "",
    "  \t\n ",
    "A photo of a CAT.",
    "âœ” No problems, schÃ¶n",
    "&lt;b&gt; &amp;amp; &notanentity; &#x41;",
    "Café naïve ÀÉÎ e\u0301",
    "日本語のテキスト 한국어 ไทย مرحبا",
    "👩‍👩‍👧‍👦 🚗!!",
    "don't I'LL we've",
    "1234 5.6e-7 ½ Ⅷ",
    "<|startoftext|> x <|endoftext|>",
    "İstanbul ǅ ﬁ ſtraße ẞ",
    "\x00\x07\ud7ff\ufffd",
    "a\u00a0b\u2003c",
    "I’m “quoted” — dash…",
    "a" * 300,
    "x_y-z#@$%",
]


def digest(ids):
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


if __name__ == "__main__":
    from clip.simple_tokenizer import SimpleTokenizer

    vocabulary, names = map(pathlib.Path, sys.argv[1:])
    tokenizer = SimpleTokenizer(str(vocabulary))
    lists = json.loads(names.read_text())
    classes = sorted({entry["text"] for entries in lists.values() for entry in entries})
    prompts = fill_templates(classes, TEMPLATES["imagenet80"])
    path = pathlib.Path(__file__).with_suffix(".json")
    found = {
        "odd": [[int(i) for i in np.asarray(tokenizer.encode(text))] for text in ODD],
        "prompts": digest([tokenizer.encode(prompt) for prompt in prompts]),
    }
    path.write_text(json.dumps(found) + "\n")
