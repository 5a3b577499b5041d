"""Configs of language models as their own releases write them, read into a `DecoderConfig` and written back.

One table of kinds: InternLM2 (its code also runs the InternLM3 weights of InternVL3-9B), Llama, Qwen2 and 2.5, Qwen3,
Qwen3-MoE, Phi-3. The kind says which switches exist and what an absent field means: the default of the released config
*class*, which need not be that of the released models (InternLM2's ``bias`` is true, Qwen3's ``head_dim`` 128). The original
InternVL code picks the class by ``architectures``, so that field wins over ``model_type``. What the decoder here does not
compute (sliding windows, partial rotation, other activations) is refused by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vedere.errors import CheckpointError
from vedere.models.config_fields import MOST_LAYERS, Fields
from vedere.models.decoder import DecoderConfig
from vedere.models.keymaps import NAMINGS, Naming
from vedere.models.rope_scaling import Scaling


@dataclass(frozen=True, kw_only=True)
class LanguageKind:
    """What one ``model_type`` means.

    Attributes:
        architecture: Class in ``architectures``.
        naming: Names of its tensors.
        positions: Default of ``max_position_embeddings``.
        eps: Default of ``rms_norm_eps``.
        kv_heads: Default of ``num_key_value_heads``; None: as many as query heads, as a null in the file says for every kind.
        head_dim: Default of ``head_dim``; None: width / heads.
        free_heads: Whether ``head_dim`` is read. Qwen2's and Phi-3's classes have no such field, and honour one that is there.
        bias: Switch of the attention biases and its default; None: there is none.
        qkv_bias: Query, key and value always have biases, the output never.
        qk_norm: Norms of query and key heads.
        mixture: A mixture in place of the feed-forward map.
        scalings: Kinds of ``rope_scaling``.
    """

    architecture: str
    naming: Naming = "llama"
    positions: int = 32768
    eps: float = 1e-6
    kv_heads: int | None = None
    head_dim: int | None = None
    free_heads: bool = False
    bias: tuple[str, bool] | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    mixture: bool = False
    scalings: tuple[Scaling, ...] = ("none", "dynamic", "linear", "llama3", "yarn")


KINDS: Mapping[str, LanguageKind] = {
    "internlm2": LanguageKind(
        architecture="InternLM2ForCausalLM",
        naming="internlm2",
        positions=2048,
        bias=("bias", True),
        scalings=("none", "dynamic", "linear"),
    ),
    "llama": LanguageKind(
        architecture="LlamaForCausalLM", positions=2048, free_heads=True, bias=("attention_bias", False)
    ),
    "qwen2": LanguageKind(architecture="Qwen2ForCausalLM", kv_heads=32, free_heads=True, qkv_bias=True),
    "qwen3": LanguageKind(
        architecture="Qwen3ForCausalLM",
        kv_heads=32,
        head_dim=128,
        free_heads=True,
        bias=("attention_bias", False),
        qk_norm=True,
    ),
    "qwen3_moe": LanguageKind(
        architecture="Qwen3MoeForCausalLM",
        kv_heads=4,
        free_heads=True,
        bias=("attention_bias", False),
        qk_norm=True,
        mixture=True,
    ),
    "phi3": LanguageKind(
        architecture="Phi3ForCausalLM",
        naming="phi3",
        positions=4096,
        eps=1e-5,
        free_heads=True,
        scalings=("none", "dynamic", "linear", "longrope"),
    ),
}
_ROPE_NAMES: Mapping[str, Scaling] = {
    "default": "none",
    "dynamic": "dynamic",
    "linear": "linear",
    "llama3": "llama3",
    "longrope": "longrope",
    "su": "longrope",
    "yarn": "yarn",
    "v2pe": "none",  # what the V2PE code writes in place of a scaling (``rope_pos_id_version`` says what positions are)
}


def kind_of(llm: Fields) -> str:
    """Which of `KINDS` a config is.

    Raises:
        CheckpointError: none of them.
    """
    by_class = {kind.architecture: name for name, kind in KINDS.items()} | {"InternLM2VEForCausalLM": "internlm2"}
    classes = llm.texts("architectures")
    if classes:
        if classes[0] not in by_class:
            raise llm.fail("architectures", f"one of {', '.join(by_class)} (the language models that can be run here)")
        return by_class[classes[0]]
    kind: str = llm.only("model_type", [*KINDS, "internlm2ve"], "internlm2")
    return "internlm2" if kind == "internlm2ve" else kind


def head_name(kind: str) -> str:
    """Name of the head's tensor in a bare language model of that kind."""
    return f"{NAMINGS[KINDS[kind].naming].head}.weight"


