"""Tensor names of the native transformers layout (`InternVLForConditionalGeneration`), both generations.

The layout stores what the original folders of InternVL store (arXiv 2504.10479), under other names and with every fused
projection split: the tower's qkv into thirds of its rows, InternLM2's wqkv into query, key and value of Llama. So the map is
made from the original one: the same rules, renamed by `_OUTSIDE` and `_BLOCK`, with `Stacked` where one name became three.

Generations: ``old`` is what hubs hold and what transformers 5.23 still writes (``vision_tower.``, ``language_model.model.``,
``language_model.lm_head.``); ``new`` are its names in memory (``model.vision_tower.``, ``model.language_model.``,
``lm_head.``), which files of some versions carry. A folder with both is two checkpoints in one and is refused. With
its names in memory transformers can also write the experts of a mixture as it has them there: one ``gate_up_proj`` and one
``down_proj`` for all.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Literal

from vedere.errors import CheckpointError
from vedere.models import keymaps
from vedere.models.internvl import InternVLConfig
from vedere.models.key_rules import KeyMap, Rule, Same, Stacked

Generation = Literal["old", "new"]

_OUTSIDE = {
    "vision_model.embeddings.class_embedding": "vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": "vision_tower.embeddings.patch_embeddings.projection",
    "vision_model.layernorm": "vision_tower.layernorm",  # of this layout only
    "mlp1.0": "multi_modal_projector.layer_norm",
    "mlp1.1": "multi_modal_projector.linear_1",
    "mlp1.3": "multi_modal_projector.linear_2",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "attn.proj": "attention.projection_layer",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_QKV = "attn.qkv"
_PARTS = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
_EXPERT = re.compile(r"\.mlp\.experts\.\d+\..+")
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_OLD_TEXT, _NEW_TEXT = "language_model.model.", "model.language_model."


def generation(names: Collection[str], where: str = "the checkpoint") -> Generation:
    """Which generation of names a folder carries; ``old`` where nothing tells.

    Raises:
        CheckpointError: names of both.
    """
    new = [name for name in names if name.startswith(("model.", "lm_head."))]
    old = [name for name in names if name.startswith(("vision_tower.", "multi_modal_projector.", "language_model."))]
    if new and old:
        raise CheckpointError(
            f"{where} mixes both generations of native names: '{old[0]}' ({len(old)} such tensors) and '{new[0]}' "
            f"({len(new)}); expected one of them. Shards of two checkpoints lie in one folder: download it again into an "
            "empty one"
        )
    return "new" if new else "old"


def has_joint_experts(names: Collection[str]) -> bool:
    """Whether a folder has the experts of a mixture in one tensor."""
    return any(name.endswith((".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")) for name in names)


def key_map(config: InternVLConfig, names: Generation = "old", joint: bool = False) -> KeyMap:
    """The map of a native folder.

    Args:
        config: Shape.
        names: Generation.
        joint: The experts of a mixture are one tensor.
    """
    prefix = "model." if names == "new" else ""
    rules = tuple(_renamed(rule, prefix) for rule in keymaps.internvl(config, keymaps.LLAMA).rules)
    if joint:
        rules = tuple(_joint(rule) for rule in rules)
    return KeyMap(f"internvl-hf ({names} names)", rules)


def _renamed(rule: Rule, prefix: str) -> Rule:
    """A rule with native names; the tower's qkv is split in three on the way."""
    layer = _LAYER.fullmatch(rule.foreign[0])
    if layer is None:
        return dataclasses.replace(rule, foreign=tuple(_native(name, prefix) for name in rule.foreign))
    place, inner = f"{prefix}vision_tower.encoder.layer.{layer[1]}.", layer[2]
    if not inner.startswith(_QKV):
        return dataclasses.replace(rule, foreign=(place + _replaced(inner, _BLOCK),))
    rows, *tail = rule.own_shape
    names = tuple(place + part + inner.removeprefix(_QKV) for part in _PARTS)
    return Rule(rule.own, rule.own_shape, names, ((rows // 3, *tail),) * 3, Stacked())


def _joint(rule: Rule) -> Rule:
    """The experts' rule with one tensor in the file, arranged as vedere has it; any other as it is."""
    place, found = _EXPERT.subn(".mlp.experts.", rule.foreign[0])
    if not found:
        return rule
    return Rule(rule.own, rule.own_shape, (f"{place}{rule.own.rpartition('.')[2]}_proj",), (rule.own_shape,), Same())


def _native(name: str, prefix: str) -> str:
    """The name of a tensor outside the tower's blocks; the old generation keeps those of the language model."""
    if not name.startswith("language_model."):
        return prefix + _replaced(name, _OUTSIDE)
    if not prefix:
        return name
    return name.removeprefix("language_model.") if ".lm_head." in name else _NEW_TEXT + name.removeprefix(_OLD_TEXT)


def _replaced(name: str, table: dict[str, str]) -> str:
    """The name with its beginning replaced; every name that the original rules make has one."""
    begin = next(begin for begin in table if name == begin or name.startswith(begin + "."))
    return table[begin] + name.removeprefix(begin)
