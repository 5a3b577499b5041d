"""``vedere convert SOURCE OUT``: a run or a model folder as something that loads, ships, or fits the original names."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vedere.cli.output import note, print_json
from vedere.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from vedere.models.delta import DeltaReport


def convert(
    source: Path,
    out: Path,
    /,
    *,
    layout: Literal["delta", "vedere", "original"] = "vedere",
    bits: Literal[4, 8] = 4,
    dtype: Literal["bf16", "fp32"] = "bf16",
    json: bool = False,
) -> int:
    """Writes a model in another form.

    ``delta`` keeps only what training added to a frozen language model, quantised; ``vedere`` is the whole model with
    its tokenizer; ``original`` is the same under the names and config of the released code.

    Args:
        source: Directory of a run (its newest checkpoint is taken), or folder of a model.
        out: Target folder.
        layout: Form of the result.
        bits: Of a delta's codes.
        dtype: Of whole models.
        json: Print one JSON object.

    Returns:
        Exit status.
    """
    import torch

    from vedere.models.checkpoints import load_model, read_config, save_model
    from vedere.text.tokenizer import Tokenizer
    from vedere.train.export import export_delta, export_model, load_run

    number = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    report: DeltaReport | None = None
    if (source / "checkpoints").is_dir():
        trained = load_run(source, note)
        if layout == "delta":
            report = export_delta(trained, out, bits)
        else:
            export_model(trained, out, number, layout)
    elif layout == "delta":
        raise ConfigError(f"{source} is no run directory; a delta is made from a run: vedere convert runs/NAME {out}")
    else:
        save_model(load_model(source, number), out, layout=layout, extras=read_config(source).extras)
        with contextlib.suppress(CheckpointError):  # a folder of weights alone stays one
            Tokenizer.load(source).save(out)
    facts: dict[str, Any] = {"source": str(source), "out": str(out), "layout": layout}
    if report is not None:
        facts |= {"bytes": report.bytes, "worst_relative_error": round(report.worst, 4)}
    if json:
        print_json(facts)
    else:
        note(", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def main(argv: list[str]) -> int:
    """Runs the command with these arguments; returns its exit status."""
    import tyro

    return tyro.cli(convert, args=argv, prog="vedere convert", config=(tyro.conf.FlagCreatePairsOff,))
