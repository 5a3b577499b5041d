"""``vedere data recaption SOURCE --out FOLDER``: captions for a picture set by a local model or an endpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.output import note, print_json
from vedere.cli.progress import progress_of
from vedere.errors import ConfigError
from vedere.recaption.captioner import AnswerConfig, Captioner, LocalCaptioner
from vedere.recaption.endpoint import EndpointCaptioner, EndpointConfig
from vedere.recaption.filters import FilterConfig
from vedere.recaption.pictures import PictureSet, open_pictures

if TYPE_CHECKING:
    from vedere.recaption.run import Summary

_LISTED = 20  # unreadable pictures that are named


@dataclass(frozen=True, kw_only=True)
class RecaptionOptions:
    """Write clean captions for a picture set, by a local model or an endpoint; goes on where it stopped."""

    source: Annotated[Path, tyro.conf.Positional]
    """Folder of pictures, .jsonl file in the InternVL form, meta JSON, or a folder with meta.json."""
    out: Path
    """Folder to write, or to go on with."""
    model: str = "mini"
    """Shipped model or folder; with --endpoint the name that the endpoint knows."""
    endpoint: str = ""
    """Base URL of an OpenAI-compatible endpoint: http://localhost:8000/v1."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    root: Path | None = None
    """Folder that the pictures of a .jsonl file are relative to; by default its own."""
    licence: str = ""
    """Licence of pictures for which no record names one."""
    prompt: tuple[str, ...] = ("Describe the picture.",)
    """What is asked; of several, one is drawn for each picture."""
    seed: int = 0
    """Everything is drawn from it."""
    limit: int | None = None
    """Ask about at most so many pictures now."""
    max_new_tokens: int = 128
    """Most tokens of an answer; what is cut off there is dropped."""
    temperature: float = 0.0
    """0 takes the most probable token; above, answers are drawn."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """What is kept; other limits on an old folder filter its answers again and ask nothing."""
    batch: int = 8
    """Questions that a local model answers at once."""
    max_tiles: int | None = None
    """Most tiles of a picture for a local model."""
    device: str | None = None
    """cpu or cuda, for a local model; a GPU is taken if there is one."""
    concurrency: int = 4
    """Questions on their way to an endpoint at once."""
    per_minute: float = 0.0
    """Most questions to an endpoint in a minute; 0: no limit."""
    retries: int = 6
    """Times that an endpoint is asked again about a picture."""
    timeout: float = 120.0
    """Seconds until a try at an endpoint has failed."""
    json: bool = False
    """Print one JSON object instead of text."""


def recaption(options: RecaptionOptions) -> int:
    """Runs ``vedere data recaption``; exit status 130 after Ctrl-C, when all answers are kept and filtered."""
    from vedere.recaption.run import RecaptionConfig
    from vedere.recaption.run import recaption as run

    config = RecaptionConfig(prompts=options.prompt, seed=options.seed, limit=options.limit, filters=options.filters)
    pictures = open_pictures(options.source, root=options.root, licence=options.licence)
    if pictures.videos:
        note(f"{pictures.videos} videos are left out; only pictures are captioned")
    captioner = captioner_of(options)
    begun = time.perf_counter()
    with progress_of("pictures") as progress:
        summary = run(pictures, captioner, options.out, config, progress)
    report(options, pictures, captioner, summary, time.perf_counter() - begun)
    return 0


def captioner_of(options: RecaptionOptions) -> Captioner:
    """The endpoint, or the loaded model."""
    answers = AnswerConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature)
    if options.endpoint:
        if options.model == RecaptionOptions.model:
            raise ConfigError(f"--endpoint {options.endpoint} without --model; say which of its models to ask")
        endpoint = EndpointConfig(
            url=options.endpoint,
            model=options.model,
            key_variable=options.key_variable,
            concurrency=options.concurrency,
            per_minute=options.per_minute,
            retries=options.retries,
            timeout=options.timeout,
        )
        return EndpointCaptioner(endpoint, answers)
    from vedere.infer.session import load

    session = load(options.model, device=options.device, max_tiles=options.max_tiles, max_batch=options.batch, say=note)
    return LocalCaptioner(session, answers)


def report(
    options: RecaptionOptions, pictures: PictureSet, captioner: Captioner, summary: Summary, seconds: float
) -> None:
    """What a folder holds now."""
    if options.json:
        facts: dict[str, Any] = {"out": str(options.out), "model": captioner.identity["model"], **vars(summary)}
        print_json(facts | {"videos": pictures.videos, "seconds": round(seconds, 3)})
        return
    print(
        f"{summary.pictures} pictures: {summary.before} answered before, {summary.asked} now, {summary.left} left; "
        f"{summary.kept} captions kept"
    )
    for reason, count in summary.dropped.items():
        print(f"  {count:6} {reason}")
    for name in summary.unreadable[:_LISTED]:
        print(f"unreadable: {name}")
    if len(summary.unreadable) > _LISTED:
        print(f"... and {len(summary.unreadable) - _LISTED} more")
    print(f"written to {options.out}; what was dropped, and why, is in {options.out / 'dropped.jsonl'}")
