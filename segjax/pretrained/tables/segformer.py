"""SegFormer by the names of transformers 5, by those of 4, and by its authors' own."""

from segjax.pretrained.keys import POINTWISE, KeyTable
from segjax.pretrained.tables.torchvision import inside

_STAGE = (
    ("embedding_conv", "patch_embeddings.proj"),
    ("embedding_norm", "patch_embeddings.layer_norm"),
    *inside(
        "block{b}",
        "blocks.{b}",
        (
            ("norm1", "layernorm_before"),
            ("attention/query", "attention.q_proj"),
            ("attention/key", "attention.k_proj"),
            ("attention/value", "attention.v_proj"),
            ("attention/output", "attention.o_proj"),
            ("attention/reduction_conv", "attention.sequence_reduction.sequence_reduction"),
            ("attention/reduction_norm", "attention.sequence_reduction.layer_norm"),
            ("norm2", "layernorm_after"),
            ("expand", "mlp.fc1"),
            ("depthwise", "mlp.dwconv.dwconv"),
            ("contract", "mlp.fc2"),
        ),
    ),
    ("norm", "layer_norm"),
)
_STAGES = tuple(row for s in range(4) for row in inside(f"stage{s + 1}", f"stages.{s}", _STAGE))

_OLD_NAMES = (
    (r"encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
    (r"encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"encoder\.layer_norm\.(\d+)\.", r"stages.\1.layer_norm."),
    (r"attention\.self\.query", "attention.q_proj"),
    (r"attention\.self\.key", "attention.k_proj"),
    (r"attention\.self\.value", "attention.v_proj"),
    (r"attention\.self\.sr", "attention.sequence_reduction.sequence_reduction"),
    (r"attention\.self\.layer_norm", "attention.sequence_reduction.layer_norm"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"mlp\.dense(\d)", r"mlp.fc\1"),
    (r"decode_head\.linear_c\.", "decode_head.linear_projections."),
)
_CLASSIFIER = (r"classifier\.(weight|bias)",)

MIT = KeyTable(
    _STAGES,
    renames=((r"^segformer\.", ""), *_OLD_NAMES),
    unused=_CLASSIFIER,
    stem="stages.0.patch_embeddings.proj.weight",
)

SEGFORMER = KeyTable(
    (
        *inside("backbone", "segformer", _STAGES),
        ("fusion/projection{s}", "decode_head.linear_projections.{s}.proj"),
        ("fusion", "decode_head.linear_fuse", POINTWISE),
        ("norm", "decode_head.batch_norm"),
        ("logits", "decode_head.classifier"),
    ),
    renames=_OLD_NAMES,
    unused=_CLASSIFIER,
    stem="segformer.stages.0.patch_embeddings.proj.weight",
    heads=(r"decode_head\.classifier\..*",),
    backbone="segformer.",
)

_AUTHORS_STAGES = (
    ("stage{s}/embedding_conv", "patch_embed{s}.proj"),
    ("stage{s}/embedding_norm", "patch_embed{s}.norm"),
    *inside(
        "stage{s}/block{b}",
        "block{s}.{b}",
        (
            ("norm{i}", "norm{i}"),
            ("attention/query", "attn.q"),
            (("attention/key", "attention/value"), "attn.kv"),
            ("attention/output", "attn.proj"),
            ("attention/reduction_conv", "attn.sr"),
            ("attention/reduction_norm", "attn.norm"),
            ("expand", "mlp.fc1"),
            ("depthwise", "mlp.dwconv.dwconv"),
            ("contract", "mlp.fc2"),
        ),
    ),
    ("stage{s}/norm", "norm{s}"),
)

MIT_AUTHORS = KeyTable(
    _AUTHORS_STAGES,
    renames=((r"^backbone\.", ""),),
    unused=(r"head\.(weight|bias)",),
    stem="patch_embed1.proj.weight",
)

SEGFORMER_AUTHORS = KeyTable(
    (
        *inside("backbone", "backbone", _AUTHORS_STAGES),
        *((f"fusion/projection{s}", f"decode_head.linear_c{s + 1}.proj") for s in range(4)),
        ("fusion", "decode_head.linear_fuse.conv", POINTWISE),
        ("norm", "decode_head.linear_fuse.bn"),
        ("logits", "decode_head.linear_pred"),
    ),
    renames=((r"^(?=((patch_embed|block|norm)\d|head)\.)", "backbone."),),
    # Their head inherits a layer that it leaves out.
    unused=(r"backbone\.head\.(weight|bias)", r"decode_head\.conv_seg\.(weight|bias)"),
    stem="backbone.patch_embed1.proj.weight",
    heads=(r"decode_head\.linear_pred\..*",),
    backbone="backbone.",
)
