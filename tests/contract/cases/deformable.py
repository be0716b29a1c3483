"""The case of `segjax.ops.deformable`."""

from arguments import Case, fraction, real

CASES = [
    Case(
        "ops.deformable_attention",
        lambda h, w: {
            "values": real(h, w, 2, 3),
            "locations": real(2, 2, 2, 1, 2),
            "weights": fraction(2, 2, 2, 1),
        },
        forward=False,
        build=lambda arrays: {
            "levels": [arrays["values"], arrays["values"][:1]],
            "locations": arrays["locations"],
            "weights": arrays["weights"],
        },
    ),
]
