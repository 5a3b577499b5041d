"""Names and layouts of tensors in published files, and vedere's own: the map between them, both ways.

A `KeyMap` is a list of `Rule`s, made from a config alone. A rule ties one tensor of vedere to one or more tensors of a
file and says how the rows are arranged (`Layout`). Every layout has an exact inverse, so a checkpoint converted there and
back is the same bit for bit; and the list is complete, so a file with a missing, surplus or misshapen tensor is refused
instead of half loaded.

Families (name tables below):

* `mono-internvl`: Mono-InternVL (arXiv 2410.08202), names of its released `InternVLChatModel` with InternLM2VE. The
  visual attention experts of Mono-InternVL-1.5 (2507.12566) were never released; `attention.wqkv_ve` and `attention.wo_ve`
  are this project's own choice of names, and `INTERNLM2` is the only place that knows them.
* `internvl-internlm2`: InternViT + projector + InternLM2 (InternVL 1.5 to 2.5, V2PE 2412.09616).
* `internlm2`: a bare InternLM2, whose names the two above carry with the prefix `language_model.`
* `llama`: a bare language model with the usual hub names (Llama, SmolLM2, Qwen2).
* `gguf`: the same as llama.cpp stores it, which interleaves the two rotary halves of every query and key head.

Axes: V vocabulary, D width, A = heads x head size, K = key/value heads x head size, F width of the FFN, C width of the
vision tower, S its patch side, P patches of a tile. Cost: `join` copies a tensor once where rows move, else nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from vedere.config import nearest
from vedere.errors import CheckpointError
from vedere.models.stem import stem_channels, stem_shapes

if TYPE_CHECKING:
    from vedere.models.decoder import DecoderConfig
    from vedere.models.internvl import InternVLConfig
    from vedere.models.mono_internvl import MonoInternVLConfig

Shape = tuple[int, ...]


class Layout(Protocol):
    """How the tensors of a file make one tensor of vedere. `split` undoes `join` exactly."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """The tensor of vedere, with ``shape``."""
        ...

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The tensors of the file, with ``shapes``."""
        ...


@dataclass(frozen=True)
class Same:
    """One tensor, the same numbers in the same order; only axes of length one may come or go."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """A view of the tensor."""
        return parts[0].reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """A view of the tensor."""
        return [tensor.reshape(shapes[0])]


@dataclass(frozen=True)
class Stacked:
    """Several matrices on top of each other: query, key, value, or gate and up."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Rows of the first, then of the second, and so on."""
        return torch.cat(list(parts)).reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Row ranges, as views."""
        return list(tensor.split([shape[0] for shape in shapes]))


@dataclass(frozen=True)
class Grouped:
    """InternLM2's fused projection: for each key/value head its query heads, then its key, then its value."""

    heads: int
    kv_heads: int
    head_dim: int

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """All query rows (group by group), all key rows, all value rows."""
        group = self.heads // self.kv_heads
        rows = parts[0].reshape(self.kv_heads, group + 2, self.head_dim, *shape[1:])
        query, key, value = rows[:, :group], rows[:, group], rows[:, group + 1]
        return torch.cat([part.reshape(-1, *shape[1:]) for part in (query, key, value)])

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The interleaved rows."""
        group, tail = self.heads // self.kv_heads, tensor.shape[1:]
        query, key, value = tensor.split([n * self.head_dim for n in (self.heads, self.kv_heads, self.kv_heads)])
        parts = [
            query.reshape(self.kv_heads, group, self.head_dim, *tail),
            key.reshape(self.kv_heads, 1, self.head_dim, *tail),
            value.reshape(self.kv_heads, 1, self.head_dim, *tail),
        ]
        return [torch.cat(parts, dim=1).reshape(shapes[0])]


@dataclass(frozen=True)
class PairedHalves:
    """llama.cpp's separate projections: inside a query or key head, row 2i belongs to half 0 and row 2i + 1 to half 1.

    vedere rotates halves (row i with row i + head_dim / 2), so the rows are put back; values are not touched.
    """

    heads: int
    kv_heads: int

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Query, key and value rows, the halves of each head one after the other."""
        query, key, value = parts
        return torch.cat([self._halves(query, self.heads), self._halves(key, self.kv_heads), value]).reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Query, key and value rows, the halves of each head interleaved."""
        query, key, value = tensor.split([shape[0] for shape in shapes])
        return [self._pairs(query, self.heads), self._pairs(key, self.kv_heads), value]

    @staticmethod
    def _halves(rows: Tensor, heads: int) -> Tensor:
        return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    @staticmethod
    def _pairs(rows: Tensor, heads: int) -> Tensor:
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


@dataclass(frozen=True)
class Rule:
    """One tensor of vedere and the tensors of a file that hold it."""

    own: str
    own_shape: Shape
    foreign: tuple[str, ...]
    foreign_shapes: tuple[Shape, ...]
    layout: Layout


@dataclass(frozen=True)
class KeyMap:
    """The complete map between one kind of file and vedere's names."""

    family: str
    rules: tuple[Rule, ...]

    @property
    def own_shapes(self) -> dict[str, Shape]:
        """Every tensor of vedere's model and its shape."""
        return {rule.own: rule.own_shape for rule in self.rules}

    @property
    def foreign_shapes(self) -> dict[str, Shape]:
        """Every tensor of the file and its shape."""
        return {
            name: shape for rule in self.rules for name, shape in zip(rule.foreign, rule.foreign_shapes, strict=True)
        }

    def iter_own(self, tensors: Mapping[str, Tensor], where: str = "the checkpoint") -> Iterator[tuple[str, Tensor]]:
        """Yields vedere's tensors one at a time, so that only one of them exists twice in memory.

        Raises:
            CheckpointError: ``tensors`` are not exactly the tensors of this family.
        """
        check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, self.foreign_shapes, where, self.family)
        for rule in self.rules:
            yield rule.own, rule.layout.join([tensors[name] for name in rule.foreign], rule.own_shape)

    def to_own(self, tensors: Mapping[str, Tensor], where: str = "the checkpoint") -> dict[str, Tensor]:
        """From the names of the file to vedere's; see `iter_own`."""
        return dict(self.iter_own(tensors, where))

    def to_foreign(self, tensors: Mapping[str, Tensor], where: str = "the model") -> dict[str, Tensor]:
        """From vedere's names to those of the file; the exact inverse of `to_own`.

        Raises:
            CheckpointError: ``tensors`` are not exactly the tensors of this model.
        """
        check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, self.own_shapes, where, "vedere")
        return {
            name: part
            for rule in self.rules
            for name, part in zip(rule.foreign, rule.layout.split(tensors[rule.own], rule.foreign_shapes), strict=True)
        }


