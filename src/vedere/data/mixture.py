"""Several data sets as one endless, seeded, resumable stream of references.

A mixture never touches a record: it yields `Draw`s, three integers that name a place in a data set's epoch, and with each
of them the state after it, in the manner of lingua's nested generators. Everything is a function of (seed, integers):

* **Order**: each epoch of a data set is a permutation of its places, computed place by place (a Feistel network over
  ``Z_a x Z_b``; Black & Rogaway, CT-RSA 2002), so that no permutation is ever stored and any position is reached at once.
* **Repeats**: ``repeat`` 0.3 keeps the first 30 % of the records, 2.5 makes an epoch of two copies and the first half
  of a third (the originals allow fractions below 1 and integers above; arXiv 2504.10479, released training code).
* **Weights**: each draw chooses a data set by weight, by default its size times ``repeat``. Data sets that have run
  out are left out of later draws (only with ``epochs``; else they begin another epoch).
* **Shards**: shard k of n takes places k, k + n, ... of the endless row of epochs of every data set, so that all shards
  together visit each place of each epoch exactly once, whatever their speed, and none of them simulates the others.

Cost: about 20 us a draw in plain Python, 24 bytes a data set.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from vedere.config import nearest
from vedere.data.formats import DatasetInfo, JsonlRecords, read_meta
from vedere.data.sample import Records, Sample
from vedere.data.xcomposer_records import ArrayRecords, read_mix
from vedere.errors import ConfigError, RecordError, TrainingError

_MASK = (1 << 64) - 1
_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Part:
    """A data set of a mixture.

    Attributes:
        name: Unique in the mixture; seeds its order.
        records: Random access to its samples.
        repeat: Share of the records that an epoch visits: below 1 a prefix, above 1 repeats.
        weight: Share of the draws, relative to the other parts; None: proportional to `places`.
    """

    name: str
    records: Records
    repeat: float = 1.0
    weight: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ConfigError: repeat or weight not positive and finite, or nothing left after ``repeat``.
        """
        for label, value in (("repeat", self.repeat), ("weight", self.weight)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"data set '{self.name}': {label} {value}; expected a number > 0")
        if self.places < 1:
            raise ConfigError(
                f"data set '{self.name}': repeat {self.repeat} of {len(self.records)} records leaves none; "
                f"use at least {1 / max(1, len(self.records)):.2g}, or leave the data set out"
            )

    @functools.cached_property
    def places(self) -> int:
        """Draws that make one epoch."""
        return int(len(self.records) * self.repeat + 1e-9)  # 0.29 * 100 is 28.999...


class Draw(NamedTuple):
    """A place: data set, epoch, and index within the epoch (its remainder by the records is the record)."""

    dataset: int
    epoch: int
    place: int


