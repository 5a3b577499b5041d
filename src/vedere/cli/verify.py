"""``vedere verify DIR``: recorded outputs against this installation; ``--record`` makes such a folder.

Exit status: 0 everything passes, 1 something fails, 2 the folder cannot be verified or written.
"""

from __future__ import annotations

from pathlib import Path

from vedere.cli.output import print_error, print_json
from vedere.errors import ConfigError, VedereError


def verify(
    directory: Path,
    /,
    *,
    record: bool = False,
    model: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    with_weights: bool = False,
    tolerance: float | None = None,
    json: bool = False,
) -> int:
    """Compares a folder of recorded outputs with what this installation computes, or records one.

    Prints one line for every recorded tensor or table: verdict, name, shape, error, tolerance. The exit status is 0 if
    everything passes, 1 if something fails, 2 if the folder cannot be verified.

    Args:
        directory: Folder with recorded tensors or tables.
        record: Write the folder, from the model that --model names.
        model: Model to verify, or to record: a folder, a shipped model, or ORG/NAME. By default the recorded one.
        dtype: bf16, fp32 or fp16; by default as recorded, or as stored.
        device: cpu or cuda; by default cpu.
        with_weights: With --record: copy the weights into the folder.
        tolerance: Replaces the default tolerance of all numeric comparisons; ids, sizes and strings stay exact.
        json: Write one JSON object instead of lines.

    Returns:
        Exit status.
    """
    from vedere.verify.record import record as write
    from vedere.verify.recorded import parse_dtype
    from vedere.verify.run import lines, to_dict
    from vedere.verify.run import verify as run

    try:
        number = parse_dtype(dtype)
        if record:
            if model is None:
                raise ConfigError("--record needs --model: the folder or name of the model to record")
            if tolerance is not None:
                raise ConfigError("--tolerance belongs to a verification; leave it out with --record")
            names = write(model, directory, dtype=number, device=device, with_weights=with_weights)
            if json:
                print_json({"directory": str(directory), "tensors": list(names)})
            else:
                print(
                    f"{directory}: {len(names)} tensors of {model}; verify with: vedere verify {directory} --model MODEL"
                )
            return 0
        if with_weights:
            raise ConfigError("--with-weights belongs to --record; leave it out")
        if tolerance is not None and not tolerance >= 0:
            raise ConfigError(f"--tolerance {tolerance} given; expected a number >= 0, such as 1e-4")
        report = run(directory, tolerance, model=model, dtype=number, device=device)
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
