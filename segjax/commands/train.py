"""`segjax train`."""

from segjax.training import TrainConfig
from segjax.training import train as train_model

Options = TrainConfig


def run(options: Options) -> int:
    """Trains: 0 where it has finished, 143 where SIGTERM stopped it and it has saved."""
    from segjax.training.lock import STOPPED

    return 0 if train_model(options) else STOPPED
