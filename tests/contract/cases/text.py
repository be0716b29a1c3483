"""Cases of `segjax.text`, and of labels by texts."""

from arguments import Case, fraction, real

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
    Case(
        "inference.smooth_by_keys",
        lambda h, w: {"probs": fraction(h, w, 3), "keys": real(h, w, 4)},
        {"threshold": 0.5},
    ),
    Case("inference.drop_absent_classes", lambda h, w: {"logits": real(h, w, 3)}),
]
