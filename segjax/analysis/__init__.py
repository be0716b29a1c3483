"""Analysis: what losses and models do, made visible."""

from segjax.analysis.attention import (
    Correlation,
    attention_error_correlation,
    attention_rollout,
    class_query_maps,
    class_token_maps,
)
from segjax.analysis.gradients import (
    bilinear_gradient_ratio,
    dice_loss_gradient,
    gradient_field,
    gradient_norms,
    hessian_spectrum,
    hessian_vector_product,
    jaccard_gradient,
    mask_problem,
)
from segjax.analysis.receptive import effective_receptive_field, field_extent
