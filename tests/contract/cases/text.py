"""Cases of `segjax.text`."""

from arguments import Case, real

CASES = [
    Case("text.ensemble", lambda h, w: {"embeddings": real(h, w, 4)}),
    *(
        Case(
            "text.merge_names",
            lambda h, w: {"logits": real(h, w, 4)},
            {"groups": (0, 1, 1, 2), "method": method},
            tag=method,
        )
        for method in ("max_probability", "max_logit", "mean")
    ),
]
