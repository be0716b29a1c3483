"""Class names from the shell into a file of embeddings."""

import functools
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax import cli, models
from segjax.models.clip import Clip
from segjax.models.clip_towers import ClipImageTower, ClipTextTower
from segjax.models.layers import quick_gelu
from segjax.pretrained import save
from segjax.registry import ENTRIES
from segjax.text import TEMPLATES, ClassNames, ClipTokenizer, TextEmbeddings, ensemble

pytest.importorskip("ftfy")
pytest.importorskip("regex")
SHARED = {"epsilon": 1e-5, "activation": quick_gelu}
IMAGE = functools.partial(ClipImageTower, 8, 1, 2, 4, 8, 6, **SHARED)
TEXT = functools.partial(ClipTextTower, 8, 1, 2, 600, 77, 6, "end", **SHARED)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Weights of a small CLIP, its vocabulary, and names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "clip_small", functools.partial(Clip, IMAGE, TEXT), raising=False)
    monkeypatch.setitem(ENTRIES, "clip_small", ENTRIES["clip_vit_base_patch16"])
    template = jax.eval_shape(Clip(IMAGE, TEXT).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
    save(jax.tree.map(draw, template), tmp_path / "clip.safetensors", "clip_small")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (tmp_path / "names.txt").write_text("cat, kitten\ndog\n")
    return tmp_path


def test_names_are_embedded_by_their_prompts(folder, capsys):
    weights, output = str(folder / "clip.safetensors"), folder / "names.npz"
    options = ["--weights", weights, "--model", "clip_small", "--templates", "imagenet7"]
    arguments = ["embed", str(folder / "names.txt"), "--output", str(output), *options]
    assert cli.main(arguments) == 0
    assert "3 names of 2 classes" in capsys.readouterr().out
    found = TextEmbeddings.load(output)
    assert found.classes == ClassNames.parse(["cat, kitten", "dog"])
    assert (found.model, found.templates) == ("clip_small", TEMPLATES["imagenet7"])

    from segjax.pretrained import load

    ids = ClipTokenizer.from_file(folder)([t.format("dog") for t in TEMPLATES["imagenet7"]])
    variables = load(weights, "clip_small")
    expected = ensemble(Clip(IMAGE, TEXT).apply(variables, ids, method="encode_text"))
    assert_allclose(found.vectors[2], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--output": "names.txt"}, "output: expected NAME.npz"),
        ({"--model": "unet_tiny"}, "model: expected a CLIP or SigLIP, got unet_tiny"),
        ({"--model": "clip_smal"}, "unknown model 'clip_smal'"),
        ({"--weights": "owner/name"}, "vocabulary: expected a file for owner/name"),
        ({"--vocabulary": "nowhere.txt"}, "nowhere.txt: there is no such file"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(folder, capsys, changes, told):
    options = {
        "--output": str(folder / "out.npz"),
        "--weights": str(folder / "clip.safetensors"),
        "--model": "clip_small",
    }
    words = [word for pair in (options | changes).items() for word in pair]
    assert cli.main(["embed", str(folder / "names.txt"), *words]) == 1
    assert told in capsys.readouterr().err


def test_what_is_no_file_of_embeddings_is_an_error(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npz: expected embeddings of names"):
            TextEmbeddings.load(path)
    np.savez(path, about="{}", vectors=np.zeros(3))
    with pytest.raises(ValueError, match=r"a.npz: expected embeddings of names"):
        TextEmbeddings.load(path)


def test_photographs_are_labelled_by_texts(folder, capsys):
    """As it is by the embeddings of a file."""
    photo = folder / "photos" / "a.png"
    photo.parent.mkdir()
    cv2.imwrite(str(photo), np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8))
    model = ["--run", str(folder / "clip.safetensors"), "--model", "clip_small"]
    settings = ["--window", "16", "16"]
    words = ["--text", "cat, kitten", "dog", "--background", "dog", "--threshold", "0.4"]
    words += ["--templates", "photo"]
    output = str(folder / "by_words")
    arguments = ["predict", str(photo), *model, *settings]
    assert cli.main([*arguments, *words, "--output", output]) == 0
    labels = cv2.imread(f"{output}/a.png", cv2.IMREAD_UNCHANGED)
    assert labels.shape == (24, 40)
    assert set(np.unique(labels)) <= {0, 1}
    names = json.loads((folder / "by_words" / "classes.json").read_text())
    assert "cat" in str(names)

    words = ["--output", str(folder / "n.npz"), "--weights", model[1], *model[2:]]
    assert cli.main(["embed", str(folder / "names.txt"), *words, "--templates", "photo"]) == 0
    output = str(folder / "by_file")
    words = ["--text-file", str(folder / "n.npz"), "--background", "dog", "--threshold", "0.4"]
    assert cli.main([*arguments, *words, "--output", output]) == 0
    by_file = cv2.imread(f"{output}/a.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_file, labels)
    idle = [["--threshold", "0.3"], ["--text", "a", "--threshold", "0.3"], ["--dense", "clip"]]
    idle += [
        ["--text", "a", "--task", "semantic"],
        ["--text-file", "n.npz", "--templates", "photo"],
    ]
    for words in idle:
        assert cli.main(["predict", str(photo), *model, "--output", output, *words]) == 1
        assert "no effect with" in capsys.readouterr().err
    words = ["--text", "cat", "dog", "--background", "bird", "--output", output]
    assert cli.main([*arguments, *words]) == 1
    assert "background: expected one of cat, dog, got 'bird'" in capsys.readouterr().err
    assert cli.main(["predict", str(photo), *model[:2], "--text", "cat", "--output", output]) == 1
    assert "model: expected the name of a CLIP with --text" in capsys.readouterr().err
