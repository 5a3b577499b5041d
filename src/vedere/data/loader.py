"""Packs from worker processes, in one order, with an exact state.

Each worker owns a shard of the mixture, prepares its samples and packs them; the main process takes packs from the
workers in turn. Every pack comes with the state after it, plain JSON: how far each shard has drawn, and which samples
wait in its open bins, by reference. `Loader.resume` prepares those again and goes on; the packs that follow are
bit-identical, because order, choice and augmentation are functions of (seed, data set, epoch, index) and of nothing
that happened before. The same numbers come out with 0 workers (in the main process) as with 1.

The idea of generators that hand out their state with every item is lingua's; the reference implementation of InternVL
(arXiv 2504.10479) saves the counters of its data sets but redraws augmentation and bad samples after a resume.

Cost: one copy of a pack through a pipe (1 to 4 ms / MB); ``prefetch`` + 1 packs a worker in memory besides its open
bins. A resume prepares at most ``open_bins`` packs' worth of samples again.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import queue
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple

from vedere.data.mixture import Draw, Mixture, Part
from vedere.data.packing import BinPacker, Document, Pack, PackLimits, check_document, collate
from vedere.data.sample import Sample
from vedere.errors import ConfigError, MediaError, PromptError, RecordError, TrainingError, VedereError

logger = logging.getLogger("vedere.data")

Prepare = Callable[[Sample, random.Random], Document]
State = dict[str, Any]
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How the stream is drawn, packed and spread.

    Attributes:
        seed: Of order, choice and augmentation.
        limits: Sizes of packs.
        shuffle: Visit every epoch in a seeded order.
        epochs: Epochs of each data set; None: endless.
        workers: Processes that prepare and pack; 0: the main process does.
        prefetch: Packs that a worker may be ahead.
        rank: Of this process in data-parallel training.
        world: Processes in data-parallel training.
        on_error: ``raise`` stops at the first bad sample; ``skip`` logs and counts it and goes on.
        skip_limit: With ``skip``: so many bad samples in a row stop after all.
        start_method: How worker processes begin.
    """

    seed: int = 0
    limits: PackLimits = field(default_factory=PackLimits)
    shuffle: bool = True
    epochs: int | None = None
    workers: int = 0
    prefetch: int = 2
    rank: int = 0
    world: int = 1
    on_error: Literal["raise", "skip"] = "raise"
    skip_limit: int = 100
    start_method: Literal["spawn", "forkserver"] = "spawn"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a count below its minimum, or a rank outside of the world.
        """
        for name, least in (("workers", 0), ("prefetch", 1), ("world", 1), ("skip_limit", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}; expected at least {least}")
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank {self.rank} of a world of {self.world}; expected 0 <= rank < world")

    @property
    def shards(self) -> int:
        """Streams of this process."""
        return max(1, self.workers)


class Loaded(NamedTuple):
    """A pack and the state after it."""

    pack: Pack
    state: State


class _Step(NamedTuple):
    """What a shard hands over: a pack, its state after it, and the samples skipped since the last one."""

    pack: Pack | None
    state: State
    skipped: list[str]


def _read(mixture: Mixture, draw: Draw, prepare: Prepare, limits: PackLimits) -> Document:
    """A document of a place, checked; every error names the sample and where it stands."""
    sample = mixture.sample(draw)
    try:
        document = prepare(sample, mixture.rng(draw))
        check_document(document)
        limits.check(sample.name, len(document.ids), document.tile_count)
    except (RecordError, MediaError, PromptError) as error:
        raise RecordError(f"{sample.source}: sample '{sample.name}': {error}") from error
    except VedereError:
        raise
    except Exception as error:
        error.add_note(f"while preparing sample '{sample.name}' of {sample.source}")
        raise
    return document


def _restore(state: State, mixture: Mixture, prepare: Prepare, packer: BinPacker[tuple[Draw, Document]]) -> None:
    """Prepares the samples of the open bins again and checks that they are what they were."""
    bins = []
    for content in state["bins"]:
        held = []
        for *place, tokens, tiles in content:
            draw = Draw(*place)
            document = _read(mixture, draw, prepare, packer.limits)
            if (len(document.ids), document.tile_count) != (tokens, tiles):
                raise TrainingError(
                    f"sample '{document.name}' had {tokens} tokens and {tiles} tiles when the state was saved, now "
                    f"{len(document.ids)} and {document.tile_count}; resume with the same data, template and policy"
                )
            held.append((tokens, tiles, (draw, document)))
        bins.append(held)
    packer.restore(bins)


def packs_of_shard(
    config: LoaderConfig, parts: Sequence[Part], prepare: Prepare, worker: int, state: State | None
) -> Iterator[_Step]:
    """The packs of one worker's shard; the last step has no pack.

    Args:
        config: Of the loader.
        parts: The data sets.
        prepare: Makes documents of samples.
        worker: 0 .. ``config.shards`` - 1.
        state: Continue after this state of the shard; None: from the start.
    """
    shard = (config.rank * config.shards + worker, config.world * config.shards)
    mixture = Mixture(parts, seed=config.seed, shuffle=config.shuffle, epochs=config.epochs, shard=shard)
    packer = BinPacker[tuple[Draw, Document]](config.limits)
    at: State | None = state["mixture"] if state else None
    total: int = state["skipped"] if state else 0
    if state:
        _restore(state, mixture, prepare, packer)
    skipped: list[str] = []
    in_a_row = 0

    def step(leaving: list[tuple[Draw, Document]] | None) -> _Step:
        nonlocal skipped
        bins = [[[*draw, tokens, tiles] for tokens, tiles, (draw, _) in content] for content in packer.bins()]
        pack = collate([document for _, document in leaving]) if leaving else None
        reported, skipped = skipped, []
        return _Step(pack, {"mixture": at, "bins": bins, "skipped": total}, reported)

    for draw, after in mixture.stream(at):
        at = after
        try:
            document = _read(mixture, draw, prepare, config.limits)
        except (RecordError, MediaError) as error:
            in_a_row += 1
            if config.on_error == "raise":
                raise
            if in_a_row >= config.skip_limit:
                raise RecordError(
                    f"{in_a_row} bad samples in a row, the last: {error}; correct the data set"
                ) from error
            total += 1
            skipped.append(str(error))
            continue
        in_a_row = 0
        leaving = packer.add(len(document.ids), document.tile_count, (draw, document), document.name)
        if leaving is not None:
            yield step(leaving)
    while (leaving := packer.flush()) is not None:
        yield step(leaving)
    yield step(None)


class Loader:
    """Iterates packs.

    One iteration runs at a time; leaving it (``break``, an error, `close`) ends its workers. Iterating again continues
    after the last pack that was handed out.

    Args:
        config: How to draw, pack and spread.
        parts: The data sets.
        prepare: Makes a document of a sample, using only the random numbers it is given. With workers it must be
            picklable: a function or an instance of a class of some module.
    """

    def __init__(self, config: LoaderConfig, parts: Sequence[Part], prepare: Prepare) -> None:
        """Starts nothing; checks that the mixture is one."""
        self.config = config
        self.parts = tuple(parts)
        self.prepare = prepare
        Mixture(self.parts, seed=config.seed, epochs=config.epochs)
        self._state: State = {
            "version": VERSION,
            "stream": self._stream(),
            "packs": 0,
            "next": 0,
            "shards": [None] * config.shards,
        }
        self._workers: _Workers | None = None

    def _stream(self) -> State:
        """All that the stream depends on, besides the content of records and `prepare`."""
        config = self.config
        return {
            "seed": config.seed,
            "shuffle": config.shuffle,
            "epochs": config.epochs,
            "rank": config.rank,
            "world": config.world,
            "workers": config.shards,
            "limits": asdict(config.limits),
            "data sets": [[part.name, len(part.records), float(part.repeat), part.weight] for part in self.parts],
        }

    @property
    def state(self) -> State:
        """The state after the last pack that was handed out; before the first, the beginning."""
        return self._state

    @property
    def skipped(self) -> int:
        """Bad samples that were left out up to `state`."""
        return sum(shard["skipped"] for shard in self._state["shards"] if shard)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of running workers."""
        return tuple(process.pid or 0 for process in self._workers.processes) if self._workers else ()

    def resume(self, state: State) -> Loader:
        """Makes the next iteration continue after ``state``.

        Args:
            state: From an earlier pack, possibly through JSON.

        Returns:
            Itself.

        Raises:
            TrainingError: the state is of another stream; names what differs.
        """
        self.close()
        there = state.get("stream") if isinstance(state, dict) and state.get("version") == VERSION else None
        if not isinstance(there, dict):
            raise TrainingError(f"not a loader state of version {VERSION}: {_short(state)}")
        here = self._stream()
        different = [key for key in here if here[key] != there.get(key)]
        if different:
            listed = "; ".join(f"{key}: saved {there.get(key)}, now {here[key]}" for key in different)
            raise TrainingError(
                f"the loader state belongs to another stream ({listed}); resume with the saved settings"
            )
        self._state = state
        return self

    def __iter__(self) -> Iterator[Loaded]:
        """Yields packs after `state`; ends with the last epoch.

        Raises:
            RecordError: a bad sample (with ``on_error`` "raise", or too many in a row).
            TrainingError: a worker died, or the data changed since the state was saved.
            VedereError: a worker failed in some other way; with its traceback.
        """
        self.close()
        config = self.config
        shards: list[State | None] = self._state["shards"]
        steps: list[Iterator[_Step]]
        if config.workers:
            self._workers = _Workers(config, self.parts, self.prepare, shards)
            steps = [self._workers.steps(number) for number in range(config.workers)]
        else:
            steps = [packs_of_shard(config, self.parts, self.prepare, 0, shards[0])]
        mine = self._workers
        live = set(range(len(steps)))
        turn: int = self._state["next"]
        try:
            while live:
                if turn in live:
                    step = next(steps[turn])
                    for message in step.skipped:
                        logger.warning("skipped a bad sample: %s", message)
                    states = list(self._state["shards"])
                    states[turn] = step.state
                    if step.pack is None:
                        live.discard(turn)
                        self._state = {**self._state, "shards": states}
                    else:
                        count, after = self._state["packs"] + 1, (turn + 1) % len(steps)
                        self._state = {**self._state, "packs": count, "next": after, "shards": states}
                        yield Loaded(step.pack, self._state)
                turn = (turn + 1) % len(steps)
        finally:
            if self._workers is mine:
                self.close()

    def close(self) -> None:
        """Ends running workers."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Workers:
    """The worker processes of one iteration, seen from the main process."""

    def __init__(
        self, config: LoaderConfig, parts: Sequence[Part], prepare: Prepare, states: Sequence[State | None]
    ) -> None:
        context: Any = multiprocessing.get_context(config.start_method)
        self.processes: list[BaseProcess] = []
        self.connections: list[Connection] = []
        for number in range(config.workers):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_work,
                args=(there, config, parts, prepare, number, states[number]),
                name=f"vedere-data-{number}",
                daemon=True,
            )
            try:
                process.start()
            except Exception as error:  # sending runs code of what is sent, which may raise anything
                here.close()
                self.close()
                if isinstance(error, OSError):
                    raise TrainingError(
                        f"data worker {number} cannot be started ({error}); use fewer workers"
                    ) from error
                raise ConfigError(
                    f"the data sets or 'prepare' cannot be sent to a worker ({error}); "
                    "define them at the top of a module, or use workers=0"
                ) from error
            finally:
                there.close()  # only the worker holds this end: when it dies, reading ends
            self.processes.append(process)
            self.connections.append(here)
        # At its end the interpreter asks daemons by SIGTERM, which they ignore, and waits for them: this comes before that.
        atexit.register(self.close)

    def steps(self, number: int) -> Iterator[_Step]:
        """Steps of one worker."""
        while True:
            kind, *content = self._receive(number)
            if kind == "error":
                cls, text = content
                raise cls(text)
            if kind == "crash":
                raise VedereError(f"data worker {number} failed:\n{content[0]}")
            step = _Step(*content)
            yield step
            if step.pack is None:
                return

    def _receive(self, number: int) -> Any:
        """The next message of a worker; notices the death of any worker at once."""
        connection = self.connections[number]
        running = {process.sentinel: index for index, process in enumerate(self.processes)}
        while True:
            ready = wait([connection, *running])
            for sentinel in [item for item in ready if item in running]:
                index = running.pop(sentinel)
                self._check(index)
            if connection in ready:
                try:
                    return connection.recv()
                except (EOFError, OSError):
                    self._check(number)
                    raise TrainingError(f"data worker {number} closed its pipe without a result") from None

    def _check(self, number: int) -> None:
        """Raises if a worker ended in any way but its own."""
        process = self.processes[number]
        process.join(5)
        code = process.exitcode
        if code == 0:
            return
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        raise TrainingError(
            f"data worker {number} (process {process.pid}) died: {how}; look for its traceback above, or for the "
            "system's memory killer (then use fewer workers, open_bins or prefetch)"
        )

    def close(self) -> None:
        atexit.unregister(self.close)
        for process in self.processes:
            process.kill()  # they hold nothing that needs an orderly end
        for process, connection in zip(self.processes, self.connections, strict=True):
            process.join()
            connection.close()
            process.close()
        self.processes, self.connections = [], []


def _work(
    connection: Connection,
    config: LoaderConfig,
    parts: Sequence[Part],
    prepare: Prepare,
    number: int,
    state: State | None,
) -> None:
    """Body of a worker process: packs into a bounded box, a thread sends them."""
    for number_of_signal in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # sent to the whole group, and the main process's to handle
        signal.signal(number_of_signal, signal.SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # workers share the cores already
    box: queue.Queue[tuple[Any, ...] | None] = queue.Queue(maxsize=config.prefetch)
    sender = threading.Thread(target=_send, args=(connection, box), daemon=True)
    sender.start()
    try:
        for step in packs_of_shard(config, parts, prepare, number, state):
            box.put(("step", *step))
    except VedereError as error:
        box.put(("error", type(error), str(error)))
    except Exception:
        box.put(("crash", traceback.format_exc()))
    box.put(None)
    sender.join()


def _send(connection: Connection, box: queue.Queue[tuple[Any, ...] | None]) -> None:
    while (message := box.get()) is not None:
        try:
            connection.send(message)
        except OSError:  # the main process is gone
            os._exit(1)
        except Exception:
            connection.send(("crash", traceback.format_exc()))
            os._exit(0)
