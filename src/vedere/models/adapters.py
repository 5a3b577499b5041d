"""LoRA and partial LoRA as objects: attach, train, save, load, merge.

`LoRA` (arXiv 2106.09685) adds ``s B A x`` to chosen linear maps of the language model for every token. `PartialLoRA`
(XComposer2, 2401.16420) adds it for image tokens alone; attached, it is what `XComposer2` has from the start. Both may be on
one model, LoRA around the map with its partial part: text takes ``W + LoRA``, image tokens ``W + LoRA + partial``.

Laws, tested: an adapter just attached changes nothing; merged LoRA equals the adapter; partial LoRA refuses to merge, because a
sum into W would reach text as well; a saved folder loads with one call (`load_adapter`) and gives the same numbers.

Maps are called by the names of the files (``attention.wqkv``, ``q_proj``), not by vedere's, which fuses some of them: what a
file keeps apart has factors of its own here too. So a saved LoRA is a folder of peft: ``adapter_config.json`` and
``adapter_model.safetensors`` with ``base_model.model.<name>.lora_A.weight``, in and out, also where only some of the fused maps
are adapted; whose names a folder has is seen from them. Partial LoRA, which peft does not know, is saved in the same form
under its own type.

The first XComposer's release has LoRA as a part of its model; it is plain LoRA in all these functions, and merged or detached
it leaves the config as well.

Cost of LoRA: see `vedere.models.low_rank`. Merging costs one product a map and nothing afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vedere.atomic import write_together
from vedere.errors import CheckpointError, ConfigError, VedereError
from vedere.models.checkpoints import key_map, model_config
from vedere.models.decoder import Decoder, DecoderConfig, DecoderLayer, attach_partial
from vedere.models.experts import Experts
from vedere.models.key_rules import Grouped, PairedHalves, Rule
from vedere.models.keymaps import Naming
from vedere.models.low_rank import LoRALinear, LowRank, Part
from vedere.models.shards import file_writer, json_writer, read_file
from vedere.models.xcomposer import XComposer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTIAL_TYPE = "VEDERE_PARTIAL_LORA"
_VARIANTS = (
    *("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias"),
    *("use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "arrow_config"),
)
"""Fields of peft that, set, make another sum than LoRA's, or adapt what is no linear map."""
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")  # beginnings that change the weights below the adapter


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank additions for every token.

    Attributes:
        rank: r.
        alpha: The scale is ``alpha / rank``.
        dropout: Of the input, while training.
        targets: Names of maps in the files, or last parts of them, as shell patterns (``wqkv``, ``feed_forward.*``,
            ``*.layers.1?.*``); empty: every linear map of the language model's layers.
        naming: Whose names: those of the language model's own release.
    """

    rank: int = 64
    alpha: float = 64.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    naming: Naming = "internlm2"


@dataclass(frozen=True, kw_only=True)
class PartialLoRA:
    """Low-rank additions for image tokens alone, on every linear map of the language model's layers.

    Attributes:
        rank: r.
        alpha: The scale is ``alpha / rank``.
        dropout: Of the input, while training.
    """

    rank: int = 256
    alpha: float = 256.0
    dropout: float = 0.0


@dataclass(frozen=True)
class _Target:
    """A fused map, the names of its parts in the file, and which of them are adapted."""

    rule: Rule
    experts: Experts
    leaf: str
    names: tuple[str, ...]
    chosen: tuple[int, ...]

    @property
    def linear(self) -> nn.Module:
        return self.experts.text.get_submodule(self.leaf)

    @property
    def parts(self) -> list[Part]:
        """Rows of the chosen parts."""
        sizes = [shape[0] for shape in self.rule.foreign_shapes]
        return [(sum(sizes[:k]), sizes[k]) for k in self.chosen]


def attach(model: nn.Module, adapter: LoRA | PartialLoRA) -> list[str]:
    """Adds an adapter, new and so far without effect, and lets it alone learn (`learn`).

    Args:
        model: Assembly or bare decoder.
        adapter: What to add.

    Returns:
        Names of the adapted maps in the files.

    Raises:
        ConfigError: targets that no map has, a second adapter of the kind, or a model that it does not fit.
    """
    if isinstance(adapter, PartialLoRA):
        _attach_partial(model, adapter)
        learn(model, "partial")
        return [name for target in _targets(model, "internlm2", ()) for name in target.names]
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ConfigError("the model has a LoRA already; merge it first (merge_lora), or detach it (detach_lora)")
    targets = _targets(model, adapter.naming, adapter.targets)
    for target in targets:
        linear = target.linear
        assert isinstance(linear, nn.Linear)
        low = LowRank(linear.in_features, target.parts, adapter.rank, adapter.alpha, adapter.dropout)
        low.to(linear.weight.device, linear.weight.dtype)
        setattr(target.experts.text, target.leaf, LoRALinear(linear, low).train(model.training))
    learn(model, "lora")
    return [target.names[k] for target in targets for k in target.chosen]


def learn(model: nn.Module, kind: Literal["lora", "partial"]) -> list[nn.Parameter]:
    """Lets the adapter alone learn: ``requires_grad`` of its factors, of nothing else. Returns them, for the optimiser."""
    model.requires_grad_(False)
    found = [p for low in _lows(model, kind) for p in low.parameters()]
    for parameter in found:
        parameter.requires_grad_(True)
    return found


def merge_lora(model: nn.Module) -> nn.Module:
    """Adds LoRA into the weights, computed in float32, and removes it; partial LoRA beside it stays as it is.

    Raises:
        ConfigError: there is no LoRA to merge; where there is a partial one, says why that cannot be.
    """
    found = list(_wrapped(model))
    if not found:
        if list(_lows(model, "partial")):
            raise ConfigError(
                "partial LoRA cannot be merged: it belongs to image tokens alone, and a sum into the weights would change text "
                "too; keep it beside the weights (save_model writes both), or save it alone (save_adapter)"
            )
        raise ConfigError("the model has no LoRA to merge; attach or load one first")
    for parent, leaf, linear in found:
        with torch.no_grad():
            weight = linear.weight
            weight.copy_((weight.float() + linear.low.delta(len(weight))).to(weight.dtype))
        setattr(parent, leaf, linear.plain())
    _without_stored(model)
    return model


def detach_lora(model: nn.Module) -> nn.Module:
    """Removes LoRA without a trace."""
    for parent, leaf, linear in list(_wrapped(model)):
        setattr(parent, leaf, linear.plain())
    _without_stored(model)
    return model


def _without_stored(model: nn.Module) -> None:
    """The config of a model whose release has LoRA, now that it is gone."""
    if isinstance(model, XComposer):
        model.config = dataclasses.replace(model.config, lora=None)


def save_adapter(
    model: nn.Module,
    directory: Path | str,
    kind: Literal["lora", "partial"] = "lora",
    *,
    naming: Naming = "internlm2",
    base: str | None = None,
) -> None:
    """Writes the adapter alone: LoRA as peft does, partial LoRA in the same form.

    Args:
        model: With the adapter.
        directory: Target folder.
        kind: Which adapter.
        naming: Whose names the maps have in the file; for LoRA the one it was attached with.
        base: Name or folder of the model without it, for the record.

    Raises:
        ConfigError: the model has no such adapter.
        CheckpointError: the disk is full; an earlier adapter is intact.
    """
    tensors: dict[str, Tensor] = {}
    lows: list[LowRank] = []
    every = _targets(model, naming, ())
    for target in every:
        low = _low_of(target, kind)
        if low is None:
            continue
        lows.append(low)
        sizes = [rows for _, rows in low.parts]
        for (start, _), down, up in zip(
            low.parts, low.lora_A.detach().split(low.rank), low.lora_B.detach().split(sizes), strict=True
        ):
            place = [part[0] for part in _all_parts(target.rule)].index(start)
            name = target.names[place]
            tensors[f"{_PREFIX}{name}.lora_A.weight"] = down.clone()
            tensors[f"{_PREFIX}{name}.lora_B.weight"] = _reordered(target.rule, up, "out").clone()
    if not lows:
        raise ConfigError(f"the model has no {'LoRA' if kind == 'lora' else 'partial LoRA'} to save; attach one first")
    config = {
        "peft_type": "LORA" if kind == "lora" else _PARTIAL_TYPE,
        "r": lows[0].rank,
        "lora_alpha": lows[0].alpha,
        "lora_dropout": lows[0].dropout,
        "target_modules": _target_modules(
            {name.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name},
            {name for target in every for name in target.names},
        ),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "task_type": None,
        "base_model_name_or_path": base,
    }
    write_together(Path(directory), {CONFIG: json_writer(config), WEIGHTS: file_writer(tensors)})


def load_adapter(model: nn.Module, directory: Path | str, naming: Naming | None = None) -> list[str]:
    """Attaches the adapter of a folder, LoRA of peft or of `save_adapter`, or partial LoRA.

    Args:
        model: Without an adapter of that kind.
        directory: The folder.
        naming: Whose names the maps have in the file; None: found by the names.

    Returns:
        Names of the adapted maps.

    Raises:
        CheckpointError: files that are missing or damaged, forms of LoRA that are not computed here, or tensors that do not
            fit the model.
        ConfigError: as `attach`.
    """
    directory = Path(directory)
    config = _read_config(directory)
    stored, _ = read_file(directory / WEIGHTS)
    names = {
        name.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for name in stored if name.endswith("lora_A.weight")
    }
    rank, alpha, dropout = int(config["r"]), float(config["lora_alpha"]), float(config.get("lora_dropout") or 0.0)
    partial = config["peft_type"] == _PARTIAL_TYPE
    naming = naming or _naming_of(model, names)
    known = {name for target in _targets(model, naming, ()) for name in target.names}
    if not names or names - known:
        raise CheckpointError(
            f"{directory / WEIGHTS} adapts {', '.join(sorted(names - known)[:3]) or 'nothing'}, which is no linear map of this "
            f"model; expected names such as '{_PREFIX}{min(known)}.lora_A.weight': check that it belongs to this model, and "
            f"naming='{naming}'"
        )
    kind: Literal["lora", "partial"] = "partial" if partial else "lora"
    found: list[tuple[_Target, LowRank, Tensor, Tensor]] = []
    used: set[str] = set()
    for target in _targets(model, naming, tuple(names), exact=True):
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        for k in target.chosen:
            for leaf, into, shape in (
                ("lora_A", downs, (rank, target.rule.foreign_shapes[k][1])),
                ("lora_B", ups, (target.rule.foreign_shapes[k][0], rank)),
            ):
                name = f"{_PREFIX}{target.names[k]}.{leaf}.weight"
                if name not in stored or tuple(stored[name].shape) != shape:
                    given = list(stored[name].shape) if name in stored else "missing"
                    raise CheckpointError(f"{directory / WEIGHTS}: '{name}' is {given}; expected {list(shape)}")
                into.append(stored[name] if leaf == "lora_A" else _reordered(target.rule, stored[name], "in"))
                used.add(name)
        linear = target.linear
        assert isinstance(linear, nn.Linear)
        low = LowRank(linear.in_features, target.parts, rank, alpha, dropout)
        found.append((target, low, torch.cat(downs), torch.cat(ups)))
    if stored.keys() - used:
        surplus = ", ".join(sorted(stored.keys() - used)[:3])
        raise CheckpointError(
            f"{directory / WEIGHTS} holds {surplus}, which is no factor of LoRA; only plain LoRA is computed here"
        )
    attach(
        model,
        PartialLoRA(rank=rank, alpha=alpha, dropout=dropout)
        if partial
        else LoRA(rank=rank, alpha=alpha, dropout=dropout, targets=tuple(names), naming=naming),
    )
    with torch.no_grad():
        for target, _, down, up in found:
            low_now = _low_of(target, kind)
            assert low_now is not None
            low_now.lora_A.copy_(down)
            low_now.lora_B.copy_(up)
    return sorted(names)


def _attach_partial(model: nn.Module, adapter: PartialLoRA) -> None:
    decoder = _decoder(model)
    if decoder.config.partial_rank:
        raise ConfigError(
            f"the model has partial LoRA of rank {decoder.config.partial_rank} already; train that (learn(model, 'partial'))"
        )
    changed = dataclasses.replace(decoder.config, partial_rank=adapter.rank, partial_alpha=adapter.alpha)
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        attach_partial(layer, adapter.rank, adapter.alpha, adapter.dropout)
        for brick in (layer.attention, layer.ffn):
            brick.partial.to(decoder.embed.weight.device, decoder.embed.weight.dtype).train(model.training)
    decoder.config = changed
    if model is not decoder:
        model.config = dataclasses.replace(model_config(model), decoder=changed)  # type: ignore[arg-type,assignment]


def _decoder(model: nn.Module) -> Decoder:
    decoder = model if isinstance(model, Decoder) else getattr(model, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise ConfigError(f"a {type(model).__name__} has no language model to adapt; give an assembly or a Decoder")
    return decoder


def _targets(model: nn.Module, naming: Naming, wanted: tuple[str, ...], exact: bool = False) -> list[_Target]:
    """The language model's linear maps, those with a part that ``wanted`` names (all: empty)."""
    decoder, config = _decoder(model), model_config(model)
    layout = naming if isinstance(config, DecoderConfig) else "original"
    found: list[_Target] = []
    matched: set[str] = set()
    for rule in key_map(config, layout, naming).rules:
        brick = rule.own.split(".")  # decoder.layers.N.attention.text.qkv.weight
        if (
            brick[:2] != ["decoder", "layers"]
            or brick[-1] != "weight"
            or brick[4:5] != ["text"]
            or len(rule.own_shape) != 2
        ):
            continue
        experts = decoder.layers[int(brick[2])].get_submodule(brick[3])
        assert isinstance(experts, Experts)
        if not isinstance(experts.text.get_submodule(brick[5]), nn.Linear) or isinstance(rule.layout, PairedHalves):
            continue
        names = tuple(name.removesuffix(".weight") for name in rule.foreign)
        chosen = []
        for k, name in enumerate(names):
            hits = {w for w in wanted if name == w or (not exact and _matches(name, w))}
            matched |= hits
            if hits or not wanted:
                chosen.append(k)
        if chosen:
            found.append(_Target(rule, experts, brick[5], names, tuple(chosen)))
    missing = sorted(set(wanted) - matched)
    if missing:
        known = sorted({_suffix(name) for target in _targets(model, naming, ()) for name in target.names})
        raise ConfigError(f"no linear map is called {', '.join(missing)}; the model's are {', '.join(known)}")
    return found


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _naming_of(model: nn.Module, names: Collection[str]) -> Naming:
    """Whose names these are; the release's own where they are nobody's."""
    for naming in get_args(Naming):
        with contextlib.suppress(VedereError):  # the model has no such names
            if {name for target in _targets(model, naming, ()) for name in target.names}.issuperset(names):
                return naming  # type: ignore[no-any-return]
    return "internlm2"


