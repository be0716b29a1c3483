"""Flax modules, by functions named after the published models."""

from segjax.models.outputs import SemanticOutput
from segjax.models.registry import MODELS, create
from segjax.models.u_net import UNet, unet, unet_patch2, unet_small, unet_tiny
