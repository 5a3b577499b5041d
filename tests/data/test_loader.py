"""Laws of the loader: resumed equals uninterrupted, order whatever the timing, and no failure that hangs or is lost."""

import errno
import itertools
import json
import logging
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_samples import (
    Numbered,
    PrepareThatCannotBeSent,
    prepare,
    prepare_longer,
    prepare_or_die,
    prepare_with_a_bug,
)

import vedere.data.loader
from vedere.data.loader import Loader, LoaderConfig
from vedere.data.mixture import Part
from vedere.data.packing import PackLimits
from vedere.errors import ConfigError, RecordError, TrainingError, VedereError

LIMITS = PackLimits(tokens=40, tiles=5, open_bins=3)


def parts(*sizes, bad=(), repeat=1.0):
    return [
        Part(name=name, records=Numbered(name, size, bad), repeat=repeat)
        for name, size in zip("abc", sizes, strict=False)
    ]


def config(**keywords):
    return LoaderConfig(**{"limits": LIMITS, **keywords})


def content(pack):
    """All of a pack as something that compares."""
    arrays = (pack.ids, pack.labels, pack.segments, pack.span_types, pack.tiles, pack.weights)
    return [(str(a.dtype), a.shape, a.tobytes()) for a in arrays] + [pack.spans, pack.names, pack.grids]


def take(loader, count=None):
    iterator = iter(loader)
    try:
        return [(content(pack), json.loads(json.dumps(state))) for pack, state in itertools.islice(iterator, count)]
    finally:
        iterator.close()


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=3),
    repeat=st.sampled_from([1.0, 1.5]),
    epochs=st.sampled_from([None, 1, 3]),
    shard=st.sampled_from([(0, 1), (1, 2)]),
    bad=st.sets(st.integers(0, 15), max_size=3),
    cut=st.integers(0, 24),
)
def test_resumed_equals_uninterrupted(sizes, repeat, epochs, shard, bad, cut):
    bad = tuple(bad) if max(sizes) > len(bad) + 3 else ()

    def loader():
        settings = config(epochs=epochs, rank=shard[0], world=shard[1], on_error="skip", skip_limit=50)
        return Loader(settings, parts(*sizes, bad=bad, repeat=repeat), prepare)

    whole = take(loader(), 25)
    if not whole:
        return
    cut = min(cut, len(whole) - 1)
    assert take(loader().resume(whole[cut][1]), 25 - cut - 1) == whole[cut + 1 :]


def test_the_beginning_is_a_state_too_and_iterating_again_continues():
    loader = Loader(config(), parts(30), prepare)
    start = json.loads(json.dumps(loader.state))
    whole = take(loader, 10)
    assert loader.state["packs"] == 10
    assert take(loader, 5) == take(Loader(config(), parts(30), prepare).resume(whole[-1][1]), 5)
    assert take(Loader(config(), parts(30), prepare).resume(start), 10) == whole


def test_all_ranks_together_see_each_sample_once():
    names = Counter()
    for rank in range(3):
        for pack, _ in Loader(config(epochs=1, rank=rank, world=3), parts(20, 9), prepare):
            names.update(pack.names)
            assert len(pack.ids) <= LIMITS.tokens
            assert len(pack.tiles) <= LIMITS.tiles
    assert names == Counter([f"a#{k}" for k in range(20)] + [f"b#{k}" for k in range(9)])


def test_epochs_bring_other_random_numbers():
    packs = [pack for pack, _ in Loader(config(epochs=2), parts(1), prepare)]
    assert [name for pack in packs for name in pack.names] == ["a#0", "a#0"]
    ids = [tuple(pack.ids[a:b]) for pack in packs for a, b in itertools.pairwise(pack.segments)]
    assert len(set(ids)) == 2


# -------------------------------------------------------------------------------------------------------------- workers


