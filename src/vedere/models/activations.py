"""Memory of a pass beside weights and cache, from shapes alone.

Two estimates, in bytes; b is the size of a value, n tokens of a pass, T tokens of the prompt or pack, L tokens of a document,
A = H d and K' = K d the widths of queries and keys.

**Answering** (`prefill_bytes`): the engine feeds a prompt in chunks of n tokens. Three moments compete:

* encoding N tiles of side S: 8-bit pixels became float32 and were cast and cut into patches, ``N 3 S^2 (4 + 2 b)`` (for
  float32 the cast is free: ``4 + b``), beside what comes out of the patches; with a tower of width C, its widest block,
  ``N (P + 1) (2 C + 2 F_v) b``;
  (XComposer2 encodes 16 views at a time and keeps their merged maps, then holds the maps four times over while they are put
  together);
* the mask of a chunk over m cached tokens while it is made, ``6 n m``; in bfloat16 no mask is made but the scores of up to n
  queries, ``H n m b``, in steps of 8 MB;
* the feed-forward of a chunk, ``n (4 D + 4 F + 2 d) b + n m b``: the residual, what it was made from and the norm of it, gate
  and up, the activated gate, their product; the mask stays.

The embedded prompt, ``T D b``, is there in all of them.

**Training** (`training_bytes`): what autograd keeps of a layer for a token,

* each norm: its normalised input, ``D b + 4``; its output too where a map behind it learns, ``D b``;
* attention: queries, keys, values; up to 512 tokens a document the weights ``H L b``, beyond it the output and 4 bytes a head;
  the input of the output map, ``A b``, if that learns;
* feed-forward: gate, up, activated gate, ``3 F b``; the product, ``F b``, if the down map learns.

Then final norm, features (cut patches, projector), and the gradients of the target rows and, where it learns, of the head
(``V D`` float32). With recomputed layers a layer keeps its input, ``D b``, and one whole layer exists at a time. Documents
are taken as equally long: padding of a stack (up to a third of attention's share) and the working memory of single operations
are not counted.

A test measures both on a small model; they agree within 15 %.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

import torch

from vedere.models.attention import EXPLICIT_LIMIT
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.decoder import DecoderConfig
from vedere.models.full_scores import FEWEST, step_size
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.published import ModelConfig
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import TOGETHER, XComposer2Config

Learns = Callable[[str], bool]


def _inside(model: ModelConfig) -> tuple[DecoderConfig, PatchConfig | None, InternViTConfig | ClipViTConfig | None]:
    if isinstance(model, MonoInternVLConfig):
        return model.decoder, model.vision, None
    if isinstance(model, (InternVLConfig, XComposer2Config)):
        return model.decoder, model.vision.patches, model.vision
    if isinstance(
        model, XComposerConfig
    ):  # a tower of the same shape; the sampler after it is smaller than one block of it
        eva = model.vision
        tower = InternViTConfig(patches=eva.patches, layers=eva.layers, heads=eva.heads, ffn_size=eva.ffn_size)
        return model.decoder, eva.patches, tower
    return model, None, None


def prefill_bytes(model: ModelConfig, *, dtype: torch.dtype, prompt: int, tiles: int = 0, chunk: int = 512) -> int:
    """Most that the pass over a prompt holds at once beside weights, keys and values.

    Args:
        model: Shape.
        dtype: Of weights and activations.
        prompt: Prompt tokens, visual ones included.
        tiles: Tiles of all pictures.
        chunk: Most prompt tokens of a pass.
    """
    decoder, patches, tower = _inside(model)
    b, n = dtype.itemsize, min(chunk, prompt)
    embedded = prompt * decoder.hidden_size * b
    mask = n * prompt if prompt > chunk else 0  # the first chunk of a prompt is plainly causal
    ffn = (
        n * (4 * decoder.hidden_size + 4 * decoder.ffn_size * max(1, decoder.moe_active) + 2 * decoder.head_dim) * b
        + mask * b
        + embedded
    )
    masking = 6 * mask + embedded + n * decoder.hidden_size * b
    head = decoder.vocab_size * (4 + b) + embedded
    scores = 0
    if b == 2 and n >= FEWEST:  # as `vedere.models.full_scores` does on a CPU, without a mask
        queries, keys = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
        group = decoder.heads // decoder.kv_heads
        together, run = step_size(decoder.kv_heads, group, n, prompt)
        scores = run * (together * group * prompt * b + run * (1 + b))
        scores += n * (2 * decoder.hidden_size + 4 * queries + 4 * keys) * b + embedded
        ffn, masking = ffn - mask * b, 0
    seen = (
        _viewing(model, tiles, b, prompt)
        if isinstance(model, XComposer2Config)
        else _encoding(patches, tower, tiles, b)
    )
    return max(ffn, masking, head, scores, seen)


def _viewing(model: XComposer2Config, views: int, b: int, prompt: int) -> int:
    """4KHD's two moments: a group of views in the tower, and the sequence of merged maps being put together."""
    patches = model.vision.patches
    values, cells, together = 3 * patches.tile**2, patches.grid**2, min(views, TOGETHER)
    pixels = views * values * (4 + (b if b != 4 else 0))
    merged = views * cells * patches.width * b
    block = (
        together * (cells + 1) * (2 * patches.width + 3 * model.vision.ffn_size) * b
    )  # x sigmoid(1.702 x): three of x
    return max(pixels + merged + block, pixels + 4 * merged, views * values * 8) if views else 0