def _target_modules(adapted: Collection[str], every: Collection[str]) -> list[str]:
    """What peft is told: the ends of names, unless some layers have a map adapted and others not; then whole names."""
    whole = not {_suffix(name) for name in adapted}.isdisjoint(_suffix(name) for name in set(every) - set(adapted))
    return sorted(adapted if whole else {_suffix(name) for name in adapted})


def _suffix(name: str) -> str:
    """The part of a name behind the number of the layer: ``attention.wqkv``."""
    parts = name.split(".")
    return ".".join(parts[max(k for k, part in enumerate(parts) if part.isdecimal()) + 1 :])


def _all_parts(rule: Rule) -> list[Part]:
    sizes = [shape[0] for shape in rule.foreign_shapes]
    return [(sum(sizes[:k]), size) for k, size in enumerate(sizes)]


def _reordered(rule: Rule, up: Tensor, way: Literal["in", "out"]) -> Tensor:
    """Rows of a B in vedere's order or the file's; they differ for InternLM2's grouped query, key and value only."""
    if not isinstance(rule.layout, Grouped):
        return up
    shape = (rule.own_shape[0], up.shape[1])
    return rule.layout.join([up], shape) if way == "in" else rule.layout.split(up, [shape])[0]


def _low_of(target: _Target, kind: str) -> LowRank | None:
    if kind == "lora":
        linear = target.linear
        return linear.low if isinstance(linear, LoRALinear) else None
    partial = getattr(target.experts, "partial", None)
    if partial is None or target.leaf not in partial:
        return None
    low: LowRank = partial[target.leaf]
    return low


