"""V2PE folders (arXiv 2412.09616; InternVL3, 2504.10479, sec. 2.1): one batch under several deltas.

Positions are made by vedere from the ids and the delta in the tensor's name (``d16`` is 1/16) and compared exactly; logits
and greedy ids use these, not the recorded ones.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vedere.models.positions import document_positions
from vedere.verify.assembly import Assembly, image_blocks
from vedere.verify.check import FEATURES, Check, Recording

_TENSOR = re.compile(r"(position_ids|logits|generated_ids)\.(default|d\d+)")


def checks(directory: Path, folder: Path | None = None) -> Iterator[Check]:
    """Every recorded tensor of a V2PE folder, with its own checkpoint or the one in ``folder``.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read.
    """
    recording = Recording(directory)
    run = Assembly(recording, folder)
    yield from run.features_check("projected_features", lambda: run.features)
    found = [match for match in map(_TENSOR.fullmatch, recording.tensors) if match]
    order = {"position_ids": 0, "logits": 1, "generated_ids": 2}
    for match in sorted(found, key=lambda m: (delta_of(m[2]) < 1, -delta_of(m[2]), order[m[1]])):
        yield _check(run, match[0], match[1], delta_of(match[2]))
    yield from recording.rest()


def delta_of(suffix: str) -> float:
    """``d16`` is 1/16, ``default`` is 1: plain positions."""
    return 1.0 if suffix == "default" else 1 / max(1, int(suffix[1:]))


def positions_of(ids_T: Tensor, delta: float) -> Tensor:
    """Positions of one document whose images all have this delta."""
    blocks = image_blocks(ids_T)
    return document_positions(len(ids_T), blocks, [delta] * len(blocks))


def _check(run: Assembly, name: str, what: str, delta: float) -> Check:
    recording = run.recording
    if what == "position_ids":
        return recording.compare(
            name, lambda: _positions(run, delta), "mismatches", select=lambda recorded: recorded[run.batch.mask]
        )
    if what == "logits":
        return recording.compare(
            name, lambda: _logits(run, delta), "absolute", FEATURES, lambda recorded: recorded[run.batch.mask]
        )
    return recording.compare(name, lambda: _generated(run, delta, recording.tensors[name].shape[-1]), "mismatches")


def _positions(run: Assembly, delta: float) -> Tensor:
    """Positions of all rows of the batch, each counted from 0, ``[T]``."""
    pairs = itertools.pairwise(run.batch.borders)
    return torch.cat([positions_of(run.batch.ids[start:end], delta) for start, end in pairs])


def _logits(run: Assembly, delta: float) -> Tensor:
    batch = run.batch
    embeds = run.model.place(batch.ids, batch.span_types, run.shown)
    hidden = run.model.decoder(embeds, _positions(run, delta), batch.borders, batch.span_types)
    return run.model.decoder.logits(hidden)


def _generated(run: Assembly, delta: float, new: int) -> Tensor:
    """Greedy ids after every whole row, ``[B, new]``."""
    batch, rows, used = run.batch, [], 0
    for start, end in itertools.pairwise(batch.borders):
        ids = batch.ids[start:end]
        tiles = int((batch.span_types[start:end] != 0).sum()) // run.features.shape[1]
        pixels = run.shown_pixels[used : used + tiles] if tiles else None
        used += tiles
        rows.append(run.generate(ids, positions_of(ids, delta), pixels, new))
    return torch.stack(rows)
