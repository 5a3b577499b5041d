"""A pack on its way into the model: tensors, positions, targets and loss weights.

Axes: T tokens, M target rows, N tiles, S side of a tile.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vedere.data.packing import Pack
from vedere.errors import TrainingError
from vedere.models.positions import document_positions, v2pe_deltas
from vedere.models.vision_language import VisionLanguageModel
from vedere.train.losses import loss_weights, next_token_targets
from vedere.train.stages import StageConfig
from vedere.vision.hd import tower_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One forward pass of training.

    Attributes:
        ids: ``[T]``.
        positions: ``[T]``, fractional under V2PE.
        borders: Cumulative document borders, host integers.
        span_types: ``[T]``.
        pixels: What the model encodes: normalised tiles and global views, ``[N, 3, S, S]``.
        rows: Rows that predict a target, ``[M]``.
        targets: ``[M]``.
        weights: float32 ``[M]``.
        names: Samples of the pack.
    """

    ids: Tensor
    positions: Tensor
    borders: list[int]
    span_types: Tensor
    pixels: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    names: tuple[str, ...]


def pack_positions(pack: Pack, stage: StageConfig, rng: random.Random) -> Tensor:
    """Positions of all documents of a pack, each from 0, ``[T]``."""
    if stage.position_mode == "default":
        lengths = torch.from_numpy(np.diff(pack.segments).astype(np.int64))
        starts = torch.from_numpy(pack.segments[:-1].astype(np.int64))
        return torch.arange(int(pack.segments[-1])) - torch.repeat_interleave(starts, lengths)
    parts = []
    for start, end in itertools.pairwise(pack.segments.tolist()):
        blocks = _blocks([(s.media, s.frame, s.start - start, s.length) for s in pack.spans if start <= s.start < end])
        deltas = v2pe_deltas(stage.position_mode, len(blocks), stage.v2pe_delta, rng)
        parts.append(document_positions(end - start, blocks, deltas).float())
    return torch.cat(parts)


def _blocks(spans: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    """Joins the spans of one picture or frame into the block between its image markers."""
    blocks: list[tuple[int, int]] = []
    for _, members in itertools.groupby(spans, key=lambda span: span[:2]):
        group = list(members)
        blocks.append((group[0][2], group[-1][2] + group[-1][3] - group[0][2]))
    return blocks


def make_batch(pack: Pack, stage: StageConfig, model: VisionLanguageModel, rng: random.Random) -> Batch:
    """Turns a pack into tensors.

    Args:
        pack: From the loader.
        stage: Averaging and positions.
        model: What it is for: says device and dtype, and how pixels are normalised.
        rng: Draws the deltas of ``v2pe_rnd``.

    Raises:
        TrainingError: the pack has no target, so its loss would silently be zero.
    """
    borders = pack.segments.tolist()
    labels = torch.from_numpy(pack.labels)
    rows, targets = next_token_targets(labels, borders)
    if not len(rows):
        raise TrainingError(f"a pack without any trained token (samples {', '.join(pack.names[:5])}); check its labels")
    weights = loss_weights(labels, borders, stage.averaging, torch.from_numpy(pack.weights))[rows + 1]
    device = model.device
    tiles = torch.from_numpy(pack.tiles).to(device)
    return Batch(
        ids=torch.from_numpy(pack.ids).to(device),
        positions=pack_positions(pack, stage, rng).to(device),
        borders=borders,
        span_types=torch.from_numpy(pack.span_types).to(device),
        pixels=tower_inputs(tiles, pack.grids, model.statistics).to(model.dtype),
        rows=rows.to(device),
        targets=targets.to(device),
        weights=weights.to(device),
        names=pack.names,
    )


def without_tails(batch: Batch) -> Batch:
    """The batch without what stands behind the last predicting row of each document.

    Attention is causal, so those tokens (at least the last one of every document) change no loss and no gradient. A document
    without targets, or with a picture in its tail, is left whole.
    """
    rows, visual = batch.rows.cpu(), (batch.span_types != 0).cpu()
    borders = torch.tensor(batch.borders)
    ends = borders[1:].clone()
    owner = torch.bucketize(rows, borders, right=True) - 1
    last = torch.zeros_like(ends).scatter_reduce(0, owner, rows + 1, "amax", include_self=False)
    for document in owner.unique().tolist():
        end = int(last[document])
        if not visual[end : batch.borders[document + 1]].any():
            ends[document] = end
    cut = borders[1:] - ends
    if not cut.any():
        return batch
    keep = torch.cat([torch.arange(start, end) for start, end in zip(batch.borders, ends.tolist(), strict=False)])
    before = torch.cat([cut.new_zeros(1), cut.cumsum(0)])  # tokens that are cut before each document
    index = keep.to(batch.ids.device)
    return replace(
        batch,
        ids=batch.ids[index],
        positions=batch.positions[index],
        borders=(borders - before).tolist(),
        span_types=batch.span_types[index],
        rows=(rows - before[owner]).to(batch.rows.device),
    )
