"""Names of tensors in published files, family by family, and the maps to vedere's names made of them.

* `mono_internvl`: Mono-InternVL (arXiv 2410.08202), names of its released `InternVLChatModel` with InternLM2VE. The
  visual attention experts of Mono-InternVL-1.5 (2507.12566) were never released; `attention.wqkv_ve` and `attention.wo_ve`
  are this project's own choice of names, and `INTERNLM2` is the only place that knows them.
* `internvl`: InternViT + projector + language model (InternVL 1.5 to 3.5, V2PE 2412.09616). The language model keeps the
  names of its own release behind the prefix `language_model.`: InternLM2 (also the InternLM3 weights of InternVL3-9B), Llama
  and Qwen (`LLAMA`, with Qwen3's head norms and Qwen3-MoE's mixture where the config has them), or Phi-3.
* `internlm2`, `llama`, `phi3`: the same language models alone; and `gguf`, llama.cpp's form, which interleaves the two
  rotary halves of every query and key head.

`OWN` are vedere's own names in the same form, so that shapes of models which no released file could hold are known as well.

How rows are arranged, and the inverse of it, is `vedere.models.key_rules`.

Axes: V vocabulary, D width, A = heads x head size, K = key/value heads x head size, F width of the FFN, C width of the
vision tower, S its patch side, P patches of a tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vedere.errors import CheckpointError
from vedere.models.key_rules import Grouped, KeyMap, Layout, PairedHalves, Rule, Same, Stacked
from vedere.models.shape_causes import Shape
from vedere.models.stem import stem_channels, stem_shapes

if TYPE_CHECKING:
    from vedere.models.decoder import DecoderConfig
    from vedere.models.internvl import InternVLConfig
    from vedere.models.mono_internvl import MonoInternVLConfig

Naming = Literal["internlm2", "llama", "phi3"]


@dataclass(frozen=True, kw_only=True)
class ExpertNames:
    """Names inside a layer of one set of projections.

    ``qkv`` has one name when fused, three when separate; ``gate_up`` one or two. ``qk_norm`` are the norms of Qwen3's heads.
    ``router`` and ``member`` (with the place of a number) belong to a mixture, whose members name ``gate_up`` and ``down`` by
    their last parts.
    """

    qkv: tuple[str, ...]
    out: str
    gate_up: tuple[str, ...]
    down: str
    qk_norm: tuple[str, str] | None = None
    router: str = ""
    member: str = ""


@dataclass(frozen=True, kw_only=True)
class LanguageNames:
    """Names of a language model's tensors, without ``.weight``; ``layer`` holds the place of the layer number.

    ``grouped`` and ``paired_halves`` say how the rows of query, key and value stand (`Grouped`, `PairedHalves`); else one
    after the other. ``partial`` are the two leaves of a map's partial LoRA.
    """

    family: str

    embed: str
    norm: str
    head: str
    layer: str
    attention_norm: str
    ffn_norm: str
    text: ExpertNames
    visual: ExpertNames | None = None
    grouped: bool = False
    paired_halves: bool = False
    partial: tuple[str, str] | None = None


def _own_names(kind: str) -> ExpertNames:
    return ExpertNames(
        qkv=(f"attention.{kind}.qkv",),
        out=f"attention.{kind}.out",
        gate_up=(f"ffn.{kind}.gate_up",),
        down=f"ffn.{kind}.down",
        qk_norm=(f"attention.{kind}.q_norm", f"attention.{kind}.k_norm"),
        router=f"ffn.{kind}.router",
        member=f"ffn.{kind}.{{}}.",
    )


INTERNLM2 = LanguageNames(
    family="internlm2",
    embed="model.tok_embeddings",
    norm="model.norm",
    head="output",
    layer="model.layers.{}.",
    attention_norm="attention_norm",
    ffn_norm="ffn_norm",
    text=ExpertNames(
        qkv=("attention.wqkv",),
        out="attention.wo",
        gate_up=("feed_forward.w1", "feed_forward.w3"),
        down="feed_forward.w2",
    ),
    visual=ExpertNames(
        qkv=("attention.wqkv_ve",),  # ours: the released code of Mono-InternVL-1.5 has no visual attention experts
        out="attention.wo_ve",
        gate_up=("feed_forward_ve.w1", "feed_forward_ve.w3"),
        down="feed_forward_ve.w2",
    ),
    grouped=True,
    partial=("Plora_A.weight", "Plora_B.weight"),
)
LLAMA = LanguageNames(
    family="llama",
    embed="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    layer="model.layers.{}.",
    attention_norm="input_layernorm",
    ffn_norm="post_attention_layernorm",
    text=ExpertNames(
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out="self_attn.o_proj",
        gate_up=("mlp.gate_proj", "mlp.up_proj"),
        down="mlp.down_proj",
        qk_norm=("self_attn.q_norm", "self_attn.k_norm"),
        router="mlp.gate",
        member="mlp.experts.{}.",
    ),
)
PHI3 = LanguageNames(
    family="phi3",
    embed="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    layer="model.layers.{}.",
    attention_norm="input_layernorm",
    ffn_norm="post_attention_layernorm",
    text=ExpertNames(
        qkv=("self_attn.qkv_proj",), out="self_attn.o_proj", gate_up=("mlp.gate_up_proj",), down="mlp.down_proj"
    ),
)
GGUF = LanguageNames(
    family="gguf",
    embed="token_embd",
    norm="output_norm",
    head="output",
    layer="blk.{}.",
    attention_norm="attn_norm",
    ffn_norm="ffn_norm",
    text=ExpertNames(
        qkv=("attn_q", "attn_k", "attn_v"), out="attn_output", gate_up=("ffn_gate", "ffn_up"), down="ffn_down"
    ),
    paired_halves=True,
)
OWN = LanguageNames(
    family="decoder",
    embed="decoder.embed",
    norm="decoder.norm",
    head="decoder.head",
    layer="decoder.layers.{}.",
    attention_norm="attention_norm",
    ffn_norm="ffn_norm",
    text=_own_names("text"),
    visual=_own_names("visual"),
    partial=("lora_A", "lora_B"),
)
NAMINGS: Mapping[Naming, LanguageNames] = {"internlm2": INTERNLM2, "llama": LLAMA, "phi3": PHI3}


def same_rule(own: str, foreign: str, shape: Shape, foreign_shape: Shape | None = None) -> Rule:
    """One tensor as it is, with other axes of length one in the file where ``foreign_shape`` says so."""
    return Rule(own, shape, (foreign,), (foreign_shape or shape,), Same())


def linear_rules(own: str, foreign: str, rows: int, columns: int, bias: bool) -> list[Rule]:
    """Weight and, where it has one, bias of a linear map."""
    rules = [same_rule(f"{own}.weight", f"{foreign}.weight", (rows, columns))]
    return [*rules, same_rule(f"{own}.bias", f"{foreign}.bias", (rows,))] if bias else rules


def _joined(
    own: str, foreign: Sequence[str], rows: Sequence[int], columns: int, bias: bool, layout: Layout
) -> list[Rule]:
    def rule(leaf: str, tail: Shape) -> Rule:
        shapes = tuple((n, *tail) for n in rows)
        return Rule(f"{own}.{leaf}", (sum(rows), *tail), tuple(f"{name}.{leaf}" for name in foreign), shapes, layout)

    return [rule("weight", (columns,))] + ([rule("bias", ())] if bias else [])


def _attention(own: str, prefix: str, names: ExpertNames, family: LanguageNames, config: DecoderConfig) -> list[Rule]:
    c, query, key = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
    foreign = [prefix + name for name in names.qkv]
    layout: Layout = Stacked() if len(foreign) > 1 else Same()
    if family.grouped:
        layout = Grouped(c.heads, c.kv_heads, c.head_dim)
    elif family.paired_halves:
        layout = PairedHalves(c.heads, c.kv_heads)
    rows = [query + 2 * key] if len(foreign) == 1 else [query, key, key]
    rules = [
        *_joined(f"{own}.qkv", foreign, rows, c.hidden_size, c.qkv_bias, layout),
        *linear_rules(f"{own}.out", prefix + names.out, c.hidden_size, query, c.out_bias),
    ]
    if c.qk_norm:
        if names.qk_norm is None:
            raise _nameless(family, "norms of query and key heads (Qwen3)")
        for norm, name in zip(("q_norm", "k_norm"), names.qk_norm, strict=True):
            rules.append(same_rule(f"{own}.{norm}.weight", f"{prefix}{name}.weight", (c.head_dim,)))
    return rules


def _ffn(own: str, prefix: str, names: ExpertNames, config: DecoderConfig) -> list[Rule]:
    c = config
    gate_up = [prefix + name for name in names.gate_up]
    rows = [2 * c.ffn_size // len(gate_up)] * len(gate_up)
    return [
        *_joined(f"{own}.gate_up", gate_up, rows, c.hidden_size, c.ffn_bias, Stacked() if len(rows) > 1 else Same()),
        *linear_rules(f"{own}.down", prefix + names.down, c.hidden_size, c.ffn_size, c.ffn_bias),
    ]


def _mixture(own: str, prefix: str, names: ExpertNames, family: LanguageNames, config: DecoderConfig) -> list[Rule]:
    """Router and members; each member's matrices are tensors of their own in the file, and slices of one here."""
    if not names.member:
        raise _nameless(family, "a mixture of feed-forward experts (Qwen3-MoE)")
    c, members = config, range(config.moe_size)

    def of(member: int, name: str) -> str:
        return f"{prefix}{names.member.format(member)}{name.rpartition('.')[2]}.weight"

    def stacked(leaf: str, foreign: tuple[str, ...], shape: Shape, part: Shape) -> Rule:
        return Rule(f"{own}.{leaf}", (c.moe_size, *shape), foreign, (part,) * len(foreign), Stacked())

    gate_up = tuple(of(member, name) for member in members for name in names.gate_up)
    down = tuple(of(member, names.down) for member in members)
    return [
        same_rule(f"{own}.router.weight", f"{prefix}{names.router}.weight", (c.moe_size, c.hidden_size)),
        stacked("gate_up", gate_up, (2 * c.ffn_size, c.hidden_size), (c.ffn_size, c.hidden_size)),
        stacked("down", down, (c.hidden_size, c.ffn_size), (c.hidden_size, c.ffn_size)),
    ]


