"""Class names, synonyms, and prompts."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from segjax.text import BACKGROUND_NOUNS, TEMPLATES, ClassNames, ensemble, merge_names


def test_templates_are_the_published_ones():
    digest = hashlib.sha256("\n".join(TEMPLATES["imagenet80"]).encode()).hexdigest()
    assert digest.startswith("4f976686")
    assert len(TEMPLATES["imagenet7"]) == 7
    assert set(TEMPLATES["imagenet7"]) < set(TEMPLATES["imagenet80"])
    assert len(set(TEMPLATES["maskclip85"])) == 85
    assert len(ClassNames.parse([BACKGROUND_NOUNS]).flat) == 26


@pytest.mark.parametrize("method", ["max_probability", "max_logit", "mean"])
def test_scores_of_names_become_those_of_classes(method):
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    groups = (0, 1, 1, 2, 0)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scores = scores if method == "max_probability" else logits
    reduce = np.mean if method == "mean" else np.max
    members = [np.flatnonzero(np.array(groups) == k) for k in range(3)]
    expected = np.stack([reduce(scores[..., m], axis=-1) for m in members], axis=-1)
    assert_allclose(merge_names(jnp.asarray(logits), groups, method=method), expected, rtol=1e-6)


def test_a_class_of_one_name_keeps_its_score_and_ties_their_order():
    logits = jnp.array([2.0, 2.0, 1.0])
    assert_allclose(merge_names(logits, (0, 1, 2), method="max_logit"), logits)
    assert jnp.argmax(merge_names(logits, (0, 1, 2))) == 0


def test_the_order_and_length_of_prompts_do_not_matter_to_their_mean():
    rng = np.random.default_rng(1)
    prompts = rng.normal(size=(4, 7, 5)).astype(np.float32)
    whole = ensemble(jnp.asarray(prompts))
    scaled = ensemble(jnp.asarray(prompts[:, ::-1] * rng.uniform(1, 9, (4, 7, 1)).astype("f")))
    assert_allclose(scaled, whole, atol=1e-6)
    assert_allclose(np.linalg.norm(whole, axis=-1), 1, rtol=1e-6)
    cancelling = jax.grad(lambda x: ensemble(x).sum())(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert jnp.isfinite(cancelling).all()


def test_names_come_from_a_file_by_line(tmp_path):
    (tmp_path / "names.txt").write_text("person, rider\n\nroad\n")
    names = ClassNames.from_file(tmp_path / "names.txt")
    assert names.names == (("person", "rider"), ("road",))
    (tmp_path / "names.txt").write_text("person\n , \n")
    with pytest.raises(ValueError, match=r"names.txt: texts: expected a name for class 1"):
        ClassNames.from_file(tmp_path / "names.txt")
