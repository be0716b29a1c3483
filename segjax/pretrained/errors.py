"""The error of weights that cannot be used."""


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file, with what was expected of it."""
