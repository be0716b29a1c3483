"""Lazy imports: the public names of a package are imported on first use."""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes the imports under `if TYPE_CHECKING:` a package's public names, loaded on first use.

    Editors and type checkers read these imports; a program imports only what it uses.

    Args:
      package: `__name__` of the package.

    Returns:
      The package's `__getattr__`, `__dir__` and `__all__`.

    Example:
      >>> __getattr__, __dir__, __all__ = attach("segjax.matching")
      >>> "sinkhorn" in __dir__(), __getattr__("sinkhorn").__module__
      (True, 'segjax.matching.transport')
    """
    module = sys.modules[package]
    tree = ast.parse(inspect.getsource(module))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    origins = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = sorted(origins)

    def load(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        origin = origins[name]
        if origin == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(str(origin)), name)
        setattr(module, name, value)  # so that it is loaded once
        return value

    return load, lambda: list(names), names
