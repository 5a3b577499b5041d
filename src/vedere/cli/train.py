"""``vedere train RECIPE [--key value ...] [--out DIR] [--resume]``: a recipe as config, its options as the command line.

Every field of the recipe is an option with a dotted name: ``--stages.0.optim.lr 1e-4``, ``--model.tile 112``. A resumed run
starts from the config that its directory keeps, so options need not be repeated. Exit status 130 after Ctrl-C, when everything
is saved.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.output import note, print_json
from vedere.errors import ConfigError

if TYPE_CHECKING:
    from vedere.train.run import RunConfig

_QUIET_SECONDS = 10.0  # between lines where there is no terminal
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes and how it talks."""

    out: Path | None = None
    """Directory of the run; by default runs/RECIPE."""
    resume: bool = False
    """Go on after the newest checkpoint of the directory, with the config that it keeps."""
    json: bool = False
    """Print one JSON object at the end."""
    pages: int = 12
    """Held-out samples on each sample page; 0: no pages."""


def main(argv: list[str]) -> int:
    """Runs ``vedere train``."""
    from vedere.recipes import RECIPES, get_recipe

    if not argv or argv[0] in ("-h", "--help"):
        print(overview(list(RECIPES)))
        return 0 if argv else 2
    name, *rest = argv
    if name.startswith("-"):
        raise ConfigError(f"the recipe comes first: vedere train RECIPE {name} ... (recipes: {', '.join(RECIPES)})")
    place, config = parse(name, rest, get_recipe(name))
    return run(place, config)


def overview(recipes: Sequence[str]) -> str:
    """What ``vedere train --help`` prints."""
    return "\n".join(
        [
            "usage: vedere train RECIPE [--key value ...] [--out DIR] [--resume] [--json]",
            "",
            f"recipes: {', '.join(recipes)}     (vedere train RECIPE --help lists every option with its value)",
            "",
            "example: vedere train mono-mini --data data/mini --stages.0.optim.lr 1e-4 --out runs/first",
        ]
    )


