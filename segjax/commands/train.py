"""`segjax train`."""

from segjax.training import TrainConfig
from segjax.training import train as train_model

Options = TrainConfig


def run(options: Options) -> int:
    """Trains; 0 also where SIGTERM stopped it, for then it has saved."""
    train_model(options)
    return 0
