"""What is wrong with the tensors of a checkpoint, and why it probably is.

`check_shapes` compares the tensors found with those expected and refuses any difference, with the layers folded together.
The difference alone rarely helps: a Qwen3 folder with the config of a Qwen2 is "48 missing, 48 surplus". So the names are
looked through for what usually lies behind such a difference (`likely_cause`): another family of language model, another
layout of the same model, a head that is or is not tied, adapters that were never merged, layers that the config counts
differently. Why shapes differ is `vedere.models.shape_causes`. There is always a cause, if only the least one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vedere.config import nearest
from vedere.errors import CheckpointError
from vedere.models.shape_causes import Shape, cause_of_shapes

_SHOWN = 8  # groups of names in a message; a layer's tensors count once
_NUMBER = re.compile(r"\.(\d+)\.")

# Where surplus names hold the pattern: what the files are. In order of how sure that is.
_FOREIGN = (
    (
        r"\.lora_[AB]\.|base_model\.model\.",
        "the files hold LoRA adapters (lora_A, lora_B) that were not merged; merge first",
    ),
    (r"\.(scales|qweight|qzeros|weight_scale(_inv)?|absmax)$", "the files are quantised; take the bfloat16 release"),
    (
        r"(^|\.)(vision_tower|multi_modal_projector)\.",
        "the names are those of the native layout (model_type 'internvl')",
    ),
    (
        r"^(vision_model|mlp1|language_model)\.",
        "the names are those of the original layout (model_type 'internvl_chat')",
    ),
    (r"\.feed_forward_ve\.", "looks like Mono-InternVL: feed_forward_ve present"),
    (r"\.mlp\.experts\.\d+\.|\.mlp\.gate\.weight$", "looks like Qwen3-MoE: mlp.experts present"),
    (r"\.self_attn\.[qk]_norm\.", "looks like Qwen3: q_norm present"),
    (r"\.attn\.[qk]_norm\.", "looks like InternViT-6B: q_norm in the tower (vision_config.qk_normalization)"),
    (r"\.self_attn\.qkv_proj\.|\.mlp\.gate_up_proj\.", "looks like Phi-3: fused qkv_proj and gate_up_proj present"),
    (r"\.attention\.wqkv\.|(^|\.)tok_embeddings\.", "looks like InternLM2: fused wqkv present"),
    (r"\.self_attn\.o_proj\.bias$", "o_proj has a bias (attention_bias of Llama or Qwen3)"),
    (r"\.(wqkv|wo)\.bias$", "the files have InternLM2 biases, config.json says there are none (bias)"),
    (r"\.mlp\.(gate|up|down)_proj\.bias$", "the feed-forward maps have biases (mlp_bias of Llama)"),
    (r"\.self_attn\.[qkv]_proj\.bias$", "looks like Qwen2: biases on q_proj, k_proj, v_proj present"),
    (r"\.self_attn\.[qkvo]_proj\.weight$", "looks like Llama or Qwen: q_proj, k_proj, v_proj present"),
    (r"\.attn\.qkv\.bias$", "looks like InternViT-300M: qkv biases in the tower (vision_config.qkv_bias)"),
    (
        r"^(model\.)?vision_tower\..*\.[qk]_norm\.",
        "looks like InternViT-6B: q_norm in the tower (vision_config.use_qk_norm)",
    ),
    (
        r"^(model\.)?vision_tower\..*\.[qkv]_proj\.bias$",
        "the tower has biases on q, k, v (vision_config.attention_bias)",
    ),
    (r"^(model\.)?vision_tower\.layernorm\.", "the tower has a last norm (vision_config.use_mean_pooling is false)"),
    (
        r"\.(norm[12]|layernorm_(before|after))\.bias$",
        "the tower has LayerNorm biases (vision_config.norm_type is 'layer_norm')",
    ),
    (r"(^|\.)v_head\.|(^|\.)score\.", "looks like a reward model: its head gives scores, not tokens"),
)
# Where expected names of that pattern are missing.
_ABSENT = (
    (r"\.mlp\.experts\.", "config.json describes a mixture of experts, the files do not"),
    (r"\.self_attn\.[qk]_norm\.", "config.json describes a Qwen3 (q_norm), the files have none: Qwen2 or Llama?"),
    (
        r"\.attn\.[qk]_norm\.",
        "config.json describes an InternViT-6B (vision_config.qk_normalization), the files do not",
    ),
    (
        r"\.self_attn\.o_proj\.bias$",
        "config.json gives o_proj a bias (attention_bias of Llama or Qwen3), the files have none",
    ),
    (r"\.self_attn\.[qkv]_proj\.bias$", "config.json describes a Qwen2 (biases on q_proj), the files have none"),
    (r"\.(wqkv|wo)\.bias$", "config.json gives InternLM2 biases (bias: true, also its default), the files have none"),
    (r"\.attn\.qkv\.bias$", "config.json gives the tower qkv biases (vision_config.qkv_bias), the files have none"),
    (
        r"\.(norm[12]|layernorm_(before|after))\.bias$",
        "config.json gives the tower LayerNorms (vision_config.norm_type), the files have RMSNorms",
    ),
    (
        r"^(model\.)?vision_tower\..*\.[qk]_norm\.",
        "config.json gives the tower norms of q and k (vision_config.use_qk_norm), the files have none",
    ),
    (
        r"^(model\.)?vision_tower\..*\.[qkv]_proj\.bias$",
        "config.json gives the tower biases on q, k, v (vision_config.attention_bias), the files have none",
    ),
    (
        r"^(model\.)?vision_tower\.layernorm\.",
        "config.json gives the tower a last norm (vision_config.use_mean_pooling is false), the files have none",
    ),
    (
        r"\.mlp\.(gate|up|down)_proj\.bias$",
        "config.json gives the feed-forward maps biases (mlp_bias), the files have none",
    ),
)
_HEAD = re.compile(r"(^|\.)(lm_head|output|head)\.weight$")


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], where: str, family: str) -> None:
    """Refuses any difference between the tensors found and the tensors expected.

    Raises:
        CheckpointError: lists missing, surplus and misshapen tensors, layers folded together, and the likely cause.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and tuple(found[name]) != tuple(expected[name])]
    if not (missing or surplus or wrong):
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {_shorten(missing)}{_shape_of(missing, expected, 'expected')}")
    if surplus:
        close = nearest(surplus[0], missing) if len(surplus) == 1 else ""
        parts.append(f"{len(surplus)} surplus: {_shorten(surplus)}{_shape_of(surplus, found, 'found')}{close}")
    if wrong:
        shapes = ", ".join(f"{n} is {list(found[n])}, expected {list(expected[n])}" for n in wrong[:_SHOWN])
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        parts.append(f"{len(wrong)} misshapen: {shapes}{more}")
    cause = likely_cause(found, expected)
    parts[-1] += "" if parts[-1].endswith("?") else "."
    raise CheckpointError(
        f"{where} is not a complete '{family}' checkpoint of this config ({len(expected)} tensors expected, {len(found)} "
        f"found); {'; '.join(parts)} {f'Likely cause: {cause}. ' if cause else ''}Check that config.json and weights belong "
        "together, or download the files again"
    )


