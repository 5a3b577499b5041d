"""What a run leaves to look at: metrics as JSON lines and TensorBoard events, curves, and pages of sample answers."""

from __future__ import annotations

import base64
import html
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedere.answers import exact_match
from vedere.atomic import write_atomically
from vedere.errors import TrainingError


class Metrics:
    """Appends one JSON object a step; a resumed run first drops the lines after its checkpoint.

    Args:
        directory: Of the run.
        resume_step: Steps that a resumed run keeps; 0 starts afresh.
        tensorboard: Write TensorBoard events as well (needs the ``train`` extra; left out silently without it).
    """

    def __init__(self, directory: Path, resume_step: int = 0, tensorboard: bool = True) -> None:
        self.path = directory / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= resume_step] if resume_step else []
        text = "".join(json.dumps(line) + "\n" for line in kept)

        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        write_atomically(self.path, write)  # a kill here must not cost the lines of the steps before
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step or None)

    def write(self, values: dict[str, Any]) -> None:
        """Appends ``values``, which must hold ``step``; numbers go to TensorBoard too.

        Raises:
            TrainingError: the disk is full or cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}; the last checkpoint is intact: free space, then --resume"
            ) from error
        if self.board is not None:
            for key, value in values.items():
                if isinstance(value, (int, float)) and key != "step":
                    self.board.add_scalar(key, value, values["step"])

    def close(self) -> None:
        """Flushes the event file."""
        if self.board is not None:
            self.board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics file; a last line cut by a kill is left out."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return lines


def draw_curves(metrics: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Loss over tokens with stage borders, and held-out exact match below it, as a PNG (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = [line for line in metrics if "loss" in line]
    evals = [line for line in metrics if "held_out" in line]
    figure, axes = plt.subplots(2 if evals else 1, 1, figsize=(9, 7 if evals else 4), squeeze=False, sharex=True)
    upper = axes[0][0]
    tokens = [line["tokens"] / 1e3 for line in steps]
    losses = [line["loss"] for line in steps]
    upper.plot(tokens, losses, color="0.8", linewidth=0.8)
    smooth: list[float] = []
    for loss in losses:
        smooth.append(loss if not smooth else 0.95 * smooth[-1] + 0.05 * loss)
    upper.plot(tokens, smooth, color="tab:blue")
    borders = [after for before, after in itertools.pairwise(steps) if before["stage"] != after["stage"]]
    for number, first in enumerate(borders):  # names at two heights: a short stage's would be written over
        upper.axvline(first["tokens"] / 1e3, color="tab:red", linewidth=0.8)
        height = max(losses) * (1.0, 0.88)[number % 2]
        name = upper.text(first["tokens"] / 1e3, height, f" {first['stage']}", va="top", fontsize=8, color="tab:red")
        name.set_in_layout(False)  # of a short run it may reach over the edge, and no layout could make room for it
    upper.set(xlabel="thousand tokens", ylabel="training loss", title=title)
    if evals:
        lower = axes[1][0]
        for kind in sorted({kind for line in evals for kind in line["held_out"]}):
            points = [(e["tokens"] / 1e3, e["held_out"][kind]["exact"]) for e in evals if kind in e["held_out"]]
            lower.plot(*zip(*points, strict=True), marker="o", markersize=3, label=kind)
        lower.set(xlabel="thousand tokens", ylabel="held-out exact match", ylim=(0, 1))
        if lower.lines:
            lower.legend(fontsize=8, ncols=4)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One row of a sample page.

    Attributes:
        image: Encoded picture (PNG or JPEG), or None.
        prompt: What was asked.
        answer: What the model said.
        target: What was expected; empty if nothing was.
        note: Small print, such as tokens and seconds.
    """

    image: bytes | None
    prompt: str
    answer: str
    target: str = ""
    note: str = ""


def sample_page(rows: Sequence[Shown], path: Path, title: str) -> None:
    """Writes one HTML file, pictures inside, no scripts."""
    cells = []
    for row in rows:
        picture = ""
        if row.image is not None:
            kind = "png" if row.image[:4] == b"\x89PNG" else "jpeg"
            picture = f'<img src="data:image/{kind};base64,{base64.b64encode(row.image).decode()}">'
        mark = ""
        if row.target:
            good = exact_match(row.answer, row.target)
            mark = f'<p class="{"good" if good else "bad"}">expected: {html.escape(row.target)}</p>'
        cells.append(
            f"<figure>{picture}<figcaption><b>{html.escape(row.prompt)}</b><p>{html.escape(row.answer)}</p>{mark}"
            f"<small>{html.escape(row.note)}</small></figcaption></figure>"
        )
    style = (
        "body{font:15px/1.4 system-ui,sans-serif;margin:2em;background:#f4f4f2;color:#222}"
        "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:1em}"
        "figure{margin:0;background:#fff;border-radius:8px;padding:1em;box-shadow:0 1px 3px #0002}"
        "img{max-width:100%;max-height:220px;display:block;margin:auto}p{margin:.3em 0}"
        ".good{color:#18794e}.bad{color:#b42318}small{color:#777}"
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1><main>{''.join(cells)}</main></html>\n",
        encoding="utf-8",
    )
