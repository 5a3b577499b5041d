"""Keys and values of the answers in progress.

One pair of tensors a layer, ``[slots, K, capacity, d]``: a slot is a request, and the active slots stand together at the front,
so that a step over slots ``a .. b`` attends a *view* of the storage; nothing is gathered or copied to decode. When a request
ends, another one moves into its slot. Capacity and slots grow by doubling, up to a limit.

Keys are stored rotated by their absolute positions, which may be fractional (V2PE, arXiv 2504.10479, sec. 2.1): the cache
counts tokens, positions are the engine's business. Storage is zeroed, and zeroed again when a slot is given up: what masked
attention reads beyond the end of a slot is multiplied by 0, and 0 x NaN of an earlier occupant would not be 0.

Memory: ``2 x layers x slots x K x capacity x d`` values; 23 kB a token for SmolLM2 in bfloat16.

Axes: S slots of a pass, K key-value heads, N new tokens (padded at the end), M all tokens so far, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vedere.models.decoder import DecoderConfig

_BLOCK = 64  # capacities are multiples of this


class Window:
    """The cache as one forward pass sees it: a run of slots and how many tokens each gets. A `KeyValueCache`.

    Made by `Cache.window`; `Cache.commit` counts its tokens as cached afterwards.
    """

    def __init__(self, cache: Cache, start: int, counts: Sequence[int]) -> None:
        self.cache = cache
        self.start, self.end = start, start + len(counts)
        self.counts = tuple(counts)
        self._past = tuple(cache.lengths[self.start : self.end])
        self.total = max(past + count for past, count in zip(self._past, counts, strict=True))
        self._rows: tuple[Tensor, Tensor] | None = None
        if len(counts) > 1 and max(counts) == 1:
            device = cache.keys[0].device
            self._rows = (
                torch.arange(self.start, self.end, device=device),
                torch.tensor(self._past, device=device),
            )

    def past(self) -> Sequence[int]:
        """Tokens already cached in each slot of the window."""
        return self._past

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores ``[S, K, N, d]`` of this pass; returns views ``[S, K, M, d]`` of all so far."""
        stored_keys, stored_values = self.cache.keys[layer], self.cache.values[layer]
        if self._rows is not None:  # one token a slot, each at its own place
            slots, places = self._rows
            stored_keys[slots, :, places] = keys[:, :, 0]
            stored_values[slots, :, places] = values[:, :, 0]
        else:
            for row, (past, count) in enumerate(zip(self._past, self.counts, strict=True)):
                stored_keys[self.start + row, :, past : past + count] = keys[row, :, :count]
                stored_values[self.start + row, :, past : past + count] = values[row, :, :count]
        return stored_keys[self.start : self.end, :, : self.total], stored_values[
            self.start : self.end, :, : self.total
        ]


class Cache:
    """Storage of a number of slots.

    Args:
        config: Decoder whose keys are kept.
        dtype: Of keys and values.
        device: Where they live.
        slots: Slots to begin with.
        capacity: Tokens a slot to begin with.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        slots: int = 1,
        capacity: int = 4 * _BLOCK,
    ) -> None:
        shape = (max(1, slots), config.kv_heads, _round(capacity), config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.lengths = [0] * shape[0]

    @property
    def slots(self) -> int:
        """Slots that exist."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Tokens that fit into a slot."""
        return self.keys[0].shape[2]

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def reserve(self, slots: int, capacity: int) -> None:
        """Makes room, keeping what is cached. Grows at least twofold, so that growing costs little in total."""
        old_slots, old_capacity = self.slots, self.capacity
        new_slots = old_slots if slots <= old_slots else max(slots, 2 * old_slots)
        new_capacity = old_capacity if capacity <= old_capacity else _round(max(capacity, 2 * old_capacity))
        if (new_slots, new_capacity) == (old_slots, old_capacity):
            return
        used = max(self.lengths)
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):  # one layer at a time: never two whole caches
                new = old.new_zeros(new_slots, old.shape[1], new_capacity, old.shape[3])
                new[:old_slots, :, :used] = old[:, :, :used]
                stored[layer] = new
        self.lengths += [0] * (new_slots - old_slots)

    def window(self, start: int, counts: Sequence[int]) -> Window:
        """Slots ``start .. start + len(counts)`` for a pass that adds ``counts`` tokens to them.

        Raises:
            ValueError: a slot that does not exist or has no room; `reserve` comes first.
        """
        if not counts or start < 0 or start + len(counts) > self.slots or min(counts) < 1:
            raise ValueError(
                f"{len(counts)} slots from {start} with {list(counts)} tokens; the cache has {self.slots} slots"
            )
        window = Window(self, start, counts)
        if window.total > self.capacity:
            raise ValueError(f"{window.total} tokens in a slot; the cache has room for {self.capacity}: reserve first")
        return window

    def commit(self, window: Window) -> None:
        """Counts the tokens of a finished pass."""
        for slot, (past, count) in enumerate(zip(window.past(), window.counts, strict=True), start=window.start):
            self.lengths[slot] = past + count

    def move(self, source: int, target: int) -> None:
        """Moves one slot's tokens over another's, and gives up the source."""
        if source == target:
            return
        self.release(target)
        length = self.lengths[source]
        if length:
            for stored in (*self.keys, *self.values):
                stored[target, :, :length] = stored[source, :, :length]
        self.lengths[target] = length
        self.release(source)

    def reorder(self, order: Sequence[int]) -> None:
        """Gives slot k what slot ``order[k]`` holds, which several may share; slots beyond are given up."""
        lengths = [self.lengths[source] for source in order]
        if list(order) != list(range(len(order))):
            used, index = max(lengths), torch.tensor(order, device=self.keys[0].device)
            for stored in (*self.keys, *self.values):
                stored[: len(order), :, :used] = stored[index, :, :used]  # what is indexed is a copy
                for slot, length in enumerate(lengths):
                    stored[slot, :, length : self.lengths[slot]] = 0
            self.lengths[: len(order)] = lengths
        for slot in range(len(order), self.slots):
            self.release(slot)

    def release(self, slot: int) -> None:
        """Gives up a slot."""
        length = self.lengths[slot]
        if length:
            for stored in (*self.keys, *self.values):
                stored[slot, :, :length] = 0
        self.lengths[slot] = 0


def _round(capacity: int) -> int:
    return max(1, -(-capacity // _BLOCK)) * _BLOCK
