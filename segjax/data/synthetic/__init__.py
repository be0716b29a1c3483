"""Procedural scenes with every kind of label."""

from segjax.data.synthetic.scenes import VOCABULARY, caption_text, scene
from segjax.data.synthetic.source import Synthetic
from segjax.data.synthetic.style import OUTLINES, SceneStyle
