"""Reading and writing of published weights, under their original names."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.pretrained.errors import WeightsError
    from segjax.pretrained.weights import load, save
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
