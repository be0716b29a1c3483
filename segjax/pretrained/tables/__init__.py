"""The key tables, one file a family."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