_SHOWN = 8  # groups of names in a message; a layer's tensors count once


def _shorten(names: Sequence[str]) -> str:
    """``a.0.w, a.1.w, a.2.w, b`` becomes ``a.{0-2}.w (3), b``; long lists end with a count."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\.\d+\.", ".{}.", name, count=1), []).append(name)
    shown = []
    for pattern, members in list(groups.items())[:_SHOWN]:
        numbers = sorted(int(found[1]) for member in members if (found := re.search(r"\.(\d+)\.", member)))
        if len(members) == 1:
            shown.append(members[0])
        elif numbers == list(range(numbers[0], numbers[-1] + 1)):
            shown.append(pattern.replace("{}", f"{{{numbers[0]}-{numbers[-1]}}}") + f" ({len(members)})")
        else:
            listed = ",".join(map(str, numbers[:6])) + (",..." if len(numbers) > 6 else "")
            shown.append(pattern.replace("{}", f"{{{listed}}}") + f" ({len(members)})")
    left = len(groups) - len(shown)
    return ", ".join(shown) + (f", and {left} more kinds" if left > 0 else "")


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], where: str, family: str) -> None:
    """Refuses any difference between the tensors found and the tensors expected.

    Raises:
        CheckpointError: lists missing, surplus and misshapen tensors, layers folded together.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and tuple(found[name]) != tuple(expected[name])]
    if not (missing or surplus or wrong):
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {_shorten(missing)}")
    if surplus:
        close = nearest(surplus[0], missing) if len(surplus) == 1 else ""
        parts.append(f"{len(surplus)} surplus: {_shorten(surplus)}{close}")
    if wrong:
        shapes = ", ".join(f"{n} is {list(found[n])}, expected {list(expected[n])}" for n in wrong[:_SHOWN])
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        parts.append(f"{len(wrong)} misshapen: {shapes}{more}")
    raise CheckpointError(
        f"{where} is not a complete '{family}' checkpoint of this config ({len(expected)} tensors expected, {len(found)} "
        f"found); {'; '.join(parts)}. Check that config.json and weights belong together, or download the files again"
    )


@dataclass(frozen=True, kw_only=True)
class ExpertNames:
    """Names inside a layer of one set of projections; ``qkv`` has one name when fused, three when separate."""

    qkv: tuple[str, ...]
    out: str
    gate_up: tuple[str, str]
    down: str


