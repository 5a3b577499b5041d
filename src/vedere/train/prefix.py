"""The beginning that all documents of a pack share, computed once.

Every sample about a picture opens with the same few text tokens (turn header and image marker). While all text parameters
are frozen, as in every stage of delta tuning (arXiv 2410.08202, sec. 3.3) that leaves shared attention alone, these
tokens depend on nothing that learns: their keys and values are constants, and no gradient passes through them. So they are
computed once a run and served to every document like a cache, which saves their share of a step (a tenth at 40 tokens a
sample).

Documents are then attended as one stack, which pays only where their lengths are alike; skewed packs are left as they are.

Axes: S documents, K key-value heads, P prefix tokens, N new tokens, d head width.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from vedere.models.decoder import Decoder
from vedere.train.batch import Batch

KEPT = 8  # prefixes remembered; a pack of one text-only document is a prefix of its own, and there are many such
LENGTH_SKEW = 1.6  # longest document over the mean one, above which padding costs more than the prefix saves


class PrefixCache:
    """Constant keys and values in front of every document; a `vedere.models.attention.KeyValueCache`.

    Args:
        keys: One ``[1, K, P, d]`` a layer.
        values: Likewise.
        documents: Documents S of the pass.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], documents: int) -> None:
        self.keys, self.values, self.documents = keys, values, documents

    def past(self) -> Sequence[int]:
        """The prefix length for each document."""
        return [self.keys[0].shape[2] if self.keys else 0] * self.documents

    def constants(self, layer: int) -> tuple[Tensor, Tensor]:
        """``[1, K, P, d]`` each."""
        return self.keys[layer], self.values[layer]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """``[S, K, N, d]`` to ``[S, K, P + N, d]``; nothing is stored."""
        size = (len(keys), -1, -1, -1)
        return (
            torch.cat([self.keys[layer].expand(size), keys], dim=2),
            torch.cat([self.values[layer].expand(size), values], dim=2),
        )


class _Recorder(PrefixCache):
    """Remembers the keys and values of one document."""

    def __init__(self) -> None:
        super().__init__([], [], 1)

    def past(self) -> Sequence[int]:
        return [0]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys.append(keys)
        self.values.append(values)
        return keys, values


class SharedPrefix:
    """Strips the common beginning off batches and supplies its keys and values.

    Args:
        decoder: A decoder whose text parameters are all frozen.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.known: dict[tuple[int, ...], _Recorder] = {}

    def strip(self, batch: Batch) -> tuple[Batch, PrefixCache | None]:
        """A batch without its common beginning, and the cache that stands for it (None where it does not pay)."""
        lengths = [end - start for start, end in itertools.pairwise(batch.borders)]
        starts = torch.tensor(batch.borders[:-1], device=batch.ids.device)
        size = self._common(batch, starts, min(lengths))
        if size == 0 or max(lengths) > LENGTH_SKEW * sum(lengths) / len(lengths):
            return batch, None
        ids = tuple(batch.ids[:size].tolist())
        constant = self.known.pop(ids, None) or self._compute(batch.ids[:size], batch.positions[:size])
        self.known[ids] = constant  # the one used last stands last
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        keep = torch.ones(len(batch.ids), dtype=torch.bool, device=batch.ids.device)
        keep[(starts[:, None] + torch.arange(size, device=starts.device)).flatten()] = False
        document = torch.bucketize(batch.rows, torch.tensor(batch.borders, device=starts.device), right=True)
        stripped = dataclasses.replace(
            batch,
            ids=batch.ids[keep],
            positions=batch.positions[keep],
            borders=[border - size * number for number, border in enumerate(batch.borders)],
            span_types=batch.span_types[keep],
            rows=batch.rows - size * document,
        )
        return stripped, PrefixCache(constant.keys, constant.values, len(lengths))

    def _common(self, batch: Batch, starts: Tensor, shortest: int) -> int:
        """Length of the text that all documents begin with, before any picture and any target."""
        row_predicts = torch.zeros(len(batch.ids), dtype=torch.bool, device=batch.ids.device)
        row_predicts[batch.rows] = True
        for place in range(shortest):
            at = starts + place
            ids = batch.ids[at]
            if bool((ids != ids[0]).any() | (batch.span_types[at] != 0).any() | row_predicts[at].any()):
                return place
        return 0

    @torch.no_grad()
    def _compute(self, ids: Tensor, positions: Tensor) -> _Recorder:
        recorder = _Recorder()
        self.decoder(self.decoder.embed(ids), positions, [0, len(ids)], None, cache=recorder)
        return recorder
