"""The command ``vedere``: one module a sub-command, imported when it is called, so that ``vedere --help`` costs no torch.

Each module has ``main(argv) -> int`` and makes its options from a dataclass or function by tyro. A `VedereError` becomes one
message on standard error and exit status 2, without a traceback unless ``VEDERE_DEBUG=1``; with ``--json``, standard output
still holds exactly one JSON object, the error. Ctrl-C ends with status 130.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from vedere import __version__
from vedere.cli.output import open_to_any_bytes, print_error, print_json
from vedere.config import nearest
from vedere.errors import VedereError

Command = Callable[[list[str]], int]

COMMANDS: dict[str, tuple[str, str]] = {
    "chat": ("vedere.cli.chat", "ask about pictures and videos, once or in a session"),
    "plan": ("vedere.cli.plan", "tokens and memory that pictures and videos take, before anything is loaded"),
    "train": ("vedere.cli.train", "run a recipe, or go on with a run"),
    "convert": ("vedere.cli.convert", "a run or a model in another form: delta, vedere's own, the original names"),
    "eval": ("vedere.cli.eval", "ask a model the questions of a benchmark, and score its answers"),
    "safety": ("vedere.cli.safety", "how a model treats requests whose risk lies in pictures, judged; private logs"),
    "score": ("vedere.cli.score", "figures of recorded answers by a benchmark's official rules"),
    "report": ("vedere.cli.report", "one HTML page of runs: figures, comparisons, every item"),
    "video-mme": (
        "vedere.cli.video_mme",
        "Video-MME: check its files, tables and comparisons, tools to build such a set",
    ),
    "serve": ("vedere.cli.serve", "web page for composing articles"),
    "data": ("vedere.cli.data", "build and inspect training data"),
    "compose": ("vedere.cli.compose", "an illustrated article from a title and a gallery of pictures"),
    "gallery": ("vedere.cli.gallery", "index a folder of pictures, and search it by caption"),
    "verify": ("vedere.cli.verify", "compare recorded outputs of the originals with this installation"),
}
"""Sub-commands: module and what the overview says."""


def overview() -> str:
    """What ``vedere --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"vedere {__version__}: multimodal language models of the InternVL / XComposer line",
            "",
            "usage: vedere COMMAND ...     (vedere COMMAND --help says more)",
            "",
            *lines,
            "",
            'example: vedere chat photo.jpg "What is in the picture?"',
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 done, 1 a check failed (verify), 2 an error that the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    if argv is None:
        open_to_any_bytes()
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(overview())
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(__version__)
            return 0
        if argv is None and arguments[0] == "train":
            from vedere.train.allocator import restart_with_settings

            restart_with_settings()  # returns once the process has them
        status = _command(arguments[0])(arguments[1:])
        sys.stdout.flush()
        return status
    except VedereError as error:
        if os.environ.get("VEDERE_DEBUG") == "1":
            raise
        print_error(error, as_json)
        return 2
    except SystemExit as usage:  # tyro has explained an option that it does not know
        if as_json and usage.code:
            from vedere.errors import ConfigError

            print_error(ConfigError("the command line was not understood; its usage is on standard error"), as_json)
        raise
    except KeyboardInterrupt:
        if os.environ.get("VEDERE_DEBUG") == "1":
            raise
        print("interrupted", file=sys.stderr)
        if as_json:
            print_json({"error": {"kind": "KeyboardInterrupt", "message": "interrupted"}})
        return 130
    except BrokenPipeError:  # the reader (head, less) has gone: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _command(name: str) -> Command:
    from vedere.errors import ConfigError

    if name not in COMMANDS:
        raise ConfigError(f"unknown command '{name}'{nearest(name, COMMANDS)} (commands: {', '.join(COMMANDS)})")
    module = COMMANDS[name][0]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(f"this version of vedere has no command '{name}' yet") from None
    command: Command = found.main
    return command