def parse(name: str, argv: Sequence[str], recipe: RunConfig) -> tuple[Place, RunConfig]:
    """Options over the recipe, or over the config of the run that is resumed.

    Raises:
        ConfigError: the directory holds a run of another recipe.
    """
    where, _ = tyro.cli(Place, args=[a for a in argv if a not in ("-h", "--help")], return_unknown_args=True)
    out = where.out or Path("runs") / name
    if where.resume and (out / "config.json").is_file():
        recipe = saved_config(out, name)

    def options(
        place: Annotated[Place, tyro.conf.arg(name="")], config: Annotated[Any, tyro.conf.arg(name="")]
    ) -> tuple[Place, Any]:
        return place, config

    options.__annotations__["config"] = Annotated[type(recipe), tyro.conf.arg(name="")]
    options.__defaults__ = (Place(out=out), recipe)
    place, config = tyro.cli(
        options,
        args=list(argv),
        prog=f"vedere train {name}",
        description=f"Recipe {name}. Values in brackets are the recipe's.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return place, config


def saved_config(directory: Path, name: str) -> RunConfig:
    """The config that a run's directory keeps.

    Raises:
        ConfigError: it is of another recipe, or of a version of vedere with other keys.
    """
    from vedere.config import load
    from vedere.train.run import RunConfig

    config = load(RunConfig, directory / "config.json")
    if config.recipe != name:
        raise ConfigError(
            f"{directory} holds a run of recipe '{config.recipe}', not '{name}'; resume it by that name, or choose another "
            "--out"
        )
    return config


def run(place: Place, config: RunConfig) -> int:
    """Trains and reports."""
    from vedere.train.loop import Interrupted, Trainer
    from vedere.train.pages import SamplePages

    out = place.out or Path("runs") / config.recipe
    begun = time.perf_counter()
    with progress_of(sum(stage.steps for stage in config.stages)) as progress:
        try:
            trainer = Trainer(
                config,
                out,
                resume=place.resume,
                say=progress.say,
                progress=progress.step,
                on_evaluation=SamplePages(place.pages) if place.pages else None,
            )
            trainer.train()
            status, message = 0, f"done; results in {out}"
        except Interrupted:
            status = INTERRUPTED
            message = f"stopped after step {trainer.done['step']}, everything is saved; go on with: " + again(
                config, out
            )
        except KeyboardInterrupt:
            status = INTERRUPTED
            message = f"stopped at once, the steps since the last checkpoint are lost; go on with: {again(config, out)}"
    note(message)
    if place.json:
        print_json(result(out, config, status, time.perf_counter() - begun))
    return status


def again(config: RunConfig, out: Path) -> str:
    """The command that resumes a run."""
    return f"vedere train {config.recipe} --out {out} --resume"


def result(out: Path, config: RunConfig, status: int, seconds: float) -> dict[str, Any]:
    """The JSON object at the end, from what the run's directory holds."""
    from vedere.train.monitor import read_metrics
    from vedere.train.state import checkpoint_steps

    lines = read_metrics(out / "metrics.jsonl")
    last: dict[str, Any] = next((line for line in reversed(lines) if "loss" in line), {})
    held_out: dict[str, Any] = next((line["held_out"] for line in reversed(lines) if "held_out" in line), {})
    steps = checkpoint_steps(out / "checkpoints") if (out / "checkpoints").is_dir() else []
    return {
        "recipe": config.recipe,
        "directory": str(out),
        "interrupted": status == INTERRUPTED,
        "step": last.get("step", 0),
        "steps": sum(stage.steps for stage in config.stages),
        "stage": last.get("stage"),
        "loss": last.get("loss"),
        "tokens": last.get("tokens", 0),
        "tokens_per_second": last.get("tokens_per_second"),
        "mfu": last.get("mfu"),
        "held_out": {name: {key: finite(value) for key, value in facts.items()} for name, facts in held_out.items()},
        "checkpoint": str(out / "checkpoints" / f"step-{steps[-1]:08d}") if steps else None,
        "seconds": round(seconds, 3),
    }


def finite(value: float) -> float | None:
    """The value, or None for what JSON cannot say."""
    return value if math.isfinite(value) else None


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Progress:
    """Steps as lines on standard error, one every ten seconds at most; where nobody watches.

    Args:
        total: Steps of all stages.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.recent: deque[float] = deque(maxlen=20)
        self.shown = float("-inf")

    def say(self, text: str) -> None:
        """A message for people."""
        note(text)

    def describe(self, values: dict[str, Any]) -> str:
        """Stage, loss, speed and time left after a step."""
        self.recent.append(values["seconds"])
        left = (self.total - values["step"]) * sum(self.recent) / len(self.recent)
        return (
            f"{values['stage']}  loss {values['loss']:.3f}  {values['tokens_per_second']:,.0f} tokens/s  "
            f"MFU {values['mfu']:.0%}  {duration(left)} left"
        )

    def step(self, values: dict[str, Any]) -> None:
        """A step is done."""
        text = self.describe(values)
        now = time.monotonic()
        if now - self.shown >= _QUIET_SECONDS or values["step"] == self.total:
            self.shown = now
            note(f"step {values['step']}/{self.total}  {text}")


class Bar(Progress):
    """A bar on a terminal.

    Args:
        total: Steps of all stages.
        bar: A running `rich.progress.Progress`.
    """

    def __init__(self, total: int, bar: Any) -> None:
        super().__init__(total)
        self.bar = bar
        self.task = bar.add_task("", total=total, text="starting")

    def say(self, text: str) -> None:
        """A message above the bar."""
        self.bar.console.print(text, markup=False, highlight=False)

    def step(self, values: dict[str, Any]) -> None:
        """A step is done."""
        self.bar.update(self.task, completed=values["step"], text=self.describe(values))


@contextlib.contextmanager
def progress_of(total: int) -> Iterator[Progress]:
    """A bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Progress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[text]}", markup=False))
    with RichProgress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        yield Bar(total, bar)
