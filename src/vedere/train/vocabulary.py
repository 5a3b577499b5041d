"""New tokens of a language model: their rows, as the released training code starts them.

The papers' language models know neither ``<img>`` nor ``<IMG_CONTEXT>``; training adds nine strings (`Template.new_tokens`) at
the ids behind the vocabulary, 92544 to 92552 on InternLM2. The released code (InternVL and Mono-InternVL, arXiv 2410.08202)
resizes both tables to the size of the tokenizer and then overwrites the new rows of the head by the mean of the old ones. What
the resizing itself puts into new rows of the embedding is left to its library: the version that the release names
(transformers 4.37) draws them from N(0, ``initializer_range``), 0.02 in InternLM2 and Qwen2; versions from 4.46 on draw them
next to the mean of the old rows. This is the former, from a generator of its own, so that the rows are a function of the run's
seed alone and nothing else that is drawn moves.

With a tied head both tables are one and the mean is what stays. Where the tables have more rows than the tokenizer has tokens
(Qwen2.5 pads them), new tokens take over rows of the padding as they are, and the rest is cut off: 151,674 rows remain.

What follows for training: in stages that freeze the language model the rows of ``<img>`` and ``</img>`` stay random, as
they do in the released code; the row of ``<IMG_CONTEXT>`` is never read, because features take its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vedere.data.mixture import seed_of
from vedere.models.decoder import DecoderConfig

INITIAL_STD = 0.02  # initializer_range of InternLM2's and Qwen2's config classes


def grow_vocabulary(
    config: DecoderConfig, state: Mapping[str, Tensor], rows: int, new: int, seed: int
) -> tuple[DecoderConfig, dict[str, Tensor]]:
    """A language model whose tables have ``rows`` rows, the last ``new`` of them for new tokens.

    Args:
        config: Its shape.
        state: Its tensors, under the names of `vedere.models.decoder.Decoder`.
        rows: Tokens of the tokenizer, the new ones included.
        new: New tokens.
        seed: Of the run.

    Returns:
        (shape, tensors) with tables of their own; the other tensors are shared.
    """
    embed = state["embed.weight"]
    generator = torch.Generator().manual_seed(seed_of(seed, "vocabulary"))
    drawn = torch.empty(max(0, rows - len(embed)), config.hidden_size).normal_(0.0, INITIAL_STD, generator=generator)
    embed = torch.cat([embed[:rows], drawn.to(embed.dtype)])
    grown = {**state, "embed.weight": embed}
    known = embed if config.tied_head else state["head.weight"]
    mean = known[: rows - new].float().mean(0).to(known.dtype)
    head = torch.cat([known[: rows - new], mean.expand(new, -1)])
    grown["embed.weight" if config.tied_head else "head.weight"] = head
    return replace(config, vocab_size=rows), grown
