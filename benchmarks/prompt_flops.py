"""Matmul FLOP of a prompt, from the shapes of a model."""

from __future__ import annotations

from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig


def first_token_flops(model: InternVLConfig | MonoInternVLConfig, tokens: int, tiles: int) -> float:
    """FLOP until the first token; the last layer computes keys and values for all tokens, the rest for one.

    Args:
        model: Shape.
        tokens: Of the prompt, visual ones included.
        tiles: Of its pictures.
    """
    c, tower = model.decoder, model.vision
    patches = tower.patches if isinstance(tower, InternViTConfig) else tower
    keys, queries = 2 * c.kv_heads * c.head_dim, c.heads * c.head_dim
    attention, ffn = c.hidden_size * (keys + 2 * queries), 3 * c.hidden_size * c.ffn_size
    language = 2.0 * tokens * (c.layers * (attention + ffn) - ffn - c.hidden_size * queries)
    language += 2.0 * c.layers * queries * tokens**2  # causal: half of q k^T and of weights v
    language += 2.0 * c.hidden_size * c.vocab_size
    cells, merged, width = patches.grid**2, patches.tokens_per_tile, patches.width
    wide = width * patches.downsample**2
    tile = 2.0 * (cells * 3 * patches.patch**2 * width + merged * (wide * c.hidden_size + c.hidden_size**2))
    if isinstance(tower, InternViTConfig):
        rows = cells + 1
        block = 2.0 * rows * (4 * width**2 + 2 * width * tower.ffn_size) + 4.0 * rows**2 * width
        tile += tower.layers * block
    return language + tiles * tile