@pytest.mark.timeout(120)
def test_workers_give_the_same_packs_in_turn_and_resume_in_new_processes():
    alone = take(Loader(config(), parts(30, 11), prepare), 8)
    assert take(Loader(config(workers=1), parts(30, 11), prepare), 8) == alone

    both = take(Loader(config(workers=2, seed=3), parts(30, 11), prepare), 13)
    shards = [take(Loader(config(seed=3, rank=rank, world=2), parts(30, 11), prepare), 7) for rank in range(2)]
    turns = [shards[number % 2][number // 2][0] for number in range(13)]
    assert [pack for pack, _ in both] == turns
    assert take(Loader(config(workers=2, seed=3), parts(30, 11), prepare).resume(both[6][1]), 6) == both[7:]


@pytest.mark.timeout(120)
def test_a_finite_stream_ends_and_leaves_no_process():
    loader = Loader(config(workers=2, epochs=1), parts(20), prepare)
    iterator = iter(loader)
    first, _ = next(iterator)
    pids = loader.pids
    assert len(pids) == 2
    names = Counter(first.names)
    for pack, _ in iterator:
        names.update(pack.names)
    assert names == Counter(f"a#{k}" for k in range(20))
    assert loader.pids == ()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.timeout(120)
def test_a_killed_worker_is_noticed():
    loader = Loader(config(workers=2), parts(30), prepare)
    iterator = iter(loader)
    next(iterator)
    os.kill(loader.pids[1], signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"data worker 1 \(process \d+\) died: killed by SIGKILL; look for"):
        for _ in iterator:  # endless: only the error ends it
            pass
    assert loader.pids == ()


@pytest.mark.timeout(120)
def test_a_worker_that_dies_while_it_is_waited_for():
    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        list(Loader(config(workers=1, epochs=1), parts(30), prepare_or_die))


@pytest.mark.timeout(120)
def test_signals_to_the_whole_group_are_the_main_process_s_to_handle():
    """Clusters and terminals send them to every process of a job; the main one wants to finish its step."""
    alone = take(Loader(config(), parts(30), prepare), 8)
    loader = Loader(config(workers=1), parts(30), prepare)
    iterator = iter(loader)
    found = [content(next(iterator).pack)]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(loader.pids[0], number)
    found += [content(next(iterator).pack) for _ in range(7)]
    iterator.close()
    assert found == [pack for pack, _ in alone]
    assert loader.pids == ()


ABANDON = """
import os, signal, sys
from loader_samples import Numbered, prepare
from vedere.data.loader import Loader, LoaderConfig
from vedere.data.mixture import Part

if __name__ == "__main__":
    loader = Loader(LoaderConfig(workers=2), [Part(name="a", records=Numbered("a", 100))], prepare)
    iterator = iter(loader)
    next(iterator)
    print(*loader.pids, flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.timeout(120)
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waiting for a process that is no child needs Linux")
@pytest.mark.parametrize("end", ["killed", "left"])
def test_workers_end_when_the_main_process_is_killed_or_ends_without_closing(tmp_path, end):
    (tmp_path / "abandon.py").write_text(ABANDON)
    paths = [str(Path(__file__).parent), str(Path(vedere.data.loader.__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "abandon.py"), end],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([handle], [], [], 60)[0], "the worker is still running"
        os.close(handle)


@pytest.mark.timeout(120)
def test_errors_of_workers_arrive_as_they_are():
    with pytest.raises(RecordError, match=r"^a.jsonl:14: bad on purpose$"):
        list(Loader(config(workers=1, epochs=1), parts(30, bad=(13,)), prepare))
    with pytest.raises(VedereError, match=r"(?s)data worker 0 failed:.*KeyError: 'no such thing'.*sample 'a#13'"):
        list(Loader(config(workers=1, epochs=1), parts(30), prepare_with_a_bug))


def test_what_cannot_be_sent_to_a_worker_is_said():
    with pytest.raises(ConfigError, match=r"cannot be sent to a worker.*workers=0"):
        next(iter(Loader(config(workers=1), parts(30), lambda sample, rng: prepare(sample, rng))))
    with pytest.raises(ConfigError, match=r"cannot be sent to a worker \(division by zero\); define"):
        next(iter(Loader(config(workers=1), parts(30), PrepareThatCannotBeSent())))


def test_a_worker_that_cannot_be_started_is_said_and_the_others_end(monkeypatch):
    started = []

    def start(process):
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(process)
        real(process)

    real = multiprocessing.context.SpawnProcess.start
    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start)
    loader = Loader(config(workers=2), parts(30), prepare)
    with pytest.raises(TrainingError, match=r"worker 1 cannot be started .*unavailable\); use fewer workers"):
        next(iter(loader))
    with pytest.raises(ValueError, match="closed"):  # it was ended and let go
        started[0].is_alive()


# --------------------------------------------------------------------------------------------------------------- errors


def test_raise_names_the_sample_and_keeps_the_last_state():
    loader = Loader(config(epochs=1), parts(40, bad=(13,)), prepare)
    with pytest.raises(RecordError, match=r"^a.jsonl:14: bad on purpose$"):
        list(loader)
    assert loader.state["packs"] > 0
    last = json.loads(json.dumps(loader.state))
    continued = Loader(config(epochs=1, on_error="skip"), parts(40, bad=(13,)), prepare).resume(last)
    names = [name for pack, _ in continued for name in pack.names]
    assert "a#13" not in names
    assert continued.skipped == 1


def test_errors_of_preparation_name_sample_and_place():
    small = PackLimits(tokens=10, tiles=5)
    with pytest.raises(RecordError, match=r"^a.jsonl:\d+: sample 'a#\d+': .* has \d+ tokens, a pack holds 10"):
        list(Loader(config(limits=small, epochs=1), parts(30), prepare))
    with pytest.raises(KeyError) as error:
        list(Loader(config(epochs=1), parts(30), prepare_with_a_bug))
    assert error.value.__notes__ == ["while preparing sample 'a#13' of a.jsonl:14"]


def test_skipping_is_counted_logged_and_bounded(caplog):
    with caplog.at_level(logging.WARNING, "vedere.data"):
        loader = Loader(config(epochs=1, on_error="skip"), parts(30, bad=(3, 13)), prepare)
        names = Counter(name for pack, _ in loader for name in pack.names)
    assert names == Counter(f"a#{k}" for k in range(30) if k not in (3, 13))
    assert loader.skipped == 2
    assert sorted(record.getMessage() for record in caplog.records) == [
        "skipped a bad sample: a.jsonl:14: bad on purpose",
        "skipped a bad sample: a.jsonl:4: bad on purpose",
    ]
    with pytest.raises(RecordError, match=r"5 bad samples in a row, the last: a.jsonl"):
        list(Loader(config(on_error="skip", skip_limit=5), parts(9, bad=tuple(range(9))), prepare))


def test_states_of_other_streams_are_refused():
    state = take(Loader(config(), parts(30), prepare), 3)[-1][1]
    with pytest.raises(TrainingError, match="seed: saved 0, now 1; workers: saved 1, now 2"):
        Loader(config(seed=1, workers=2), parts(30), prepare).resume(state)
    with pytest.raises(TrainingError, match=r"data sets: saved \[\['a', 30, 1.0, None\]\], now"):
        Loader(config(), parts(31), prepare).resume(state)
    for wrong in ({}, {"version": 99}, {"version": 1}, None):
        with pytest.raises(TrainingError, match="not a loader state of version 1"):
            Loader(config(), parts(30), prepare).resume(wrong)
    with pytest.raises(TrainingError, match=r"had \d+ tokens and \d tiles when the state was saved, now"):
        next(iter(Loader(config(), parts(30), prepare_longer).resume(state)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": -1}, "workers -1; expected at least 0"),
        ({"prefetch": 0}, "prefetch 0; expected at least 1"),
        ({"rank": 2, "world": 2}, "rank 2 of a world of 2"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoaderConfig(**settings)
