"""Training: configurations, the training step on one or many devices, checkpoints and logs."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.training.build import make_model, make_task
    from segjax.training.callbacks import Callback
    from segjax.training.checkpoint import load_variables
    from segjax.training.config import InstanceConfig, PanopticConfig, SemanticConfig, TrainConfig
    from segjax.training.evaluate import make_evaluate
    from segjax.training.loop import open_config_source, train
    from segjax.training.optimizer import learning_rate, make_optimizer
    from segjax.training.optimizer_config import OptimizerConfig
    from segjax.training.parallel import Parallel, mesh_step, pmap_step
    from segjax.training.state import TrainState, create_state
    from segjax.training.step import make_eval_step, make_train_step
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
