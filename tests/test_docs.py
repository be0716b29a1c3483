"""The documentation is true: its snippets run, its commands parse and its links lead somewhere."""

import argparse
import doctest
import functools
import re
import runpy
import shlex
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import optax
import pytest
import tyro

from segjax import cli, models, registry
from segjax.data import Classes
from segjax.training import SemanticConfig, create_state
from segjax.training.build import make_model
from segjax.training.checkpoint import Checkpoints
from segjax.training.run_folder import write_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Visible Python, and what a page hides from its readers but not from its snippets.
SNIPPET = re.compile(r"^(?:```python|<!-- setup)\n(.*?)^(?:```|-->)", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _commands(page):
    """Each shown command of segjax or of an experiment, as the shell would split it."""
    for text in SHELL.findall(page.read_text()):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "segjax" in words[:1] or "experiments/" in "".join(words[1:2]):
                yield words


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what snippets read: a photo, and a run that stopped before its first step."""
    folder = tmp_path_factory.mktemp("docs")
    cv2.imwrite(str(folder / "photo.jpg"), np.zeros((24, 32, 3), np.uint8))
    config = SemanticConfig(
        run=folder / "runs" / "mine", model="unet", model_options={"widths": "(8,)"}
    )
    write_config(config, Classes(("leaf", "stem"), ((0, 200, 0), (90, 60, 0))), 3)
    model, images = make_model(config, 2), np.zeros((1, 32, 32, 3), np.float32)
    checkpoints = Checkpoints(config.run / "checkpoints")
    create = jax.jit(lambda key: create_state(key, model, optax.sgd(1.0), images))
    checkpoints.save(create(jax.random.key(0)), {})
    checkpoints.close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if SNIPPET.search(page.read_text())], ids=_name
)
def test_snippets_run(page, workplace, monkeypatch):
    """One after the other, each with what those above it on the page have defined."""
    monkeypatch.chdir(workplace)
    # What a page registers is forgotten after it.
    monkeypatch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))
    names = {"__name__": page.stem}
    for snippet in SNIPPET.finditer(text := page.read_text()):
        line = text.count("\n", 0, snippet.start(1))
        if ">>> " in snippet[1]:
            test = doctest.DocTestParser().get_doctest(snippet[1], {}, _name(page), str(page), line)
            test.globs = names
            assert not doctest.DocTestRunner().run(test, clear_globs=False).failed
        else:
            exec(compile("\n" * line + snippet[1], str(page), "exec"), names)


@pytest.mark.parametrize("words", [w for page in PAGES for w in _commands(page)], ids=" ".join)
def test_commands_parse(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("steps: 5000\noptimizer:\n  warmup: 100\n")

    def parse_alone(parse):
        def run(*args, **kwargs):
            parse(*args, **kwargs)
            raise SystemExit(0)

        return run

    monkeypatch.setattr(tyro, "cli", parse_alone(tyro.cli))
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", parse_alone(argparse.ArgumentParser.parse_args)
    )
    program, *arguments = words
    run = functools.partial(cli.main, arguments)
    if program == "python":
        script = ROOT / arguments[0]
        monkeypatch.syspath_prepend(script.parent)
        monkeypatch.setattr(sys, "argv", arguments)
        run = functools.partial(runpy.run_path, str(script), run_name="__main__")
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 9000
