"""What reading weights says when something is wrong with them."""


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message names it and says what is wrong."""
