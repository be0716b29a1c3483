"""Synthetic scenes with all kinds of labels."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.data.synthetic.scenes import VOCABULARY, caption_text, scene
    from segjax.data.synthetic.source import Synthetic
    from segjax.data.synthetic.style import OUTLINES, SceneStyle
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
