"""Cases of `segjax.numerics`, `segjax.labels` and `segjax.mapping`."""

from arguments import Case, classes, log_prob, mask, real

CASES = [
    Case("numerics.safe_divide", lambda h, w: {"numerator": real(h, w), "denominator": real(h, w)}),
    Case("numerics.log1mexp", lambda h, w: {"x": log_prob(h, w)}),
    Case("numerics.softplus_pair", lambda h, w: {"x": real(h, w)}),
    Case("numerics.broadcast_where", lambda h, w: {"where": mask(h, 1)}, {"shape": (4, 3)}),
    Case(
        "numerics.masked_sum",
        lambda h, w: {"values": real(h, w), "where": mask(h, w)},
        masked=("values",),
    ),
    Case("labels.as_int32", lambda h, w: {"labels": classes(h, w, num_classes=3)}),
    Case(
        "labels.valid_labels",
        lambda h, w: {"labels": classes(h, w, num_classes=3), "where": mask(h, w)},
        {"num_classes": 3},
        masked=("labels",),
        labels=("labels",),
    ),
    Case("mapping.stable_argsort", lambda h, w: {"keys": real(h * w), "ties": mask(h * w)}),
]
