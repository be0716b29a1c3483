"""Every public function reads the same: options by keyword, and a docstring with the same parts."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import re
import sys

import pytest
from public import array_functions, is_array, public_functions, public_objects

import segjax

FUNCTIONS = public_functions()
# Losses and metrics that no paper defines.
NO_REFERENCE = {"losses.pixel_weights"}
# What needs a model and data to show something has its examples in experiments/.
NO_EXAMPLE = ("training.",)
# Packages whose examples carry their imports.
IMPORTED = (
    "analysis.",
    "data.",
    "inference.",
    "labels.",
    "losses.",
    "mapping.",
    "matching.",
    "metrics.",
    "models.",
    "numerics.",
    "objectives.",
    "ops.",
    "pretrained.",
    "registry.",
    "text.",
    "viz.",
)


def _parameters(function):
    return inspect.signature(function).parameters.values()


def _docstring(function):
    """Its own, or for a variant of a model that of the function that it refers to."""
    text = inspect.getdoc(function)
    reference = re.search(r"Args and Returns as (?:of|in) `(\w+)`", text)
    if reference and function.__module__.startswith("segjax.models"):
        return _docstring(getattr(sys.modules[function.__module__], reference[1]))
    return text


def _section(function, title):
    """The text under `title:` in the docstring, or None."""
    found = re.search(rf"^{title}:(.*?)(?=^\S|\Z)", _docstring(function), re.M | re.S)
    return found and found[1]


def _entry(function, name):
    """What the docstring's Args say of one parameter; several may share an entry."""
    pattern = rf"^  (?:\*?\w+, )*\*{{0,2}}{name}(?:, \*?\w+)*:(.*?)(?=^  \S|\Z)"
    found = re.search(pattern, _section(function, "Args") or "", re.M | re.S)
    return found and found[1]


def test_packages_show_what_they_offer_and_no_files():
    """An imported file becomes an attribute of its package, in the place of a function so named."""
    for package in pkgutil.walk_packages(segjax.__path__, "segjax."):
        if package.ispkg:
            face = importlib.import_module(package.name)
            files = {file.name for file in pkgutil.iter_modules(face.__path__) if not file.ispkg}
            assert dir(face) == sorted(face.__all__), package.name
            assert files.isdisjoint(face.__all__), package.name


@pytest.mark.parametrize("name", public_objects())
def test_has_a_docstring(name):
    assert (public_objects()[name].__doc__ or "").strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keyword_only(name):
    for parameter in _parameters(FUNCTIONS[name]):
        if parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_explains_every_parameter(name):
    missing = [
        parameter.name
        for parameter in _parameters(FUNCTIONS[name])
        if _entry(FUNCTIONS[name], parameter.name) is None
    ]
    assert not missing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_has_result_and_example(name):
    function = FUNCTIONS[name]
    if inspect.signature(function).return_annotation is not None:
        assert _section(function, "Returns") or _section(function, "Yields")
    assert name.startswith(NO_EXAMPLE) or ">>>" in (_section(function, "Example") or "")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith(IMPORTED)])
def test_example_imports_what_it_uses(name):
    """So that it runs where a reader pastes it."""
    examples = doctest.DocTestParser().get_examples(_docstring(FUNCTIONS[name]))
    nodes = list(ast.walk(ast.parse("".join(example.source for example in examples))))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    assigned |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assigned |= {alias.asname or alias.name for node in imports for alias in node.names}
    assert {node.id for node in names} <= assigned | set(dir(builtins))


@pytest.mark.parametrize("name", array_functions())
def test_docstring_gives_shapes(name):
    shape = re.compile(r"`\[|any shape|same shape|broadcasts|scalar|record", re.I)
    function = FUNCTIONS[name]
    unclear = [
        parameter.name
        for parameter in _parameters(function)
        if is_array(parameter.annotation) and not shape.search(_entry(function, parameter.name))
    ]
    assert not unclear


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if name.startswith(("losses.", "metrics."))]
)
def test_docstring_has_references(name):
    assert name in NO_REFERENCE or _section(FUNCTIONS[name], "References")