def _lows(model: nn.Module, kind: str) -> Iterator[LowRank]:
    wrapped = {id(linear.low) for _, _, linear in _wrapped(model)}
    for module in model.modules():
        if isinstance(module, LowRank) and (id(module) in wrapped) == (kind == "lora"):
            yield module


def _wrapped(model: nn.Module) -> Iterator[tuple[nn.Module, str, LoRALinear]]:
    for parent in model.modules():
        for leaf, child in parent.named_children():
            if isinstance(child, LoRALinear):
                yield parent, leaf, child


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a folder of an adapter, {CONFIG} and {WEIGHTS}"
        ) from None
    unknown = {name: config.get(name) for name in _VARIANTS if config.get(name)}
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASES):
        unknown["init_lora_weights"] = start
    if config.get("peft_type") not in ("LORA", _PARTIAL_TYPE) or unknown or config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{path}: peft_type {config.get('peft_type')!r}, bias {config.get('bias')!r}, {unknown or 'no variants'}; "
            "only plain LoRA is computed here (peft_type LORA, bias none, no variants)"
        )
    if not isinstance(config.get("r"), int) or not isinstance(config.get("lora_alpha"), (int, float)):
        raise CheckpointError(
            f"{path}: r is {config.get('r')!r}, lora_alpha {config.get('lora_alpha')!r}; expected numbers"
        )
    return dict(config)
