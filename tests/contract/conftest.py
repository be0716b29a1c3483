"""Makes `public.py` and `cases` importable by the tests beside them, and deals the tests out."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    """All tests of a case run in one process, where it is compiled once (`--dist loadgroup`)."""
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if case:
            item.add_marker(pytest.mark.xdist_group(str(case)))
