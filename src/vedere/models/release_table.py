"""docs/releases.md: every release of `vedere.models.releases` with what it needs and costs.

Made from code, so that it cannot say anything else; a test compares the page with `page()`. After a change of the releases:
``python -m vedere.models.release_table > docs/releases.md``.

Memory is that of the weights alone: in bf16 two bytes a parameter. The integer columns are weight-only: the matrices of the
decoder's layers and its head with one byte a weight and a bfloat16 scale a row, or half a byte a weight and four bytes
(scale and zero) for each `GROUP` weights; embedding, norms, biases, tower and projector stay bf16. Nothing is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vedere.models.checkpoints import key_map
from vedere.models.decoder import DecoderConfig
from vedere.models.footprint import kv_bytes_per_token, parameters
from vedere.models.internvl import InternVLConfig
from vedere.models.published import ModelConfig
from vedere.models.releases import RELEASES, VIT_6B, Release
from vedere.models.row_forms import quantised_bytes
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import XComposer2Config

_HEADER = """\
# Releases

Made by `src/vedere/models/release_table.py`; do not edit. Every checkpoint here can be built and loaded by
`vedere chat --model ORG/NAME`, where `ORG/NAME` is the repository on the hub, or its `-hf` form, or a folder of either. None of
the files was at hand when this was written: shapes are checked against printed parameter counts, code against recorded outputs
of small checkpoints ([InternVL](internvl3.md), [Mono-InternVL](mono-internvl.md)). The config.json of the files decides.

Memory is that of the weights in GB (10^9 bytes): bf16 as released, and with the matrices of the language model in the forms
int8 and int4, where a head that is the embedding takes its own memory.
Keys and values come on top (bf16, for 1,000 tokens, in MB), and what `vedere plan PICTURE --model NAME` says of a question.
Context counts positions of question and answer together, twice those of the training where dynamic NTK stretches them.
Licences are notes from the model cards: the card decides.

"""


def weight_bytes(model: ModelConfig, bits: int) -> int:
    """Bytes of all weights.

    Args:
        model: Shape.
        bits: 16 (bfloat16), or 8 or 4 for the matrices of the language model; its adapters and routers stay at 16.
    """
    total = 0
    for name, shape in key_map(model).own_shapes.items():
        matrix = len(shape) > 1 and name.startswith(("decoder.layers.", "decoder.head."))
        if bits < 16 and matrix and not any(part in name for part in (".lora_", ".router.")):
            total += quantised_bytes(math.prod(shape[:-1]), shape[-1], bits)
        else:
            total += 2 * math.prod(shape)
    decoder = model if isinstance(model, DecoderConfig) else model.decoder
    if bits < 16 and decoder.tied_head:
        total += quantised_bytes(decoder.vocab_size, decoder.hidden_size, bits)
    return total


def page(releases: Mapping[str, Release] = RELEASES) -> str:
    """The text of docs/releases.md."""
    columns = ["Name", "Repository", "Parameters", "bf16", "int8", "int4", "KV", "Context", "Tile", "Template"]
    rows = [columns, ["---"] * len(columns)]
    for name, release in releases.items():
        model = release.model
        count = parameters(model)
        active = f" ({_billions(count.active_text)} a token)" if model.decoder.moe_size else ""
        rows.append(
            [
                name,
                release.repository,
                _billions(count.total) + active,
                *(f"{weight_bytes(model, bits) / 1e9:.2f}" for bits in (16, 8, 4)),
                f"{kv_bytes_per_token(model, torch.bfloat16) * 1000 / 1e6:.0f}",
                f"{release.context:,}",
                str(release.tokens_per_tile),
                release.template,
            ]
        )
    more = [["Name", "Tower", "Language model", "Licence", "Note"], ["---"] * 5]
    for name, release in releases.items():
        more.append([name, _tower(release.model), release.language_model, release.licence, release.note])
    return _HEADER + _table(rows) + "\n## What is in them\n\n" + _table(more)


def _tower(model: ModelConfig) -> str:
    if isinstance(model, InternVLConfig):
        return "InternViT-6B" if model.vision == VIT_6B else "InternViT-300M"
    if isinstance(model, XComposer2Config):
        return f"CLIP ViT-L/14, {model.vision.patches.tile} px"
    return "EVA ViT-g and perceive sampler" if isinstance(model, XComposerConfig) else "none"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"


def _table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)


if __name__ == "__main__":
    print(page(), end="")
