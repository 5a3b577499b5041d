"""Records and preparation for the loader's tests, in a module that worker processes import quickly."""

import os
import random
import signal

import numpy as np

from vedere.data.packing import Document
from vedere.data.sample import Sample
from vedere.errors import RecordError
from vedere.plan import SpanKind
from vedere.text.render import Span


class Numbered:
    """``count`` samples; those whose index is in ``bad`` cannot be read."""

    def __init__(self, name: str, count: int, bad: tuple[int, ...] = ()) -> None:
        self.name = name
        self.count = count
        self.bad = bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise RecordError(f"{self.name}.jsonl:{index + 1}: bad on purpose")
        return Sample(name=f"{self.name}#{index}", conversation=(), source=f"{self.name}.jsonl:{index + 1}")


def prepare(sample: Sample, rng: random.Random) -> Document:
    """Sizes that differ by sample, content that uses the random numbers."""
    text, tiles = 3 + int(sample.name.partition("#")[2]) * 7 % 20, int(sample.name.partition("#")[2]) % 3
    types = np.array([SpanKind.VISUAL] * 2 * tiles + [SpanKind.TEXT] * text, np.uint8)
    ids = np.array([rng.randrange(1000) for _ in types])
    return Document(
        name=sample.name,
        ids=ids,
        labels=ids,
        span_types=types,
        spans=(Span(0, 0, 0, 2 * tiles, SpanKind.VISUAL),) if tiles else (),
        tiles=np.frombuffer(rng.randbytes(tiles * 12), np.uint8).reshape(tiles, 3, 2, 2),
    )


def prepare_longer(sample: Sample, rng: random.Random) -> Document:
    """`prepare` after somebody changed the template."""
    document = prepare(sample, rng)
    more = {name: np.append(getattr(document, name), 0) for name in ("ids", "labels", "span_types")}
    return Document(**{**vars(document), **more})


def prepare_or_die(sample: Sample, rng: random.Random) -> Document:
    """`prepare`, but the process is killed at one sample."""
    if sample.name == "a#13":
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(sample, rng)


def prepare_with_a_bug(sample: Sample, rng: random.Random) -> Document:
    """`prepare`, with a programming error at one sample."""
    if sample.name == "a#13":
        raise KeyError("no such thing")
    return prepare(sample, rng)


class PrepareThatCannotBeSent:
    """`prepare`, of an object that fails while it is packed for another process."""

    def __call__(self, sample: Sample, rng: random.Random) -> Document:
        return prepare(sample, rng)

    def __getstate__(self) -> object:
        return 1 / 0