def _partial(own: str, prefix: str, family: LanguageNames, config: DecoderConfig) -> list[Rule]:
    """Partial LoRA of a layer's four maps; what the file keeps apart has factors of its own (`vedere.models.low_rank`)."""
    if family.partial is None:
        raise _nameless(family, "partial LoRA")
    c, names, (down, up) = config, family.text, family.partial
    query, key = c.heads * c.head_dim, c.kv_heads * c.head_dim
    grouped = Grouped(c.heads, c.kv_heads, c.head_dim) if family.grouped else Same()
    rules = []
    for brick, leaf, foreign, parts, outputs, inputs, layout in (
        ("attention", "qkv", names.qkv, 1, query + 2 * key, c.hidden_size, grouped),
        ("attention", "out", (names.out,), 1, c.hidden_size, query, Same()),
        ("ffn", "gate_up", names.gate_up, 2, 2 * c.ffn_size, c.hidden_size, Stacked()),
        ("ffn", "down", (names.down,), 1, c.hidden_size, c.ffn_size, Same()),
    ):
        name = f"{own}.{brick}.partial.{leaf}"
        if family is OWN:
            foreign, parts_in_file = (f"{brick}.partial.{leaf}",), 1
        else:
            parts_in_file = len(foreign)
            assert parts_in_file == parts  # only InternLM2's names have partial LoRA
        a = (parts * c.partial_rank // parts_in_file, inputs)
        b = (outputs // parts_in_file, c.partial_rank)
        rules += [
            Rule(
                f"{name}.lora_A",
                (parts * c.partial_rank, inputs),
                tuple(f"{prefix}{n}.{down}" for n in foreign),
                (a,) * parts_in_file,
                Stacked(),
            ),
            Rule(
                f"{name}.lora_B",
                (outputs, c.partial_rank),
                tuple(f"{prefix}{n}.{up}" for n in foreign),
                (b,) * parts_in_file,
                Stacked() if family is OWN else layout,
            ),
        ]
    return rules


def _nameless(family: LanguageNames, what: str) -> CheckpointError:
    return CheckpointError(
        f"files with the names of '{family.family}' have no place for {what}; save the model in vedere's own layout "
        '(layout="vedere")'
    )


def language_rules(config: DecoderConfig, names: LanguageNames, prefix: str = "") -> list[Rule]:
    """The rules of a decoder-only language model, visual experts included where the config has them.

    Args:
        config: Shape.
        names: Names in the file.
        prefix: What stands before every name where the language model is a part of something.

    Raises:
        CheckpointError: the config has visual experts and the family has no names for them.
    """
    c = config
    if (c.visual_ffn or c.visual_attention) and names.visual is None:
        raise _nameless(names, "visual experts")
    rules = [
        same_rule("decoder.embed.weight", f"{prefix}{names.embed}.weight", (c.vocab_size, c.hidden_size)),
        same_rule("decoder.norm.weight", f"{prefix}{names.norm}.weight", (c.hidden_size,)),
    ]
    if not c.tied_head:
        rules.append(same_rule("decoder.head.weight", f"{prefix}{names.head}.weight", (c.vocab_size, c.hidden_size)))
    for number in range(c.layers):
        own, layer = f"decoder.layers.{number}", prefix + names.layer.format(number)
        for norm, foreign in (("attention_norm", names.attention_norm), ("ffn_norm", names.ffn_norm)):
            rules.append(same_rule(f"{own}.{norm}.weight", f"{layer}{foreign}.weight", (c.hidden_size,)))
        rules += _attention(f"{own}.attention.text", layer, names.text, names, c)
        if c.moe_size:
            rules += _mixture(f"{own}.ffn.text", layer, names.text, names, c)
        else:
            rules += _ffn(f"{own}.ffn.text", layer, names.text, c)
        if c.partial_rank:
            rules += _partial(own, layer, names, c)
        if c.visual_attention and names.visual:
            rules += _attention(f"{own}.attention.visual", layer, names.visual, names, c)
        if c.visual_ffn and names.visual:
            rules += _ffn(f"{own}.ffn.visual", layer, names.visual, c)
    return rules


def patch_rules(width: int, patch: int, patches: int) -> list[Rule]:
    """Patch convolution, class vector and position table; the file keeps leading axes of length one."""
    own, foreign = "vision", "vision_model.embeddings"
    return [
        same_rule(f"{own}.patch.weight", f"{foreign}.patch_embedding.weight", (width, 3, patch, patch)),
        same_rule(f"{own}.patch.bias", f"{foreign}.patch_embedding.bias", (width,)),
        same_rule(f"{own}.cls", f"{foreign}.class_embedding", (width,), (1, 1, width)),
        same_rule(f"{own}.positions", f"{foreign}.position_embedding", (patches + 1, width), (1, patches + 1, width)),
    ]


def stem_rules(parts: Sequence[str], width: int, names: int = 0) -> list[Rule]:
    """A pretrained stem and its way into the patches; the released files know none, so the names are ours."""
    channels, own, foreign = stem_channels(parts), "vision", "vision_model.embeddings"
    return [
        *(
            same_rule(f"stem.{name}", f"vision_model.stem.{name}", shape)
            for name, shape in stem_shapes(parts, names).items()
        ),
        *(
            same_rule(f"{own}.stem_norms.{number}.{leaf}", f"{foreign}.stem_norms.{number}.{leaf}", (size,))
            for number, size in enumerate(channels)
            for leaf in ("weight", "bias")
        ),
        *linear_rules(f"{own}.stem_map", f"{foreign}.stem_map", width, sum(channels), True),
    ]


def tower_rules(width: int, ffn: int, layers: int, *, norm_bias: bool, qkv_bias: bool, qk_norm: bool) -> list[Rule]:
    """The blocks of InternViT; LayerNorm (300M) has biases, RMSNorm (6B) has none."""
    rules: list[Rule] = []
    for number in range(layers):
        own, foreign = f"vision.layers.{number}", f"vision_model.encoder.layers.{number}"
        for norm in ("norm1", "norm2"):
            rules.append(same_rule(f"{own}.{norm}.weight", f"{foreign}.{norm}.weight", (width,)))
            if norm_bias:
                rules.append(same_rule(f"{own}.{norm}.bias", f"{foreign}.{norm}.bias", (width,)))
        rules += linear_rules(f"{own}.attention.qkv", f"{foreign}.attn.qkv", 3 * width, width, qkv_bias)
        if qk_norm:
            for norm in ("q_norm", "k_norm"):
                rules.append(same_rule(f"{own}.attention.{norm}.weight", f"{foreign}.attn.{norm}.weight", (width,)))
        rules += linear_rules(f"{own}.attention.out", f"{foreign}.attn.proj", width, width, True)
        rules += linear_rules(f"{own}.ffn.fc1", f"{foreign}.mlp.fc1", ffn, width, True)
        rules += linear_rules(f"{own}.ffn.fc2", f"{foreign}.mlp.fc2", width, ffn, True)
        rules += [same_rule(f"{own}.scale{i}", f"{foreign}.ls{i}", (width,)) for i in (1, 2)]
    return rules


def projector_rules(width: int, hidden: int, cells: int) -> list[Rule]:
    """LayerNorm and two linear layers; ``cells`` patches are unshuffled into one token."""
    wide = width * cells
    return [
        same_rule("projector.norm.weight", "mlp1.0.weight", (wide,)),
        same_rule("projector.norm.bias", "mlp1.0.bias", (wide,)),
        *linear_rules("projector.fc1", "mlp1.1", hidden, wide, True),
        *linear_rules("projector.fc2", "mlp1.3", hidden, hidden, True),
    ]


def mono_internvl(config: MonoInternVLConfig, names: LanguageNames = INTERNLM2) -> KeyMap:
    """The map of Mono-InternVL's released files; with `OWN`, of vedere's."""
    vision = config.vision
    rules = [
        *patch_rules(vision.width, vision.patch, vision.table_grid**2),
        *(stem_rules(vision.stem, vision.width, len(vision.names)) if vision.stem else ()),
        *projector_rules(vision.width, config.decoder.hidden_size, vision.downsample**2),
        *language_rules(config.decoder, names, "language_model."),
    ]
    return KeyMap("mono-internvl", tuple(rules))


def internvl(config: InternVLConfig, names: LanguageNames) -> KeyMap:
    """The map of InternVL's released files, whose language model keeps the names of its own release; `OWN`: of vedere's."""
    tower, patches = config.vision, config.vision.patches
    rules = [
        *patch_rules(patches.width, patches.patch, patches.table_grid**2),
        *tower_rules(
            patches.width,
            tower.ffn_size,
            tower.layers,
            norm_bias=tower.norm == "layer_norm",
            qkv_bias=tower.qkv_bias,
            qk_norm=tower.qk_norm,
        ),
        *(
            same_rule(f"vision.norm.{part}", f"vision_model.layernorm.{part}", (patches.width,))
            for part in (("weight", "bias") if tower.final_norm else ())
        ),
        *projector_rules(patches.width, config.decoder.hidden_size, patches.downsample**2),
        *language_rules(config.decoder, names, "language_model."),
    ]
    return KeyMap("internvl" if names is OWN else f"internvl-{names.family}", tuple(rules))


def own(config: DecoderConfig) -> KeyMap:
    """A bare language model under vedere's own names."""
    return KeyMap("decoder", tuple(language_rules(config, OWN)))


def internlm2(config: DecoderConfig) -> KeyMap:
    """The map of a bare InternLM2."""
    return KeyMap("internlm2", tuple(language_rules(config, INTERNLM2)))


def llama(config: DecoderConfig) -> KeyMap:
    """The map of a bare language model with hub names: Llama, Qwen2, Qwen3, Qwen3-MoE."""
    return KeyMap("llama", tuple(language_rules(config, LLAMA)))


def phi3(config: DecoderConfig) -> KeyMap:
    """The map of a bare Phi-3."""
    return KeyMap("phi3", tuple(language_rules(config, PHI3)))


def gguf(config: DecoderConfig) -> KeyMap:
    """The map of a bare Llama-type language model in a GGUF file (tensors already dequantised)."""
    return KeyMap("gguf", tuple(language_rules(config, GGUF)))
