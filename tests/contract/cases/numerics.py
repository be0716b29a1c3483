"""Cases of `segjax.numerics`."""

from arguments import Case, log_prob, mask, real

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
]
