"""The commands of the terminal: each module has its `Options` and `run(options) -> exit code`."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
