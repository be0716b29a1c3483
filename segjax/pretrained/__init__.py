"""Published weights in and out, under their original names."""

from segjax.pretrained.errors import WeightsError
from segjax.pretrained.registry import PUBLISHED, Published, find_published
from segjax.pretrained.weights import load, save
