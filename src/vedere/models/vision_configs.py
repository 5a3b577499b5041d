"""Vision towers as the two InternVL dialects write them: one reader, one writer, a table of what the fields are called.

The released ``internvl_chat`` configs and the native ones of transformers describe the same InternViT (arXiv 2504.10479, table
1) by other names, and an absent field takes the default of either config class: the released one's are those of InternViT-6B,
the native one's those of InternViT-300M. Both ViTs carry the same ``model_type`` in released folders, so the fields decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vedere.models.config_fields import MOST_LAYERS, Fields
from vedere.models.intern_vit import InternViTConfig
from vedere.models.patches import PatchConfig


@dataclass(frozen=True, kw_only=True)
class TowerFields:
    """Names and defaults of one dialect.

    Attributes:
        select: Top-level field of the hidden state that the features are.
        qkv_bias: Switch of the biases on q, k, v; absent: off, in both.
        qk_norm: Switch of the norms of q and k.
        qk_normed: Its default.
        layers: Default of ``num_hidden_layers``.
        heads: Default of ``num_attention_heads``.
        ffn_size: Default of ``intermediate_size``.
        norm: Default of ``norm_type``.
    """

    select: str
    qkv_bias: str
    qk_norm: str
    qk_normed: bool
    layers: int
    heads: int
    ffn_size: int
    norm: str


ORIGINAL = TowerFields(
    select="select_layer",
    qkv_bias="qkv_bias",
    qk_norm="qk_normalization",
    qk_normed=True,
    layers=48,
    heads=25,
    ffn_size=12800,
    norm="rms_norm",
)
NATIVE = TowerFields(
    select="vision_feature_layer",
    qkv_bias="attention_bias",
    qk_norm="use_qk_norm",
    qk_normed=False,
    layers=24,
    heads=16,
    ffn_size=4096,
    norm="layer_norm",
)


def read_downsample(top: Fields) -> int:
    """The side of the unshuffled block, 1 / ``downsample_ratio``."""
    ratio = top.number("downsample_ratio", 0.5)
    if ratio > 1 or (1 / ratio) % 1:
        raise top.fail("downsample_ratio", "1 divided by a whole number")
    return round(1 / ratio)


def read_tower(top: Fields, vision: Fields, patches: PatchConfig, names: TowerFields) -> InternViTConfig:
    """The tower that a config describes.

    Args:
        top: The whole config.
        vision: Its ``vision_config``.
        patches: The patch embedding, which the dialects write too differently to share.
        names: Dialect.

    Raises:
        CheckpointError: a field that is missing, unusable, or asks for what InternViT does not have.
    """
    vision.only("hidden_act", ["gelu"], "gelu")
    layers = vision.size("num_hidden_layers", names.layers, MOST_LAYERS)
    select = top.data.get(names.select, -1)
    if not isinstance(select, int) or isinstance(select, bool) or not -layers - 1 <= select <= layers:
        raise top.fail(names.select, f"an integer from {-layers - 1} to {layers}")
    heads = vision.size("num_attention_heads", names.heads)
    if patches.width % heads:
        raise vision.fail("num_attention_heads", f"a divisor of hidden_size {patches.width}")
    return InternViTConfig(
        patches=patches,
        layers=layers,
        heads=heads,
        ffn_size=vision.size("intermediate_size", names.ffn_size),
        norm=vision.only("norm_type", ["layer_norm", "rms_norm"], names.norm),
        norm_eps=vision.number("layer_norm_eps", 1e-6, most=1.0),
        qkv_bias=vision.flag(names.qkv_bias, False),
        qk_norm=vision.flag(names.qk_norm, names.qk_normed),
        select_layer=select,
    )


def tower_fields(tower: InternViTConfig, names: TowerFields) -> dict[str, Any]:
    """The ``vision_config`` fields of a tower beside those of its patch embedding."""
    return {
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "intermediate_size": tower.ffn_size,
        "norm_type": tower.norm,
        "layer_norm_eps": tower.norm_eps,
        names.qkv_bias: tower.qkv_bias,
        names.qk_norm: tower.qk_norm,
        "hidden_act": "gelu",
    }
