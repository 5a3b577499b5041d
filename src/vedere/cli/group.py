"""Commands of a command, such as ``vedere data build``: usage, the nearest name for a wrong one, options by tyro."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tyro

from vedere.config import nearest
from vedere.errors import ConfigError

Commands = Mapping[str, tuple[type, Callable[[Any], int]]]
"""Name -> dataclass of the options, and what runs with them. The first line of the dataclass's docstring is shown."""


def run_group(name: str, commands: Commands, argv: list[str]) -> int:
    """Runs one of the commands, or prints what there is.

    Args:
        name: Of the group, as it is typed.
        commands: What it has.
        argv: Arguments after the name.

    Returns:
        Exit status of the command; 2 without one.

    Raises:
        ConfigError: no such command.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: vedere {name} {'|'.join(commands)} ...     (vedere {name} COMMAND --help says more)\n")
        width = max(map(len, commands))
        for one, (options, _) in commands.items():
            print(f"  {one:<{width}}  {(options.__doc__ or '').splitlines()[0]}")
        return 0 if argv else 2
    if argv[0] not in commands:
        raise ConfigError(
            f"unknown command '{name} {argv[0]}'{nearest(argv[0], commands)} (commands: {', '.join(commands)})"
        )
    options, function = commands[argv[0]]
    parsed: Any = tyro.cli(
        options, args=argv[1:], prog=f"vedere {name} {argv[0]}", config=(tyro.conf.FlagCreatePairsOff,)
    )
    return function(parsed)