def likely_cause(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> str:
    """What probably lies behind a difference of tensors; empty where nothing is known."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if any(0 in shape for shape in found.values()):
        return "empty tensors: the files were written by a run that shards weights and did not gather them"
    for pattern, cause in _FOREIGN:
        if _any(pattern, surplus) and not _any(pattern, expected):
            return cause
    if missing and all(_HEAD.search(name) for name in missing) and not surplus:
        return f"the head is tied to the embedding (tie_word_embeddings), so {missing[0]} was not written"
    if surplus and all(_HEAD.search(name) for name in surplus) and not missing:
        return (
            f"config.json ties the head to the embedding (tie_word_embeddings), but {surplus[0]} is a tensor of its own"
        )
    renamed = _renamed(missing, surplus, found, expected)
    if renamed:
        return renamed
    for pattern, cause in _ABSENT:
        if _any(pattern, missing) and not _any(pattern, found):
            return cause
    counted = _layers(missing, surplus, [name for name in expected if name in found])
    return counted or cause_of_shapes(found, expected) or _leftover(missing, surplus)


def _leftover(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """What no other rule explains."""
    if missing and surplus:
        return "the files are of another model, or carry the names of another program"
    if missing:
        which = f"'{missing[0]}' alone was" if len(missing) == 1 else f"{len(missing)} tensors were"
        return f"{which} left out when the files were written, or a shard is incomplete"
    if surplus:
        return "the files hold more than this model: left over from another checkpoint, or a part that config.json leaves out"
    return ""


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)


def _renamed(
    missing: Sequence[str], surplus: Sequence[str], found: Mapping[str, Shape], expected: Mapping[str, Shape]
) -> str:
    """A prefix on every name, or one tensor under another name."""
    if not missing or not surplus:
        return ""
    known = set(missing)
    for name in surplus[:1]:
        for other in missing:
            if name != other and name.endswith("." + other):
                prefix = name.removesuffix(other)
                if all(s.removeprefix(prefix) in known for s in surplus):
                    return f"every name carries the prefix '{prefix}'"
            if name != other and other.endswith("." + name):
                prefix = other.removesuffix(name)
                if all(prefix + s in known for s in surplus):
                    return f"the names lack the prefix '{prefix}'"
    alike = [name for name in missing if tuple(expected[name]) == tuple(found[surplus[0]])]
    if len(surplus) == 1 and len(missing) == 1 and alike:
        return f"'{surplus[0]}' has the shape of '{missing[0]}': renamed"
    return ""


def _layers(missing: Sequence[str], surplus: Sequence[str], both: Sequence[str]) -> str:
    """The config counts other layers than the files hold."""
    places = [(name[: match.start()], int(match[1])) for name in both if (match := _NUMBER.search(name))]
    for names, held in ((missing, "fewer"), (surplus, "more")):
        numbers = sorted({int(match[1]) for name in names if (match := _NUMBER.search(name))})
        matches = [match for name in names if (match := _NUMBER.search(name))]
        stack = names[0][: matches[0].start()] if matches else ""
        last = max((number for begin, number in places if begin == stack), default=-1)
        if len(names) > 1 and len(matches) == len(names) and numbers[0] == last + 1:
            return (
                f"the files hold {held} layers than config.json counts (num_hidden_layers; from layer {numbers[0]} on)"
            )
    return ""


def _shape_of(names: Sequence[str], shapes: Mapping[str, Shape], word: str) -> str:
    """The shape, where it is one tensor only."""
    return f" ({word} {list(shapes[names[0]])})" if len(names) == 1 else ""


def _shorten(names: Sequence[str]) -> str:
    """``a.0.w, a.1.w, a.2.w, b`` becomes ``a.{0-2}.w (3), b``; long lists end with a count, second numbers become stars."""
    groups: dict[str, list[str]] = {}
    for name in names:
        begin, _, rest = _NUMBER.sub(".{}.", name, count=1).partition("{}")
        groups.setdefault(f"{begin}{{}}{_NUMBER.sub('.*.', rest)}" if rest else begin, []).append(name)
    shown = []
    for pattern, members in list(groups.items())[:_SHOWN]:
        numbers = sorted({int(found[1]) for member in members if (found := _NUMBER.search(member))})
        if len(members) == 1:
            shown.append(members[0])
        elif numbers == list(range(numbers[0], numbers[-1] + 1)):
            shown.append(pattern.replace("{}", f"{{{numbers[0]}-{numbers[-1]}}}") + f" ({len(members)})")
        else:
            listed = ",".join(map(str, numbers[:6])) + (",..." if len(numbers) > 6 else "")
            shown.append(pattern.replace("{}", f"{{{listed}}}") + f" ({len(members)})")
    left = len(groups) - len(shown)
    return ", ".join(shown) + (f", and {left} more kinds" if left > 0 else "")