@dataclass(frozen=True, kw_only=True)
class LanguageNames:
    """Names of a language model's tensors, without ``.weight``; ``layer`` holds the place of the layer number."""

    embed: str
    norm: str
    head: str
    layer: str
    attention_norm: str
    ffn_norm: str
    text: ExpertNames
    visual: ExpertNames | None = None
    paired_halves: bool = False


INTERNLM2 = LanguageNames(
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
)
LLAMA = LanguageNames(
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
    ),
)
GGUF = LanguageNames(
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


def _same(own: str, foreign: str, shape: Shape, foreign_shape: Shape | None = None) -> Rule:
    return Rule(own, shape, (foreign,), (foreign_shape or shape,), Same())


def _linear(own: str, foreign: str, rows: int, columns: int, bias: bool) -> list[Rule]:
    rules = [_same(f"{own}.weight", f"{foreign}.weight", (rows, columns))]
    return [*rules, _same(f"{own}.bias", f"{foreign}.bias", (rows,))] if bias else rules


def _joined(
    own: str, foreign: Sequence[str], rows: Sequence[int], columns: int, bias: bool, layout: Layout
) -> list[Rule]:
    def rule(leaf: str, tail: Shape) -> Rule:
        shapes = tuple((n, *tail) for n in rows)
        return Rule(f"{own}.{leaf}", (sum(rows), *tail), tuple(f"{name}.{leaf}" for name in foreign), shapes, layout)

    return [rule("weight", (columns,))] + ([rule("bias", ())] if bias else [])


def _attention(own: str, prefix: str, names: ExpertNames, paired: bool, config: DecoderConfig) -> list[Rule]:
    c, query, key = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
    foreign = [prefix + name for name in names.qkv]
    fused = len(foreign) == 1
    layout: Layout
    if fused:
        layout = Grouped(c.heads, c.kv_heads, c.head_dim)
    elif paired:
        layout = PairedHalves(c.heads, c.kv_heads)
    else:
        layout = Stacked()
    rows = [query + 2 * key] if fused else [query, key, key]
    return [
        *_joined(f"{own}.qkv", foreign, rows, c.hidden_size, c.qkv_bias, layout),
        *_linear(f"{own}.out", prefix + names.out, c.hidden_size, query, c.out_bias),
    ]


def _ffn(own: str, prefix: str, names: ExpertNames, config: DecoderConfig) -> list[Rule]:
    c = config
    gate_up = [prefix + name for name in names.gate_up]
    return [
        *_joined(f"{own}.gate_up", gate_up, [c.ffn_size] * 2, c.hidden_size, c.ffn_bias, Stacked()),
        *_linear(f"{own}.down", prefix + names.down, c.hidden_size, c.ffn_size, c.ffn_bias),
    ]


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
        raise CheckpointError(
            "this family of files has no names for visual experts; save the model in vedere's own layout "
            '(layout="vedere") or as \'mono-internvl\' (layout="original")'
        )
    rules = [
        _same("decoder.embed.weight", f"{prefix}{names.embed}.weight", (c.vocab_size, c.hidden_size)),
        _same("decoder.norm.weight", f"{prefix}{names.norm}.weight", (c.hidden_size,)),
    ]
    if not c.tied_head:
        rules.append(_same("decoder.head.weight", f"{prefix}{names.head}.weight", (c.vocab_size, c.hidden_size)))
    for number in range(c.layers):
        own, layer = f"decoder.layers.{number}", prefix + names.layer.format(number)
        for norm, foreign in (("attention_norm", names.attention_norm), ("ffn_norm", names.ffn_norm)):
            rules.append(_same(f"{own}.{norm}.weight", f"{layer}{foreign}.weight", (c.hidden_size,)))
        rules += _attention(f"{own}.attention.text", layer, names.text, names.paired_halves, c)
        rules += _ffn(f"{own}.ffn.text", layer, names.text, c)
        if c.visual_attention and names.visual:
            rules += _attention(f"{own}.attention.visual", layer, names.visual, names.paired_halves, c)
        if c.visual_ffn and names.visual:
            rules += _ffn(f"{own}.ffn.visual", layer, names.visual, c)
    return rules


def patch_rules(width: int, patch: int, patches: int) -> list[Rule]:
    """Patch convolution, class vector and position table; the file keeps leading axes of length one."""
    own, foreign = "vision", "vision_model.embeddings"
    return [
        _same(f"{own}.patch.weight", f"{foreign}.patch_embedding.weight", (width, 3, patch, patch)),
        _same(f"{own}.patch.bias", f"{foreign}.patch_embedding.bias", (width,)),
        _same(f"{own}.cls", f"{foreign}.class_embedding", (width,), (1, 1, width)),
        _same(f"{own}.positions", f"{foreign}.position_embedding", (patches + 1, width), (1, patches + 1, width)),
    ]


def stem_rules(parts: Sequence[str], width: int) -> list[Rule]:
    """A pretrained stem and its way into the patches; the released files know none, so the names are ours."""
    channels, own, foreign = stem_channels(parts), "vision", "vision_model.embeddings"
    return [
        *(_same(f"stem.{name}", f"vision_model.stem.{name}", shape) for name, shape in stem_shapes(parts).items()),
        *(
            _same(f"{own}.stem_norms.{number}.{leaf}", f"{foreign}.stem_norms.{number}.{leaf}", (size,))
            for number, size in enumerate(channels)
            for leaf in ("weight", "bias")
        ),
        *_linear(f"{own}.stem_map", f"{foreign}.stem_map", width, sum(channels), True),
    ]


def tower_rules(width: int, ffn: int, layers: int, *, norm_bias: bool, qkv_bias: bool, qk_norm: bool) -> list[Rule]:
    """The blocks of InternViT; LayerNorm (300M) has biases, RMSNorm (6B) has none."""
    rules: list[Rule] = []
    for number in range(layers):
        own, foreign = f"vision.layers.{number}", f"vision_model.encoder.layers.{number}"
        for norm in ("norm1", "norm2"):
            rules.append(_same(f"{own}.{norm}.weight", f"{foreign}.{norm}.weight", (width,)))
            if norm_bias:
                rules.append(_same(f"{own}.{norm}.bias", f"{foreign}.{norm}.bias", (width,)))
        rules += _linear(f"{own}.attention.qkv", f"{foreign}.attn.qkv", 3 * width, width, qkv_bias)
        if qk_norm:
            for norm in ("q_norm", "k_norm"):
                rules.append(_same(f"{own}.attention.{norm}.weight", f"{foreign}.attn.{norm}.weight", (width,)))
        rules += _linear(f"{own}.attention.out", f"{foreign}.attn.proj", width, width, True)
        rules += _linear(f"{own}.ffn.fc1", f"{foreign}.mlp.fc1", ffn, width, True)
        rules += _linear(f"{own}.ffn.fc2", f"{foreign}.mlp.fc2", width, ffn, True)
        rules += [_same(f"{own}.scale{i}", f"{foreign}.ls{i}", (width,)) for i in (1, 2)]
    return rules


def projector_rules(width: int, hidden: int, cells: int) -> list[Rule]:
    """LayerNorm and two linear layers; ``cells`` patches are unshuffled into one token."""
    wide = width * cells
    return [
        _same("projector.norm.weight", "mlp1.0.weight", (wide,)),
        _same("projector.norm.bias", "mlp1.0.bias", (wide,)),
        *_linear("projector.fc1", "mlp1.1", hidden, wide, True),
        *_linear("projector.fc2", "mlp1.3", hidden, hidden, True),
    ]


def mono_internvl(config: MonoInternVLConfig) -> KeyMap:
    """The map of Mono-InternVL's released files."""
    vision = config.vision
    rules = [
        *patch_rules(vision.width, vision.patch, vision.grid**2),
        *(stem_rules(vision.stem, vision.width) if vision.stem else ()),
        *projector_rules(vision.width, config.decoder.hidden_size, vision.downsample**2),
        *language_rules(config.decoder, INTERNLM2, "language_model."),
    ]
    return KeyMap("mono-internvl", tuple(rules))


def internvl_internlm2(config: InternVLConfig) -> KeyMap:
    """The map of InternVL's released files with an InternLM2 language model."""
    tower, patches = config.vision, config.vision.patches
    rules = [
        *patch_rules(patches.width, patches.patch, patches.grid**2),
        *tower_rules(
            patches.width,
            tower.ffn_size,
            tower.layers,
            norm_bias=tower.norm == "layer_norm",
            qkv_bias=tower.qkv_bias,
            qk_norm=tower.qk_norm,
        ),
        *projector_rules(patches.width, config.decoder.hidden_size, patches.downsample**2),
        *language_rules(config.decoder, INTERNLM2, "language_model."),
    ]
    return KeyMap("internvl-internlm2", tuple(rules))


def internlm2(config: DecoderConfig) -> KeyMap:
    """The map of a bare InternLM2."""
    return KeyMap("internlm2", tuple(language_rules(config, INTERNLM2)))


def llama(config: DecoderConfig) -> KeyMap:
    """The map of a bare language model with hub names."""
    return KeyMap("llama", tuple(language_rules(config, LLAMA)))


def gguf(config: DecoderConfig) -> KeyMap:
    """The map of a bare Llama-type language model in a GGUF file (tensors already dequantised)."""
    return KeyMap("gguf", tuple(language_rules(config, GGUF)))