def _mix(x: int) -> int:
    """One step of splitmix64: 64 well-mixed bits of 64."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@functools.lru_cache(maxsize=4096)
def seed_of(*parts: int | str) -> int:
    """64 bits that depend on all parts and on nothing else (not on Python's hash seed)."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def shuffled(position: int, size: int, key: int) -> int:
    """Place ``position`` of the permutation of ``range(size)`` that ``key`` selects.

    Args:
        position: 0 .. size - 1.
        size: Length of the permutation.
        key: 64 bits.
    """
    a = math.isqrt(size - 1) + 1  # a * b >= size > (a - 1) * b: almost never walks
    b = -(-size // a)
    while True:
        left, right = position // b, position % b
        for number in range(_ROUNDS):
            if number % 2:
                left = (left + _mix(_mix(key + number) ^ right)) % a
            else:
                right = (right + _mix(_mix(key + number) ^ left)) % b
        position = left * b + right
        if position < size:
            return position


class Mixture:
    """The stream of one shard.

    Args:
        parts: The data sets; names must differ.
        seed: Of order and choice.
        shuffle: Visit each epoch in a seeded order instead of file order.
        epochs: Epochs of every part; None: endless.
        shard: (index, count): which shard of how many this stream is.

    Raises:
        ConfigError: no parts, equal names, or a shard out of range.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Checks the arguments; reads nothing."""
        names = [part.name for part in parts]
        if not parts:
            raise ConfigError("a mixture of no data sets; give at least one part")
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two data sets are named '{name}'; names seed the order and must differ")
        if not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard {shard[0]} of {shard[1]}; expected 0 <= shard < count")
        if epochs is not None and epochs < 1:
            raise ConfigError(f"epochs {epochs}; expected at least 1, or None for an endless stream")
        self.parts = tuple(parts)
        self.seed = seed
        self.shuffle = shuffle
        self.epochs = epochs
        self.shard = shard
        self._weights = [float(part.places if part.weight is None else part.weight) for part in self.parts]

    def stream(self, state: dict[str, Any] | None = None) -> Iterator[tuple[Draw, dict[str, Any]]]:
        """Draws, each with the state after it.

        The state is plain JSON: ``{"step": draws so far, "drawn": draws so far of each data set by this shard}``.

        Args:
            state: Continue after this state; None: from the start.

        Raises:
            TrainingError: the state belongs to another number of data sets.
        """
        step = int(state["step"]) if state else 0
        drawn = [int(count) for count in state["drawn"]] if state else [0] * len(self.parts)
        if len(drawn) != len(self.parts):
            raise TrainingError(f"the state knows {len(drawn)} data sets, the mixture has {len(self.parts)}")
        shard, shards = self.shard
        key = seed_of("choice", self.seed, shard, shards)
        totals = [None if self.epochs is None else part.places * self.epochs for part in self.parts]
        live: list[int] = []
        borders: list[float] = []
        stale = True
        while True:
            if stale:
                live = [
                    number
                    for number, total in enumerate(totals)
                    if total is None or shard + shards * drawn[number] < total
                ]
                if not live:
                    return
                borders = list(accumulate(self._weights[number] for number in live))
                stale = False
            point = _mix(key ^ _mix(step)) / 2.0**64 * borders[-1]
            chosen = live[min(bisect_right(borders, point), len(live) - 1)]
            epoch, position = divmod(shard + shards * drawn[chosen], self.parts[chosen].places)
            step += 1
            drawn[chosen] += 1
            total = totals[chosen]
            stale = total is not None and shard + shards * drawn[chosen] >= total
            yield Draw(chosen, epoch, self._place(chosen, epoch, position)), {"step": step, "drawn": list(drawn)}

    def _place(self, dataset: int, epoch: int, position: int) -> int:
        part = self.parts[dataset]
        if not self.shuffle:
            return position
        return shuffled(position, part.places, seed_of("order", self.seed, part.name, epoch))

    def sample(self, draw: Draw) -> Sample:
        """The sample at a place.

        Raises:
            RecordError: the record cannot become a sample.
        """
        records = self.parts[draw.dataset].records
        return records[draw.place % len(records)]

    def rng(self, draw: Draw) -> random.Random:
        """The random numbers of a place: equal wherever and whenever it is visited; repeats of a record differ."""
        return random.Random(seed_of("sample", self.seed, self.parts[draw.dataset].name, draw.epoch, draw.place))


def open_meta(path: Path | str, *, only: Sequence[str] | None = None) -> tuple[Part, ...]:
    """Opens the data sets of a meta file: annotation files by lines, ``.json`` as XComposer's arrays, ``.tar`` as shards.

    Args:
        path: The meta file.
        only: Names to open; None: all.

    Raises:
        RecordError: the meta file or one of its data sets cannot be read, or ``only`` names none of it.
    """
    from vedere.data.shards import TarRecords, find_shards

    entries = read_meta(path)
    for name in only or ():
        if name not in entries:
            raise RecordError(f"{path}: no data set '{name}'{nearest(name, entries)} (there are: {', '.join(entries)})")
    parts = []
    for name, entry in entries.items():
        if only is not None and name not in only:
            continue
        info = entry.info(name)
        records: Records
        if entry.annotation.endswith(".tar") or os.path.isdir(entry.annotation):
            records = TarRecords(find_shards(entry.annotation), info=info)
        elif entry.annotation.endswith(".json"):
            records = ArrayRecords(entry.annotation, root=entry.root, info=info)
        else:
            records = JsonlRecords(entry.annotation, root=entry.root, info=info)
        parts.append(Part(name=name, records=records, repeat=entry.repeat_time, weight=entry.weight))
    return tuple(parts)


def open_mix(
    path: Path | str, *, given_num: bool = False, root: Path | str = "", template: str = ""
) -> tuple[Part, ...]:
    """Opens the data files of an XComposer mix file (`vedere.data.xcomposer_records.read_mix`).

    Args:
        path: The mix file.
        given_num: Its numbers are thousands of samples an epoch, as with the original's switch of that name; else shares.
        root: Folder that picture names are relative to.
        template: Chat template of the samples.

    Raises:
        RecordError: the mix file or one of its data files cannot be read, or a number leaves no record; names the line.
    """
    parts: list[Part] = []
    for entry in read_mix(path):
        name = entry.path.stem
        if any(part.name == name for part in parts):
            name = f"{name}:{entry.line}"  # the same file twice, or files of two folders
        records = ArrayRecords(entry.path, root=root, info=DatasetInfo(name=name, template=template))
        repeat = entry.number * 1000 / len(records) if given_num else entry.number
        try:
            parts.append(Part(name=name, records=records, repeat=repeat))
        except ConfigError as error:
            hint = "" if given_num else " (are the numbers thousands of samples? then set given_num)"
            raise RecordError(f"{path}:{entry.line}: {error}{hint}") from None
    return tuple(parts)


def open_sets(path: Path | str, *, given_num: bool = False) -> tuple[Part, ...]:
    """Opens data sets by what names them: a meta file, a folder that holds ``meta.json``, or XComposer's ``data.txt``.

    Args:
        path: The file or folder.
        given_num: As `open_mix`, for a ``.txt``.

    Raises:
        RecordError: as `open_meta` and `open_mix`.
    """
    path = Path(path)
    if path.suffix == ".txt":
        return open_mix(path, given_num=given_num)
    return open_meta(path / "meta.json" if path.is_dir() else path)
