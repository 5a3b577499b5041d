"""Why the tensors of a checkpoint have other shapes than its config says.

Every axis of a published tensor follows from fields of config.json (`_AXES`). A field that is wrong shows on every tensor
that it measures, damage on a single one. So a field is blamed only where all of its tensors differ in the same way; what is
left is described by itself: transposed, flattened, cut off along an axis, an axis of length one too many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

Shape = tuple[int, ...]

_HEADS = "other heads than config.json says (num_attention_heads, num_key_value_heads, head_dim)"
_DEEP = r"(vision_model|vision_tower|^vision)\."  # the tower's own, in any layout
# Name -> the field that each axis is measured by, None where an axis has no field of its own; the first that fits counts.
_AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(embed_tokens|tok_embeddings|token_embd|lm_head|output|decoder\.embed|decoder\.head)\.weight$", ("V", "D")),
    (r"^vision\.positions$", ("P", "C")),
    (r"^vision\.cls$", ("C",)),
    (_DEEP + r".*position_embeddings?$", (None, "P", "C")),
    (_DEEP + r".*(class_embedding|cls_token)$", (None, None, "C")),
    (_DEEP + r".*(patch_embedding|projection|\bpatch)\.weight$", ("C", None, "S", "S")),
    (_DEEP + r".*(fc1)\.(weight|bias)$", ("G", "C")),
    (_DEEP + r".*(fc2)\.weight$", ("C", "G")),
    (_DEEP + r".*(qkv)\.(weight|bias)$", ("C", "C")),
    (_DEEP + r".", ("C", "C")),
    (r"^(model\.)?(mlp1\.0|multi_modal_projector\.layer_norm|projector\.norm)\.", ("U",)),
    (r"^(model\.)?(mlp1\.1|multi_modal_projector\.linear_1|projector\.fc1)\.", ("D", "U")),
    (r"^(model\.)?(mlp1\.3|multi_modal_projector\.linear_2|projector\.fc2)\.", ("D", "D")),
    (r"(self_attn|attention\.(text|visual))\.[qk]_norm\.", ("H",)),
    (r"\.q_proj\.", ("Q", "D")),
    (r"\.[kv]_proj\.", ("K", "D")),
    (r"\.(wqkv|wqkv_ve|qkv_proj|qkv)\.", ("W", "D")),
    (r"\.(wo|wo_ve|o_proj|out)\.", ("D", "Q")),
    (r"\.(mlp\.gate|router)\.weight$", ("E", "D")),
    (r"\.experts\.gate_up_proj$|\.ffn\.text\.gate_up$", ("E", "M", "D")),
    (r"\.experts\.down_proj$|\.ffn\.text\.down$", ("E", "D", "M")),
    (r"\.experts\.\d+\.(gate|up)_proj\.", ("M", "D")),
    (r"\.experts\.\d+\.down_proj\.", ("D", "M")),
    (r"\.(gate_proj|up_proj|gate_up_proj|gate_up|w1|w3)\.", ("F", "D")),
    (r"\.(down_proj|down|w2)\.", ("D", "F")),
    (r"(norm|layernorm)\.weight$", ("D",)),
)
# Letter -> what differs. In order: a width shows on more tensors than whatever is measured beside it.
_FIELDS = {
    "D": "the language model has another width than config.json says (hidden_size)",
    "C": "the tower has another width than config.json says (vision_config.hidden_size)",
    "V": "the vocabulary has {given} rows, config.json says {expected} (vocab_size)",
    "F": "the feed-forward maps have another width than config.json says (intermediate_size)",
    "M": "the experts have another width than config.json says (moe_intermediate_size)",
    "G": "the tower's MLPs have another width than config.json says (vision_config.intermediate_size)",
    "E": "the mixture has {given} experts, config.json says {expected} (num_experts)",
    **dict.fromkeys("QKWH", _HEADS),
    "P": "the position table is made for tiles of another size (vision_config.image_size or patch_size)",
    "S": "the patches have another size than config.json says (vision_config.patch_size)",
    "U": "other patches are joined into a token than config.json says (downsample_ratio, vision_config.hidden_size)",
}


def cause_of_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> str:
    """What probably lies behind misshapen tensors; empty without any.

    Args:
        found: Shapes in the files.
        expected: Shapes that the config makes.
    """
    wrong = {name for name, shape in expected.items() if tuple(found.get(name, shape)) != tuple(shape)}
    if not wrong:
        return ""
    first = next(name for name in expected if name in wrong)
    rearranged = math.prod(found[first]) == math.prod(expected[first])
    for letter, words in _FIELDS.items() if len(wrong) > 1 or not rearranged else ():
        measured = [
            (name, axis) for name in expected if name in found for axis, of in enumerate(_axes(name)) if of == letter
        ]
        sizes = {_pair(found[name], expected[name], axis) for name, axis in measured if axis < len(expected[name])}
        if sizes and None not in sizes and all(given != wanted for given, wanted in sizes):  # type: ignore[misc]
            given, wanted = min(sizes)  # type: ignore[type-var, misc]
            return words.format(given=given, expected=wanted)
    return _damage(first, tuple(found[first]), tuple(expected[first])) + (
        f" ({len(wrong)} tensors are misshapen)" if len(wrong) > 1 else ", and no other is: damaged when it was written"
    )


def _axes(name: str) -> tuple[str | None, ...]:
    return next((axes for pattern, axes in _AXES if re.search(pattern, name)), ())


def _pair(found: Shape, expected: Shape, axis: int) -> tuple[int, int] | None:
    """(given, expected) length of an axis; None where the shapes cannot be compared axis by axis."""
    return (found[axis], expected[axis]) if len(found) == len(expected) else None


def _damage(name: str, given: Shape, expected: Shape) -> str:
    """What happened to one tensor."""
    if [n for n in given if n != 1] == [n for n in expected if n != 1]:
        return f"'{name}' has axes of length one that do not belong there, or lacks them"
    if len(given) == len(expected) and sorted(given) == sorted(expected):
        return f"'{name}' is transposed"
    if math.prod(given) == math.prod(expected):
        return f"'{name}' holds as many numbers as it should, in another form: flattened, or packed by another program"
    other = [axis for axis, pair in enumerate(zip(given, expected, strict=False)) if pair[0] != pair[1]]
    if len(given) == len(expected) and len(other) == 1:
        axis = other[0]
        if given[axis] < expected[axis]:
            return f"'{name}' is cut off along axis {axis} ({given[axis]} of {expected[axis]}): truncated, or one shard of it"
        return f"'{name}' is too long along axis {axis} ({given[axis]} for {expected[axis]}): padded, or joined twice"
    return f"'{name}' is of another model or not a whole tensor"
