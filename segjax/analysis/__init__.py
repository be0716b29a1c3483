"""Analysis of losses and models: gradients, curvature, receptive fields and attention."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
