"""A new XComposer2 around a language model: CLIP's tower, projector, row end and separator, partial LoRA.

XComposer2 (arXiv 2401.16420, sec. 3.2) and 4KHD (2404.06512, sec. 3.1) start from OpenAI's CLIP ViT-L/14 at 336 px and from
InternLM2-7B; everything between is new: projector and the two vectors random, B of the partial LoRA zero, so that the first
step sees the language model's own answers. The tower is read from a folder as transformers writes it
(``vision_model.*``; the text half is left), or from a whole model of this line. A position table made for other tiles is
interpolated, bicubic, class row kept, as the 490 and 224 px models were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.models.adapters import PartialLoRA
from vedere.models.checkpoints import key_map
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.decoder import DecoderConfig
from vedere.models.low_rank import LowRank
from vedere.models.patches import PatchConfig
from vedere.models.shards import read_tensors
from vedere.models.xcomposer2 import XComposer2, XComposer2Config

_FOREIGN = "vit.vision_tower."
_POSITIONS = f"{_FOREIGN}vision_model.embeddings.position_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class TowerSource:
    """Vision tower of a new model; its width, patch and tile are those of the `ModelSource`.

    Attributes:
        folder: Folder with CLIP's weights; empty: new weights, which have to learn to see first.
        layers: Number of blocks.
        heads: Attention heads.
        ffn_size: Width of the MLP.
        square: One square tile a picture and no merge (XComposer2-VL and -7B) instead of global and local views.
        sampled: Positions of a picture of XComposer, flags included.
    """

    folder: str = ""
    layers: int = 24
    heads: int = 16
    ffn_size: int = 4096
    square: bool = False
    sampled: int = 66


def new_xcomposer2(
    tower: TowerSource,
    partial: PartialLoRA,
    shape: DecoderConfig,
    state: Mapping[str, Tensor],
    width: int,
    patch: int,
    tile: int,
) -> XComposer2:
    """A model whose language half is ``state``.

    Args:
        tower: Where the tower comes from.
        partial: Rank and scale.
        shape: Of the language model.
        state: Its tensors.
        width: C of the tower.
        patch: Side of a patch.
        tile: Side of a view.

    Raises:
        ConfigError: shapes that do not fit together, or a language model that has no place for partial LoRA.
        CheckpointError: a folder that holds another tower.
    """
    patches = PatchConfig(width=width, patch=patch, tile=tile, downsample=1 if tower.square else 2, bias=False)
    config = XComposer2Config(
        vision=ClipViTConfig(patches=patches, layers=tower.layers, heads=tower.heads, ffn_size=tower.ffn_size),
        decoder=replace(shape, partial_rank=partial.rank, partial_alpha=partial.alpha),
        views="square" if tower.square else "hd",
    )
    model = XComposer2(config)
    _, surplus = model.load_state_dict({f"decoder.{name}": tensor for name, tensor in state.items()}, strict=False)
    if surplus:
        raise ConfigError(f"the language model has tensors that XComposer2 lacks: {surplus[:3]}")
    if tower.folder:
        model.load_state_dict(read_tower(Path(tower.folder), config), strict=False)
    return model


def read_tower(folder: Path, config: XComposer2Config) -> dict[str, Tensor]:
    """The tower's tensors under vedere's names, in float32.

    Raises:
        CheckpointError: one is missing, or has another shape.
    """
    rules = [rule for rule in key_map(config, "original").rules if rule.own.startswith("vision.")]
    stored: dict[str, Tensor] = {}
    for name, tensor in read_tensors(folder).items():
        name = name.removeprefix(_FOREIGN)
        if name.startswith("vision_model."):
            stored[_FOREIGN + name] = tensor.float()
    rows = config.vision.patches.grid**2 + 1
    if _POSITIONS in stored and len(stored[_POSITIONS]) != rows:
        stored[_POSITIONS] = resized_positions(stored[_POSITIONS], config.vision.patches.grid)
    found: dict[str, Tensor] = {}
    for rule in rules:
        for name, expected in zip(rule.foreign, rule.foreign_shapes, strict=True):
            given = list(stored[name].shape) if name in stored else "missing"
            if given != list(expected):
                raise CheckpointError(
                    f"{folder}: '{name.removeprefix(_FOREIGN)}' is {given}; expected {list(expected)}: give CLIP's weights, "
                    "and set model.tower and model.patch_width to their shape"
                )
        found[rule.own] = rule.layout.join([stored[name] for name in rule.foreign], rule.own_shape)
    return found


def resized_positions(table: Tensor, grid: int) -> Tensor:
    """A position table ``[1 + g^2, C]`` for ``grid`` x ``grid`` patches, the class row first and unchanged.

    Raises:
        CheckpointError: a table of no square grid.
    """
    side = math.isqrt(max(0, len(table) - 1))
    if side < 1 or side * side + 1 != len(table):
        raise CheckpointError(f"a position table of {len(table)} rows is no class row and a square of patches")
    square = table[1:].view(1, side, side, -1).permute(0, 3, 1, 2)
    wide = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], wide.permute(0, 2, 3, 1).flatten(0, 2)])


def set_dropout(model: XComposer2, dropout: float) -> None:
    """Dropout on the input of every partial LoRA while training; files do not say it.

    Raises:
        ConfigError: outside [0, 1).
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"partial.dropout {dropout}; expected 0 or more, below 1")
    for low in model.decoder.modules():
        if isinstance(low, LowRank):
            low.dropout = dropout
