"""The commands of the terminal: each module has its `Options` and `run(options) -> exit code`."""
