"""``vedere eval BENCHMARK --model MODEL``: asks a model the questions of a benchmark and scores its answers.

A run lives in one folder and goes on there after Ctrl-C, a kill or a lost connection; nothing is asked twice. It is a run of
Inspect AI underneath: ``inspect view --log-dir FOLDER/logs`` shows its samples, ``inspect eval vedere/BENCHMARK`` does the same
with all of Inspect's options.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.output import note, print_json
from vedere.cli.progress import progress_of
from vedere.cli.score import print_figures
from vedere.config import check_ranges
from vedere.evals.suites import SUITES, data_of, suite

if TYPE_CHECKING:
    from vedere.evals.run import EvalConfig


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Ask a model the questions of a benchmark and score its answers; goes on where it stopped."""

    benchmark: Annotated[str, tyro.conf.Positional]
    """Name of the benchmark; a wrong one lists them all."""
    model: str = "mini"
    """Shipped model, folder, vedere/ORG/NAME of the hub, or any model of Inspect: openai/gpt-4o, openai-api/NAME/MODEL."""
    data: Path | None = None
    """Its file, or the folder that holds it; by default the benchmark's folder in VEDERE_BENCHMARKS."""
    out: Path | None = None
    """Folder of the run, to write or to go on with; by default vedere-evals/BENCHMARK-MODEL."""
    limit: int | None = None
    """Ask at most so many questions; questions that are scored together stay together."""
    seed: int = 0
    """Draws the questions of a limit; 0 takes the first ones."""
    frames: int = 8
    """Frames of a video."""
    subtitles: str = "off"
    """Subtitles of videos, as the benchmark understands them: off, on."""
    frame_rule: str = ""
    """Which frames of a video: middle, vlmeval, linspace, internvl, fps; by default the benchmark's rule."""
    frame_rate: float = 1.0
    """Frames a second of the rule fps, of which --frames are the most."""
    frame_side: int = 0
    """Most pixels a side of a frame; 0 sends frames as they are."""
    frame_layout: str = ""
    """How frames are shown: video, or canvas (all on one picture, XComposer-2.5's way); by default as the prompt set does."""
    sound: bool = False
    """Videos come with their sound, for models that hear."""
    blind: bool = False
    """Ask without pictures: what is right then was not seen (vedere score --blind compares)."""
    judge: str = ""
    """Model that judges answers which rules do not settle, such as openai/gpt-4o."""
    prompts: str = ""
    """Prompt set: official, vlmevalkit, internvl, xcomposer, internvl-cot or internvl-boxed (both reason first); by default the
    benchmark's first."""
    split: str = ""
    """Part of the data."""
    md5: str = ""
    """Checksum that the data file has to have, instead of the published one."""
    base_url: str = ""
    """Address of an OpenAI-compatible endpoint, for a model openai-api/NAME/MODEL."""
    connections: int | None = None
    """Most questions on their way to an endpoint."""
    retries: int = 5
    """Times that an endpoint is asked again after a time-out, a rate limit or an error of its own."""
    timeout: int = 300
    """Seconds until a try has failed."""
    batch: int = 8
    """Questions that a local model answers at once."""
    max_tiles: int | None = None
    """Most tiles of a picture for a local model, where the prompt set says nothing."""
    device: str | None = None
    """cpu or cuda, for a local model; a GPU is taken if there is one."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_ranges(self, frames=1, retries=0, timeout=1, batch=1)
        for name in ("limit", "connections", "max_tiles"):
            if getattr(self, name) is not None:
                check_ranges(self, **{name: 1})


def config_of(options: EvalOptions) -> EvalConfig:
    """What the options ask for.

    Raises:
        ConfigError: an unknown benchmark or model, or no data.
    """
    from vedere.evals.items import Settings
    from vedere.evals.run import EvalConfig, folder_of, model_name

    suite(options.benchmark)
    model = model_name(options.model)
    settings = Settings(
        prompts=options.prompts,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        frames=options.frames,
        subtitles=options.subtitles,
        md5=options.md5,
        frame_rule=options.frame_rule,
        frame_rate=options.frame_rate,
        frame_side=options.frame_side,
        frame_layout=options.frame_layout,
        sound=options.sound,
        blind=options.blind,
    )
    own: dict[str, Any] = {"batch": options.batch, "max_tiles": options.max_tiles, "device": options.device}
    local = model.startswith("vedere/")
    return EvalConfig(
        benchmark=options.benchmark,
        data=data_of(options.benchmark, options.data),
        model=model,
        out=options.out or folder_of(options.benchmark, model),
        settings=settings,
        judge=options.judge,
        base_url=options.base_url,
        model_args={name: value for name, value in own.items() if value is not None} if local else {},
        connections=options.connections,
        retries=options.retries,
        timeout=options.timeout,
    )


def main(argv: list[str]) -> int:
    """Runs ``vedere eval``; exit status 1 if questions have no answer, 130 after Ctrl-C, when all answers are kept."""
    about = f"{__doc__}\n\nBenchmarks: {', '.join(SUITES)}."
    options = tyro.cli(
        EvalOptions, args=argv, prog="vedere eval", description=about, config=(tyro.conf.FlagCreatePairsOff,)
    )
    config = config_of(options)
    from vedere.evals.run import evaluate

    try:
        with progress_of("questions") as progress:
            result = evaluate(config, progress)
    except KeyboardInterrupt:
        note(f"vedere eval: the answers so far are kept in {config.out}; run the same command again to go on")
        raise
    counts = result["counts"]
    if result["reused"]:
        note(f"vedere eval: {result['reused']} answers were there already")
    if counts["not_asked"]:
        note(
            f"vedere eval: {counts['not_asked']} questions could not be asked (a picture or video); they count as wrong"
        )
    if not result["complete"]:
        why = f" ({result['first_failure']})" if result["first_failure"] else ""
        note(
            f"vedere eval: {counts['failed']} of {counts['items']} questions have no answer{why}; they are in no figure. Run "
            "the same command again to ask them"
        )
    if options.json:
        print_json(result)
    else:
        report(result, config.out)
    return 0 if result["complete"] else 1


def report(result: dict[str, Any], out: Path) -> None:
    """Prints tables."""
    print_figures(str(result["benchmark"]), result["figures"], result["counts"])
    credit = result["credit"]
    if credit:
        print(
            f"mean credit {credit['mean']:.4f}, standard error {credit['standard_error']:.4f} over {credit['groups']} groups"
        )
    who = " ".join(
        f"{name} {value[:16]}" if name == "sha256" else str(value) for name, value in result["model"].items()
    )
    judge = f", judge {result['judge']}" if result["judge"] else ""
    print(f"{who}, prompts {result['prompts']}{judge}, rules version {result['rules']['scoring']}")
    print(f"written to {out / 'result.json'}; pictures, prompts and answers: inspect view --log-dir {out / 'logs'}")
