"""Errors of the library read "name: expected ..., got ..." and name arguments of the function."""

import inspect
import re
import traceback
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import CASES
from public import array_functions

import segjax

FUNCTIONS = array_functions()
ERROR = re.compile(r"(?P<names>[\w.]+(, [\w.]+)*): expected .+, got .+")
# These still let errors of inner functions through, which name the arguments of those.
EXEMPT = ("data.", "inference.rpn_proposals", "inference.average_over_views")
ONE_CASE_EACH = {
    case.function: case for case in reversed(CASES) if not case.function.startswith(EXEMPT)
}.values()


@pytest.fixture(autouse=True)
def _whole_tracebacks():
    """So that the innermost frame tells whether segjax or JAX raised an error."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


def _wrong(array):
    yield np.zeros((), array.dtype)
    yield array.astype(np.float32 if array.dtype.kind in "bi" else np.int32)
    if array.ndim:
        yield np.concatenate([array, array[..., :1]], axis=-1)


def _calls(case):
    """Arguments with one that is wrong: an array, or an option that is a word."""
    rng = np.random.default_rng(0)
    arrays = {name: argument.draw(rng) for name, argument in case.arguments(4, 5).items()}
    for name, array in arrays.items():
        for wrong in _wrong(array):
            yield {**arrays, name: wrong}, case.options
    for name, parameter in inspect.signature(FUNCTIONS[case.function]).parameters.items():
        if isinstance(case.options.get(name, parameter.default), str):
            yield arrays, {**case.options, name: "no such word"}


def _raised(case, arrays, options):
    """The error of segjax itself, if there is one; those of JAX say enough."""
    function = FUNCTIONS[case.function]
    try:
        jax.eval_shape(lambda arrays: function(**case.build(arrays), **options), arrays)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        return error if Path(place).is_relative_to(Path(segjax.__file__).parent) else None


@pytest.mark.parametrize("case", ONE_CASE_EACH, ids=lambda case: case.function)
@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument(case):
    parameters = inspect.signature(FUNCTIONS[case.function]).parameters
    for arrays, options in _calls(case):
        if error := _raised(case, arrays, options):
            assert isinstance(error, ValueError | TypeError), repr(error)
            found = ERROR.fullmatch(str(error))
            assert found, error
            names = {name.partition(".")[0] for name in found["names"].split(", ")}
            assert names <= set(parameters), error
