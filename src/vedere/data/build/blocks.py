"""Drawing in blocks: the same pictures from one process or from several.

A kind whose pictures are independent is cut into blocks of 500, each with a seed of its own; every other kind is one
block. What is drawn depends on the blocks and not on who draws them, and results are handed on in the order of the
blocks, so that a corpus does not depend on the number of processes. Processes are started afresh (`spawn`): a program that
asks for more than one needs the usual ``if __name__ == "__main__":``.

Cost: one process for each worker, 0.3 s to start; results of a block wait in memory, about 6 kB a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedere.data.build.ledger import require_allowed
from vedere.data.build.media import encode_item
from vedere.data.build.record import Ask, Item, Kind, Medium, Split

BLOCK = 500


@dataclass(frozen=True, kw_only=True)
class Block:
    """Pictures that are drawn together: the arguments of `Kind.make`."""

    kind: Kind
    split: Split
    count: int
    seed: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An item as it comes from the process that drew it: encoded, licence checked."""

    files: tuple[bytes, ...]
    medium: Medium
    digest: str
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    alignment: tuple[Ask, ...]
    asks: tuple[Ask, ...]
    key: str
    licence: str
    attribution: str


def blocks_of(kind: Kind, split: Split, count: int, seed: int, folder: Path) -> list[Block]:
    """Cut a kind's pictures into blocks; the first has the corpus' seed, the others seeds made of it."""
    step = BLOCK if kind.independent else count
    return [
        Block(
            kind=kind,
            split=split,
            count=min(step, count - start),
            seed=seed if start == 0 else int.from_bytes(hashlib.sha256(f"{seed}/{start}".encode()).digest()[:6], "big"),
            folder=folder,
        )
        for start in range(0, count, step)
    ]


def _encoded(item: Item, where: str) -> Drawn:
    require_allowed(item.licence, where)
    files = encode_item(item, where)
    return Drawn(
        files=files,
        medium=item.medium,
        digest=hashlib.sha256(b"".join(files)).hexdigest(),
        labels=item.labels,
        captions=item.captions,
        alignment=item.alignment,
        asks=item.asks,
        key=item.key,
        licence=item.licence,
        attribution=item.attribution,
    )


def draw(block: Block) -> Iterator[Drawn]:
    """Draw a block, picture by picture.

    Raises:
        RecordError: an item under a licence that is not allowed, or in a form that a corpus cannot hold.
    """
    items = block.kind.make(block.split, block.count, block.seed, block.folder)
    for number, item in enumerate(items):
        yield _encoded(item, f"picture {number} of kind '{block.kind.name}' ({item.key or 'drawn'})")


def _draw_whole(block: Block) -> list[Drawn]:
    return list(draw(block))


def draw_all(blocks: Sequence[Block], workers: int) -> Iterator[Iterable[Drawn]]:
    """Yield the pictures of each block, in the order of the blocks; with one worker they are drawn when they are asked for."""
    if workers <= 1:
        yield from map(draw, blocks)
        return
    from multiprocessing import get_context

    with get_context("spawn").Pool(min(workers, len(blocks))) as pool:
        yield from pool.imap(_draw_whole, blocks)
