"""segjax: image segmentation in JAX."""

from typing import TYPE_CHECKING

from segjax import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segjax import (
        analysis,
        data,
        inference,
        losses,
        mapping,
        matching,
        metrics,
        models,
        numerics,
        objectives,
        ops,
        pretrained,
        registry,
        tasks,
        text,
        training,
        typing,
        viz,
    )
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
