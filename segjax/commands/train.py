"""`segjax train`: trains a model."""

from segjax.training import TrainConfig
from segjax.training import train as train_model

Options = TrainConfig


def run(options: Options) -> int:
    """Trains a model. Returns the exit code: 0 if it has finished, 143 if SIGTERM stopped it."""
    from segjax.training.lock import STOPPED

    return 0 if train_model(options) else STOPPED
