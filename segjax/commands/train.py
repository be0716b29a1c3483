"""`segjax train`."""

from segjax.training import TrainConfig
from segjax.training import train as train_model

Options = TrainConfig


def run(options: Options) -> int:
    """Trains."""
    train_model(options)
    return 0
