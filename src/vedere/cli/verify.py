"""``vedere verify DIR``: recorded outputs of the original implementations against this installation.

Exit status: 0 everything passes, 1 something fails, 2 the folder cannot be verified.
"""

from __future__ import annotations

from pathlib import Path

from vedere.cli.output import print_error, print_json
from vedere.errors import ConfigError, VedereError


def verify(directory: Path, /, *, tolerance: float | None = None, json: bool = False) -> int:
    """Compares a folder of recorded outputs with what this installation computes.

    Prints one line for every recorded tensor or table: verdict, name, shape, error, tolerance. The exit status is 0 if
    everything passes, 1 if something fails, 2 if the folder cannot be verified.

    Args:
        directory: Folder with recorded tensors or tables.
        tolerance: Replaces the default tolerance of all numeric comparisons; ids, sizes and strings stay exact.
        json: Write one JSON object instead of lines.

    Returns:
        Exit status.
    """
    from vedere.verify.run import lines, to_dict
    from vedere.verify.run import verify as run

    try:
        if tolerance is not None and not tolerance >= 0:
            raise ConfigError(f"--tolerance {tolerance} given; expected a number >= 0, such as 1e-4")
        report = run(directory, tolerance)
    except VedereError as error:
        print_error(error, json)
        return 2
    if json:
        print_json(to_dict(report))
    else:
        print("\n".join(lines(report)))
    return 0 if report.passed else 1


def main(argv: list[str]) -> int:
    """Runs the command with these arguments; returns its exit status."""
    import tyro

    return tyro.cli(verify, args=argv, prog="vedere verify", config=(tyro.conf.FlagCreatePairsOff,))
