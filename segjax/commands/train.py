"""`segjax train`."""

from segjax.training import TrainConfig
from segjax.training import train as train_model

Options = TrainConfig

STOPPED = 143  # 128 + SIGTERM, as a shell says it


def run(options: Options) -> int:
    """Trains: 0 where it has finished, 143 where SIGTERM stopped it and it has saved."""
    return 0 if train_model(options) else STOPPED
