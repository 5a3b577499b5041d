"""Held-out loss and exact answers, by teacher forcing.

Greedy decoding gives exactly the target answer if and only if every target token is the argmax given the true tokens before
it. So one forward pass a pack measures what greedy generation would score by exact match, without generating: cheap enough
to run during training.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vedere.data.loader import Loader, LoaderConfig, Prepare
from vedere.data.mixture import Part
from vedere.data.packing import PackLimits
from vedere.models.vision_language import VisionLanguageModel
from vedere.train.batch import make_batch
from vedere.train.losses import chunked_cross_entropy
from vedere.train.stages import StageConfig


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Result of one data set.

    Attributes:
        loss: Mean cross-entropy of a target token.
        exact: Share of samples whose every target token is the argmax.
        samples: Samples measured.
    """

    loss: float
    exact: float
    samples: int


@torch.no_grad()
def held_out(
    model: VisionLanguageModel,
    parts: Sequence[Part],
    prepare: Prepare,
    stage: StageConfig,
    limit: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> dict[str, HeldOut]:
    """Measures every data set.

    Args:
        model: The model.
        parts: Held-out data sets.
        prepare: As in training.
        stage: Pack sizes and positions.
        limit: Most samples of a data set (its first ones); None: all.
        on_error: What to do with a bad sample; a skipped one is missing in the count.

    Returns:
        Results by data set.
    """
    results = {}
    for part in parts:
        size = len(part.records)
        share = min(1.0, (limit or size) / size)
        limits = PackLimits(tokens=stage.pack_tokens, tiles=stage.pack_tiles)
        config = LoaderConfig(shuffle=False, epochs=1, limits=limits, on_error=on_error)
        subset = Part(name=part.name, records=part.records, repeat=share)
        loss, tokens, exact, samples = 0.0, 0, 0, 0
        for loaded in Loader(config, [subset], prepare):
            batch = make_batch(loaded.pack, stage, model, random.Random(0))
            hidden = model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels)[batch.rows]
            head = model.decoder.head_weight.detach()  # a head that learns would get its gradient made here
            ones = torch.ones_like(batch.weights)
            loss += float(chunked_cross_entropy(hidden, head, batch.targets, ones))
            hit = torch.cat([model.decoder.logits(rows).argmax(-1) for rows in hidden.split(1024)]) == batch.targets
            document = torch.bucketize(batch.rows, torch.tensor(batch.borders, device=hidden.device), right=True) - 1
            missed = set(document[~hit].tolist())
            tokens += len(batch.targets)
            samples += len(batch.names)
            exact += sum(number not in missed for number, _ in enumerate(itertools.pairwise(batch.borders)))
        results[part.name] = HeldOut(loss=loss / max(1, tokens), exact=exact / max(1, samples), samples=samples)
    return results
