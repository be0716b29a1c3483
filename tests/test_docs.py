"""The documentation is true: its snippets run, its commands parse and its links lead somewhere."""

import argparse
import doctest
import re
import runpy
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tyro

from segjax import cli

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
            if words[:1] == ["segjax"] or words[1:] and words[1].startswith("experiments/"):
                yield words


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what snippets may read: a data set, a photo and a trained run."""
    folder = tmp_path_factory.mktemp("docs")
    mask = np.indices((32, 32)).sum(0) // 8 % 3
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / "PATH" / split / kind).mkdir(parents=True)
        for name in "abcdefgh":
            cv2.imwrite(str(folder / "PATH" / split / "images" / f"{name}.jpg"), 80 * mask)
            cv2.imwrite(str(folder / "PATH" / split / "masks" / f"{name}.png"), mask)
    (folder / "PATH" / "classes.json").write_text('["background", "leaf", "stem"]')
    cv2.imwrite(str(folder / "photo.jpg"), 80 * mask)
    options = "--steps 1 --batch-size 8 --size 32 32 --model-options widths (4,8)".split()
    data = ["--data", str(folder / "PATH")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert cli.main(["train", *data, "--run", str(folder / "runs" / "mine"), *options]) == 0
    return folder


@pytest.mark.parametrize(
    "page", [page for page in PAGES if SNIPPET.search(page.read_text())], ids=_name
)
def test_snippets_run(page, workplace, monkeypatch):
    """One after the other, each with what those above it on the page have defined."""
    monkeypatch.chdir(workplace)
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
def test_commands_parse(words, monkeypatch):
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
    with pytest.raises(SystemExit) as stop:
        if program == "segjax":
            cli.main(arguments)
        else:
            script = ROOT / arguments[0]
            monkeypatch.syspath_prepend(script.parent)
            monkeypatch.setattr(sys, "argv", arguments)
            runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 9000
