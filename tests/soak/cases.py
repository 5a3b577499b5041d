"""The law of bad input, and the process that lives under it.

Every input either works, and then its result obeys the laws of its room, or raises a `VedereError` whose message names
what was given. Nothing else may happen: no other exception, no endless work, no flood of memory, no death of the process.

A worker process runs cases by number: a case is a function of (seed, family, number) alone. It has a limit on address
space, a limit on processor time for each case (the system ends it by a signal, inside native code too), and reports each
case as one line of JSON. `overseer` watches it from outside.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

FAMILIES = {
    "pictures": "picture_inputs",
    "videos": "video_inputs",
    "records": "record_inputs",
    "prompts": "prompt_inputs",
    "checkpoints": "checkpoint_inputs",
    "subtitles": "subtitle_inputs",
    "tables": "table_inputs",
    "answers": "answer_inputs",
}
CPU_SECONDS = 20.0
SPACE_BYTES = 4 << 30  # address space beyond what the libraries take
RESIDENT_BYTES = 1280 << 20  # a picture at the pixel limit takes 0.27 GB, its RGBA form 0.36 GB more
LONGEST_MESSAGE = 10_000


class LawBroken(AssertionError):
    """A result that should not be, or a refusal that should not be."""


def law(holds: Any, what: str) -> None:
    """Raises `LawBroken` with ``what`` unless ``holds``."""
    if not holds:
        raise LawBroken(what)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input.

    Attributes:
        what: Kind of input and damage, for the tables.
        run: Does the work and checks the laws of the result.
        names: What a message may call the input; one of these must be in it.
        expect: Whether the input is known to be good or bad.
    """

    what: str
    run: Callable[[], None]
    names: tuple[str, ...]
    expect: Literal["works", "refused", "either"] = "either"


class Family(Protocol):
    """A kind of input; made once a worker."""

    def case(self, rng: random.Random, folder: Path) -> Case:
        """The case that ``rng`` draws; its files go into ``folder``."""
        ...


def make_family(name: str, folder: Path) -> Family:
    """Builds a family's good inputs in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    family: Family = importlib.import_module(FAMILIES[name]).make(folder)
    return family


def case_rng(seed: int, family: str, number: int) -> random.Random:
    """The random numbers of a case."""
    return random.Random(f"{seed}/{family}/{number}")


def _place(error: BaseException) -> str:
    """File and line of the innermost frame inside the package, which tells findings apart."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "vedere" in Path(frame.filename).parts] or frames
    frame = own[-1] if own else None
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" if frame else "?"


def judge(case: Case) -> dict[str, Any]:
    """Runs a case; ``verdict`` is ``worked``, ``refused`` or ``finding``."""
    from vedere.errors import VedereError

    def finding(kind: str, error: BaseException) -> dict[str, Any]:
        return {
            "verdict": "finding",
            "kind": kind,
            "class": type(error).__name__,
            "place": _place(error),
            "message": str(error)[:2000],
            "trace": traceback.format_exc()[-4000:],
        }

    try:
        case.run()
    except VedereError as error:
        text = str(error)
        if case.expect == "works":
            return finding("a good input is refused", error)
        if not any(name in text for name in case.names):
            return finding(f"the message names none of {case.names}"[:300], error)
        if len(text) > LONGEST_MESSAGE:
            return finding(f"a message of {len(text)} characters", error)
        return {"verdict": "refused", "class": type(error).__name__}
    except LawBroken as error:
        return finding("a law is broken", error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of native libraries are no Exception
        return finding("another exception", error)
    if case.expect == "refused":
        try:
            raise LawBroken(f"accepted, though it is bad: {case.what}")
        except LawBroken as error:
            return finding("a bad input is accepted", error)
    return {"verdict": "worked"}


def run_case(family: Family, name: str, seed: int, number: int, folder: Path) -> dict[str, Any]:
    """Makes and judges one case; its files stay in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = family.case(case_rng(seed, name, number), folder)
    return {"what": case.what, **judge(case)}


def _resident() -> int:
    """The most memory that this process has held so far, in bytes."""
    try:  # getrusage would begin with the peak of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0


def _limit_space() -> None:
    used = _address_space()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + SPACE_BYTES, resource.RLIM_INFINITY))


def main(arguments: list[str]) -> None:
    """``cases.py SEED FOLDER FAMILY START STOP ...``: one line of JSON a case; ends early when its memory has grown."""
    seed, folder = int(arguments[0]), Path(arguments[1])
    faulthandler.enable()
    warnings.simplefilter("ignore")
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing but results on standard output
    for at in range(2, len(arguments), 3):
        name, start, stop = arguments[at], int(arguments[at + 1]), int(arguments[at + 2])
        family = make_family(name, folder / f"good-{name}")
        print(json.dumps({"ready": name}), file=out, flush=True)
        _limit_space()
        before = _resident()
        for number in range(start, stop):
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # no handler: the signal ends the process
            result = run_case(family, name, seed, number, folder / "case")
            signal.setitimer(signal.ITIMER_PROF, 0)
            grown = _resident() - before
            if grown > RESIDENT_BYTES and result["verdict"] != "finding":
                kind = f"{grown >> 20} MiB more memory than before"
                result |= {"verdict": "finding", "kind": "memory", "class": "memory", "place": "", "message": kind}
            if result["verdict"] == "finding":  # the next case clears the folder
                shutil.copytree(folder / "case", folder / "found" / f"{name}-{number}", symlinks=True)
            print(json.dumps({"family": name, "number": number, **result}), file=out, flush=True)
            if grown > RESIDENT_BYTES:
                sys.exit(0)  # a fresh process measures the next case


if __name__ == "__main__":
    from cases import main as main_of_module  # the families raise the LawBroken of that module, not of __main__

    main_of_module(sys.argv[1:])
