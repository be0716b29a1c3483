"""Finds what segjax offers, and sorts it by kind."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jaxtyping
from flax import linen as nn

import segjax

# The terminal, files, the packages themselves, and what models are built of: not for a program to
# call.
NOT_PUBLIC = {"segjax.cli", "segjax.flags", "segjax.progress", "segjax.files", "segjax.lazy"}
NOT_PUBLIC |= {"segjax.models.layers"}


@functools.cache
def public_objects() -> dict[str, Any]:
    """Every public function and class by its name without `segjax.`, as in "ops.resize"."""
    found: dict[str, Any] = {}
    for face in sorted(_faces(), key=lambda module: module.__name__.count(".")):
        for name, value in _public_names(face):
            if hasattr(value, "__qualname__") and value not in found.values():
                found[f"{face.__name__.removeprefix('segjax.')}.{name}"] = value
    return found


def public_functions() -> dict[str, Callable]:
    return {name: value for name, value in public_objects().items() if not inspect.isclass(value)}


def array_functions() -> dict[str, Callable]:
    """The functions that JAX must be able to transform: those that return JAX arrays or records.

    By kind, these are not among them: classes, generators, functions of a model, and functions
    that return something else (they read files, build models, or answer with text or an array of
    NumPy's).
    """
    return {
        name: function
        for name, function in public_functions().items()
        if is_array(inspect.signature(function).return_annotation)
        and not any(map(_is_module, inspect.signature(function).parameters.values()))
    }


def _is_module(parameter: inspect.Parameter) -> bool:
    """Whether it is a model, whose laws are those of its own tests."""
    kind = parameter.annotation
    return inspect.isclass(kind) and issubclass(kind, nn.Module)


def may_be_floating(annotation: Any) -> bool:
    """Whether an annotation of arrays allows for floating numbers, in one of them at least."""
    if dataclasses.is_dataclass(annotation):
        return any(may_be_floating(field.type) for field in dataclasses.fields(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return annotation.dtype is jaxtyping.Shaped or "float32" in annotation.dtypes
    return any(map(may_be_floating, typing.get_args(annotation)))


def is_array(annotation: Any) -> bool:
    """Whether an annotation names a JAX array of some shape, or a record of arrays."""
    if typing.get_origin(annotation) is Callable:
        return False
    if dataclasses.is_dataclass(annotation):
        fields = dataclasses.fields(annotation)
        return all(is_array(field.type) for field in fields if "static" not in field.metadata)
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return annotation.array_type in (jax.Array, typing.Any)
    return any(is_array(part) for part in typing.get_args(annotation))


def _faces() -> Iterator[Any]:
    """The packages, whose `__all__` lists what is public, and the modules beside them."""
    for module in pkgutil.walk_packages(segjax.__path__, "segjax."):
        if module.name not in NOT_PUBLIC and (module.ispkg or module.name.count(".") == 1):
            yield importlib.import_module(module.name)


def _public_names(face: Any) -> Iterator[tuple[str, Any]]:
    """What a face shows; of a module, what it defines itself."""
    if hasattr(face, "__path__"):
        yield from ((name, getattr(face, name)) for name in getattr(face, "__all__", ()))
        return
    for name, value in vars(face).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == face.__name__:
            yield name, value