def embed_name(kind: str) -> str:
    """Name of the embedding's tensor in a bare language model of that kind."""
    return f"{NAMINGS[KINDS[kind].naming].embed}.weight"


def read_language(llm: Fields, kind: str, names: Collection[str] = (), **ours: Any) -> DecoderConfig:
    """The decoder that a language model's config describes.

    Args:
        llm: Its fields.
        kind: One of `KINDS`.
        names: Names of the tensors without prefix, where known: a head beside an embedding is not tied, whatever the config
            says; of tied ones a file may hold either.
        **ours: Fields that no such config has: ``visual_ffn``, ``visual_attention``, ``v2pe``.

    Raises:
        CheckpointError: a field that is missing, unusable, or asks for what cannot be computed here.
        ConfigError: fields that do not fit together.
    """
    this = KINDS[kind]
    llm.only("hidden_act", ["silu", "swish"], "silu")  # two names of one function
    llm.only("use_sliding_window", [False, None], False)
    if set(llm.texts("layer_types")) - {"full_attention"}:
        raise llm.fail("layer_types", "only 'full_attention': no other attention, such as windows, is computed here")
    hidden, heads = llm.size("hidden_size"), llm.size("num_attention_heads")
    default = this.head_dim or max(1, hidden // heads)
    if hidden % heads and this.head_dim is None and llm.data.get("head_dim") is None:
        raise llm.fail("num_attention_heads", f"a divisor of hidden_size {hidden}")
    if not this.free_heads:
        llm.only("head_dim", [None, hidden / heads], None)
    bias = this.bias is not None and llm.flag(*this.bias)
    grouped = heads if "num_key_value_heads" in llm.data else this.kv_heads or heads
    limit = llm.size("max_position_embeddings", this.positions)
    window = llm.data.get("sliding_window")
    if kind == "phi3" and window is not None and not (isinstance(window, int) and window >= limit):
        raise llm.fail(
            "sliding_window", f"null or at least max_position_embeddings {limit}: windows are not computed here"
        )
    return DecoderConfig(
        hidden_size=hidden,
        ffn_size=llm.size("moe_intermediate_size" if this.mixture else "intermediate_size"),
        layers=llm.size("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        kv_heads=llm.size("num_key_value_heads", grouped),
        head_dim=llm.size("head_dim", default) if this.free_heads else default,
        vocab_size=llm.size("vocab_size"),
        norm_eps=llm.number("rms_norm_eps", this.eps, most=1.0),
        max_positions=limit,
        qkv_bias=this.qkv_bias or bias,
        out_bias=bias,
        ffn_bias=kind == "llama" and llm.flag("mlp_bias", False),
        qk_norm=this.qk_norm,
        tied_head=llm.flag("tie_word_embeddings", False) and not {head_name(kind), embed_name(kind)} <= set(names),
        **_rope(llm, this, limit),
        **(_mixture(llm) if this.mixture else {}),
        **ours,
    )


def _mixture(llm: Fields) -> dict[str, Any]:
    llm.only("decoder_sparse_step", [1], 1)
    llm.only("mlp_only_layers", [None, []], [])
    return {
        "moe_size": llm.size("num_local_experts" if "num_local_experts" in llm.data else "num_experts", 128, 4096),
        "moe_active": llm.size("num_experts_per_tok", 8),
        "moe_normed": llm.flag("norm_topk_prob", False),
    }


def _rope(llm: Fields, this: LanguageKind, limit: int) -> dict[str, Any]:
    """Rotary fields; newer hub configs keep them, with the base, in ``rope_parameters``."""
    moved, scaling = llm.inner("rope_parameters"), llm.inner("rope_scaling")
    for place in (llm, moved, scaling):
        place.only("partial_rotary_factor", [None, 1], None)
    rope = scaling if scaling.data else moved
    given = [place for place in (llm, moved, scaling) if "rope_theta" in place.data]
    bases = [place.number("rope_theta", 10_000) for place in given]
    if any(base != bases[0] for base in bases):
        raise given[-1].fail("rope_theta", f"{bases[0]:g}, as {given[0].name}.rope_theta says, or no second one")
    if bases and bases[0] <= 1:
        raise given[0].fail("rope_theta", "a number above 1")
    fields: dict[str, Any] = {"rope_theta": bases[0] if bases else 10_000.0}
    key = "type" if "type" in rope.data else "rope_type"
    allowed = [name for name, means in _ROPE_NAMES.items() if means in this.scalings]
    if this.naming != "internlm2":  # the only language model of that code
        allowed.remove("v2pe")
    kind = _ROPE_NAMES[rope.only(key, allowed, "default" if rope is moved else None)]
    if kind == "none":
        return fields
    fields |= {"rope_scaling": kind}
    if kind in ("dynamic", "linear", "llama3"):
        if "factor" not in rope.data:  # no class has a default
            raise rope.fail("factor", "a positive number")
        fields["rope_factor"] = rope.number("factor", 1.0)
        if fields["rope_factor"] < 1:
            raise rope.fail("factor", "at least 1: lengths are stretched, never shrunk")
    if kind in ("llama3", "longrope", "yarn"):
        original = rope if "original_max_position_embeddings" in rope.data else llm
        default = KINDS["phi3"].positions if kind == "longrope" else limit
        fields["rope_original_positions"] = original.size("original_max_position_embeddings", default)
    if kind == "llama3":
        fields["rope_low_frequency"] = rope.number("low_freq_factor", 1.0)
        fields["rope_high_frequency"] = rope.number("high_freq_factor", 4.0)
    if kind == "yarn":
        stretch = limit / fields["rope_original_positions"]
        fields["rope_factor"] = stretch if rope.data.get("factor") is None else rope.number("factor", 1.0)
        rope.only("truncate", [True, None], None)
        rope.only("mscale_all_dim", [None, 0], None)  # DeepSeek's; nothing of this line
        fields["rope_low_frequency"], fields["rope_high_frequency"] = (
            rope.number(name, value) if rope.data.get(name) is not None else value
            for name, value in (("beta_slow", 1.0), ("beta_fast", 32.0))
        )
    if kind == "longrope":
        fields["rope_short"], fields["rope_long"] = rope.numbers("short_factor"), rope.numbers("long_factor")
    if kind in ("longrope", "yarn") and rope.data.get("attention_factor") is not None:
        fields["rope_attention"] = rope.number("attention_factor", 1.0)
    return fields


def write_language(config: DecoderConfig, given: Mapping[str, Any], *, only: str | None = None) -> dict[str, Any]:
    """The config of a language model in the form of its own release.

    Args:
        config: Shape.
        given: The config that it was read from, where there is one: it is kept word for word as far as it still holds.
        only: The kind that it must be; None: that of ``given``, or one that has a place for everything in ``config``.

    Raises:
        CheckpointError: no kind has.
    """
    plain = DecoderConfig(
        **(vars(config) | {"visual_ffn": False, "visual_attention": False, "v2pe": False, "partial_rank": 0})
    )
    known = Fields(given, "the config given", "")
    found = None
    if given:
        with contextlib.suppress(CheckpointError):  # of a family that is none of ours, or incomplete: replaced
            found = kind_of(known)
            if read_language(known, found) == plain and only in (None, found):
                return dict(given)
    tried = [only] if only else [*([found] if found else []), *KINDS]
    kind = next((name for name in tried if not _misfit(plain, name)), None)
    if kind is None:
        reasons = "; ".join(f"{name}: {_misfit(plain, name)}" for name in dict.fromkeys(tried))
        raise CheckpointError(
            f'the original layout has no place for this model ({reasons}); save it with layout="vedere"'
        )
    return dict(given) | _fields(plain, kind)


def _misfit(c: DecoderConfig, kind: str) -> str:
    """What of the model has no place in a config of that kind; empty if all has."""
    this = KINDS[kind]
    wrong = []
    if this.qkv_bias and (not c.qkv_bias or c.out_bias):
        wrong.append(f"biases on query, key, value only, not qkv_bias {c.qkv_bias}, out_bias {c.out_bias}")
    elif not this.qkv_bias and c.qkv_bias != c.out_bias:
        wrong.append(f"one switch for attention biases, not qkv_bias {c.qkv_bias}, out_bias {c.out_bias}")
    elif c.out_bias and this.bias is None:
        wrong.append("no attention biases")
    if c.ffn_bias and kind != "llama":
        wrong.append(f"no FFN biases, not ffn_bias {c.ffn_bias}")
    if c.heads * c.head_dim != c.hidden_size and not this.free_heads:
        wrong.append(f"heads as wide as the model, not {c.heads} heads of {c.head_dim} for width {c.hidden_size}")
    if c.qk_norm != this.qk_norm:
        wrong.append(f"qk_norm {this.qk_norm}, not {c.qk_norm}")
    if bool(c.moe_size) != this.mixture:
        wrong.append("a mixture" if this.mixture else "no mixture")
    if c.rope_scaling not in this.scalings:
        wrong.append(f"rope scaling {', '.join(this.scalings)}, not {c.rope_scaling}")
    return ", ".join(wrong)


def _fields(c: DecoderConfig, kind: str) -> dict[str, Any]:
    this = KINDS[kind]
    fields: dict[str, Any] = {
        "architectures": [this.architecture],
        "model_type": kind,
        "hidden_size": c.hidden_size,
        "moe_intermediate_size" if this.mixture else "intermediate_size": c.ffn_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "vocab_size": c.vocab_size,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": _scaling_fields(c),
        "max_position_embeddings": c.max_positions,
        "hidden_act": "silu",
        "tie_word_embeddings": c.tied_head,
    }
    if this.free_heads and (kind not in ("qwen2", "phi3") or c.heads * c.head_dim != c.hidden_size):
        fields["head_dim"] = c.head_dim
    if this.bias:
        fields[this.bias[0]] = c.qkv_bias
    if kind == "llama":
        fields["mlp_bias"] = c.ffn_bias
    if kind in ("qwen2", "qwen3", "qwen3_moe"):
        fields["use_sliding_window"] = False
    if kind == "phi3":
        fields |= {
            "sliding_window": None,
            "original_max_position_embeddings": c.rope_original_positions or c.max_positions,
        }
    if this.mixture:
        fields |= {
            "num_experts": c.moe_size,
            "num_experts_per_tok": c.moe_active,
            "norm_topk_prob": c.moe_normed,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return fields


def _scaling_fields(c: DecoderConfig) -> dict[str, Any] | None:
    if c.rope_scaling == "none":
        return None
    fields: dict[str, Any] = {"type": c.rope_scaling, "rope_type": c.rope_scaling}
    if c.rope_scaling in ("dynamic", "linear"):
        return {"type": c.rope_scaling, "factor": c.rope_factor}
    if c.rope_scaling == "llama3":
        return fields | {
            "factor": c.rope_factor,
            "low_freq_factor": c.rope_low_frequency,
            "high_freq_factor": c.rope_high_frequency,
            "original_max_position_embeddings": c.rope_original_positions,
        }
    if c.rope_scaling == "yarn":
        fields |= {"factor": c.rope_factor, "original_max_position_embeddings": c.rope_original_positions}
        fields |= {"beta_slow": c.rope_low_frequency, "beta_fast": c.rope_high_frequency}
    else:
        fields |= {"short_factor": list(c.rope_short), "long_factor": list(c.rope_long)}
    return fields if c.rope_attention is None else fields | {"attention_factor": c.rope_attention}