def _encoding(patches: PatchConfig | None, tower: InternViTConfig | ClipViTConfig | None, tiles: int, b: int) -> int:
    if patches is None or not tiles:
        return 0
    values, cells = 3 * patches.tile**2, patches.grid**2
    pixels = values * (4 + (b if b != 4 else 0))
    each = pixels + values * b + cells * patches.width * b
    if tower is not None:
        each = max(each, pixels + (cells + 1) * (2 * patches.width + 2 * tower.ffn_size) * b)
    return tiles * each


def training_bytes(
    model: ModelConfig,
    *,
    dtype: torch.dtype,
    trains: Sequence[str],
    tokens: int,
    tiles: int,
    document: int,
    targets: int | None = None,
    checkpoint_layers: bool = False,
) -> int:
    """What a training pass keeps for its backward pass.

    Args:
        model: Shape.
        dtype: Of weights and activations.
        trains: Patterns over parameter names: what learns decides which inputs are kept.
        tokens: Tokens of the pack, visual ones included.
        tiles: Tiles of the pack.
        document: Tokens of a document.
        targets: Rows that predict something; None: all text rows.
        checkpoint_layers: Whether layers are recomputed in the backward pass.
    """

    def learns(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in trains)

    decoder, patches, tower = _inside(model)
    b = dtype.itemsize
    visual = tiles * patches.tokens_per_tile if patches else 0
    layer = _layer(decoder, learns, tokens, visual, document, b)
    kept = decoder.layers * layer
    if checkpoint_layers:
        kept = decoder.layers * tokens * decoder.hidden_size * b + layer
    tables = tokens * (2 * decoder.head_dim * b + 4 * 8)  # cosine, sine, and the orders of rows
    rows = tokens - visual if targets is None else targets
    last = tokens * (decoder.hidden_size * b + 4) + rows * (decoder.hidden_size * b + 8)
    if learns("decoder.embed.weight" if decoder.tied_head else "decoder.head.weight"):
        last += decoder.vocab_size * decoder.hidden_size * 4
    again = checkpoint_layers and isinstance(tower, ClipViTConfig)  # the other towers do not recompute
    return kept + tables + last + _features(patches, tower, decoder.hidden_size, learns, tiles, b, again)


def _layer(config: DecoderConfig, learns: Learns, tokens: int, visual: int, document: int, b: int) -> int:
    """Bytes that one decoder layer keeps of a pack."""
    width, queries, keys = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim

    def share(brick: str, own: bool, suffix: str) -> int:
        """Tokens whose map ``suffix`` learns."""
        found = tokens - visual if learns(f"decoder.layers.0.{brick}.text.{suffix}.weight") else 0
        partial = config.partial_rank > 0 and learns(f"decoder.layers.0.{brick}.partial.{suffix}.lora_A")
        seen = learns(f"decoder.layers.0.{brick}.{'visual' if own else 'text'}.{suffix}.weight")
        return found + (visual if seen or partial else 0)

    kept = 2 * tokens * (width * b + 4)
    for brick, own, first in (("attention", config.visual_attention, "qkv"), ("ffn", config.visual_ffn, "gate_up")):
        if share(brick, own, first):  # the experts read slices of one norm, which is kept whole
            kept += tokens * width * b
    kept += tokens * (queries + 2 * keys) * b
    if document <= EXPLICIT_LIMIT:
        kept += tokens * config.heads * document * b
    else:
        kept += tokens * (queries * b + 4 * config.heads)
    kept += tokens * queries * b if share("attention", config.visual_attention, "out") else 0
    if config.partial_rank and learns("decoder.layers.0.attention.partial.qkv.lora_B"):
        kept += 5 * visual * config.partial_rank * b  # the narrow middles of five maps
    return (
        kept + (3 * tokens + share("ffn", config.visual_ffn, "down")) * config.ffn_size * max(1, config.moe_active) * b
    )


def _features(
    patches: PatchConfig | None,
    tower: InternViTConfig | ClipViTConfig | None,
    width: int,
    learns: Learns,
    tiles: int,
    b: int,
    checkpoint_layers: bool,
) -> int:
    """Bytes that patches, tower and projector keep."""
    if patches is None or not tiles:
        return 0
    cells, channels = patches.grid**2, patches.width
    first = learns("vision.patch.weight")
    inside = tower is not None and any(
        learns(f"vision.layers.0.{name}.weight") for name in ("ffn.fc1", "attention.qkv")
    )
    projected = learns("projector.fc1.weight")
    each = cells * 3 * patches.patch**2 * b if first else 0
    if tower is not None and (first or inside):
        layers, block = (tower.depth if isinstance(tower, InternViTConfig) else tower.layers), _block(tower, learns, b)
        each += layers * (cells + 1) * channels * b + block if checkpoint_layers else layers * block
    if first or inside or projected or learns("projector.norm.weight"):
        merged = patches.tokens_per_tile
        unshuffled = channels * patches.downsample**2
        each += merged * (unshuffled * b + 8 + width * b)  # input of the norm, its statistics, input of the GELU
        each += merged * (unshuffled + width) * b if projected else 0
    return tiles * each


def _block(tower: InternViTConfig | ClipViTConfig, learns: Learns, b: int) -> int:
    """Bytes that one tower block keeps of a tile."""
    channels, ffn = tower.patches.width, tower.ffn_size
    values = (
        2 * channels
        + 4 * channels
        + ffn
        + (2 * channels if isinstance(tower, InternViTConfig) and tower.qk_norm else 0)
    )
    for name, kept in (
        ("attention.qkv.weight", channels),
        ("attention.out.weight", channels),
        ("ffn.fc1.weight", channels),
        ("ffn.fc2.weight", ffn),
        ("scale1", channels),
        ("scale2", channels),
    ):
        values += kept if learns(f"vision.layers.0.{name}") else 0
    return (tower.patches.grid**2 + 1) * (values * b + 16 + 4 * tower.heads)
