"""``vedere safety SET --root DIR --log FILE --unsafe-text``: how a model treats requests whose risk lies in pictures.

Standard output and standard error carry set, id, category and label only. Requests and answers stand in the log, which
its owner alone can read. Harmless requests are asked beside the set unless told otherwise: rates of a model that refuses
everything mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.output import columns, note, print_json
from vedere.errors import ConfigError
from vedere.evals.safety.mis import SPLITS
from vedere.evals.safety.neighbours import NEIGHBOURS
from vedere.evals.safety.rates import NOT_MEASURED

if TYPE_CHECKING:
    from vedere.evals.safety.judges import Judge
    from vedere.evals.safety.log import SafetyLog
    from vedere.evals.safety.records import Request
    from vedere.evals.safety.run import Subject

_BOTH = tuple(name for name, one in NEIGHBOURS.items() if one.harmless)
"""Sets that hold harmless requests of their own."""
SETS = (*(f"mis-{split}" for split in SPLITS), *NEIGHBOURS)


@dataclass(frozen=True, kw_only=True)
class SafetyOptions:
    """Ask a model the requests of a safety set, have the answers judged, print rates."""

    set: Annotated[str, tyro.conf.Positional]
    """Which set; a wrong name lists them."""
    root: Path
    """Folder with the set as published."""
    log: Path
    """The private log: made, or gone on with."""
    unsafe_text: bool = False
    """Your word that you want to read a set that can harm readers. Nothing is read without it."""
    model: str = "mini"
    """Local model (name or folder), or with --endpoint the model asked for there."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible endpoint that serves the model."""
    recorded: Path | None = None
    """Recorded answers (id, response) instead of a model."""
    form: str = "internvl"
    """How two pictures and a question are put: internvl, qwen2-vl, phi-3.5, idefics3, plain."""
    max_new_tokens: int = 1024
    """Most tokens of an answer."""
    judge: str | None = None
    """Judge model at --judge-endpoint, or a local name or folder."""
    judge_endpoint: str | None = None
    """Base URL of the judge's endpoint."""
    judge_recorded: Path | None = None
    """Recorded verdicts instead of a judge."""
    stub_judge: bool = False
    """A stub that knows words of refusal; for trying things out, its figures are no safety figures."""
    no_schema: bool = False
    """Send the judge no JSON schema, for endpoints that refuse ``response_format``."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key of the model's endpoint."""
    judge_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key of the judge's endpoint."""
    harmless: str = "open"
    """Harmless requests beside the set: open (shipped), none, or those of mssbench, mssbench-embodied or vlguard below
    --harmless-root."""
    harmless_root: Path | None = None
    """Folder of the set that --harmless names."""
    limit: int | None = None
    """Only the first so many requests of the set."""
    partial: bool = False
    """Take a set with another number of requests than published."""
    concurrency: int = 4
    """Requests on their way to an endpoint."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: list[str]) -> int:
    """Runs ``vedere safety``."""
    about = f"{__doc__}\n\nSets: {', '.join(SETS)}."
    options = tyro.cli(
        SafetyOptions, args=argv, prog="vedere safety", description=about, config=(tyro.conf.FlagCreatePairsOff,)
    )
    from vedere.evals.safety.rates import summary
    from vedere.evals.safety.run import evaluate

    requests = [*_requests(options), *_harmless(options)]
    judge = _judge(options)
    local = options.endpoint is None and options.recorded is None
    local = local or (options.judge is not None and options.judge_endpoint is None)
    log = evaluate(
        requests,
        _subject(options),
        judge,
        options.log,
        concurrency=1 if local else options.concurrency,
        say=note,
    )
    figures = summary(log.outcomes)
    if options.json:
        print_json({**figures, "subject": dict(log.subject), "judge": dict(log.judge)})
        return 0
    print("\n".join(table(figures)))
    print(f"\nlog with requests and answers, for your eyes only: {options.log}")
    print("\n".join(described(log)))
    return 0


def table(figures: Mapping[str, Any]) -> list[str]:
    """Rates by set and category, over-refusal in the last column of every row."""
    lines: list[str] = []
    for name, one in figures["sets"].items():
        kinds = [kind for kind, figure in one.items() if isinstance(figure, dict) and "value" in figure]
        refused = one["over_refusal"].get("refused") if one["over_refusal"]["measured"] else None
        beside = shown(refused) if refused else "not measured"
        rows = [("", "n", *kinds, "no verdict", "harmless refused")]
        for label, part in [(name, one), *one["by_category"].items()]:
            missing = str(part["requests"] - part["judged"])
            rows.append((label, str(part["judged"]), *(shown(part[kind]) for kind in kinds), missing, beside))
        lines += [*columns(rows), ""]
    harmless = figures["over_refusal"]
    if harmless["measured"]:
        kinds = ["refused", "warned", "helped"]
        rows = [("harmless", "n", *kinds), ("all", str(harmless["judged"]), *(shown(harmless[kind]) for kind in kinds))]
        lines += columns(rows)
    else:
        lines.append(f"over-refusal {NOT_MEASURED}, or none of them has a verdict")
    return lines


def shown(figure: Mapping[str, float] | None) -> str:
    """A rate with its interval: ``12.00 [4.17, 29.96]``."""
    return "-" if figure is None else f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def described(log: SafetyLog) -> list[str]:
    """Who answered and who judged."""
    identity = log.judge.get("identity") or {}
    lines = [f"model: {log.subject.get('model')}, form {log.subject.get('form', '-')}"]
    if identity:
        lines.append(
            f"judge: {identity.get('model')}, {log.judge.get('date')}, temperature {identity.get('temperature', '-')}"
        )
    if identity.get("kind") == "stub":
        lines.append("the judge is a stub that knows words of refusal: these figures are no safety figures")
    return lines


def _requests(options: SafetyOptions) -> list[Request]:
    from vedere.config import nearest
    from vedere.evals.safety.mis import load_mis
    from vedere.evals.safety.neighbours import load_neighbour

    if options.set not in SETS:
        raise ConfigError(f"unknown set '{options.set}'{nearest(options.set, SETS)} (sets: {', '.join(SETS)})")
    how = {"consent": options.unsafe_text, "complete": not options.partial}
    split = options.set.removeprefix("mis-")
    found = (
        load_mis(options.root, split, **how) if split in SPLITS else load_neighbour(options.root, options.set, **how)
    )
    return found[: options.limit]


def _harmless(options: SafetyOptions) -> list[Request]:
    from vedere.evals.safety.neighbours import load_neighbour

    if options.harmless == "none" or options.harmless == options.set:
        return []
    if options.harmless == "open":
        if options.set in _BOTH:
            return []
        from vedere.evals.safety.harmless import harmless_requests

        return harmless_requests()
    if options.harmless not in _BOTH or options.harmless_root is None:
        raise ConfigError(
            f"--harmless {options.harmless}; expected open, none, or one of {', '.join(_BOTH)} with --harmless-root DIR"
        )
    found = load_neighbour(
        options.harmless_root, options.harmless, consent=options.unsafe_text, complete=not options.partial
    )
    return [request for request in found if request.expected == "help"]


def _subject(options: SafetyOptions) -> Subject:
    from vedere.evals.safety.forms import form_of
    from vedere.evals.safety.judges import EndpointSpeaker, LocalSpeaker
    from vedere.evals.safety.run import ModelSubject, RecordedSubject

    form = form_of(options.form)
    if options.recorded is not None:
        return RecordedSubject(options.recorded)
    if options.endpoint is not None:
        speaker = EndpointSpeaker(options.endpoint, options.model, key_variable=options.key_variable)
        return ModelSubject(speaker, form, limit=options.max_new_tokens)
    from vedere.infer.session import load

    return ModelSubject(LocalSpeaker(load(options.model)), form, limit=options.max_new_tokens)


def _judge(options: SafetyOptions) -> Judge | None:
    from vedere.evals.safety.judges import EndpointSpeaker, KeywordJudge, LocalSpeaker, ModelJudge, RecordedJudge

    given = [options.judge is not None, options.judge_recorded is not None, options.stub_judge]
    if sum(given) > 1:
        raise ConfigError("several judges; give one of --judge, --judge-recorded and --stub-judge")
    if options.judge_endpoint is not None and options.judge is None:
        raise ConfigError(f"--judge-endpoint {options.judge_endpoint} without a model; add --judge NAME")
    if options.judge_recorded is not None:
        return RecordedJudge(options.judge_recorded)
    if options.stub_judge:
        return KeywordJudge()
    if options.judge is None:
        if options.set == "siuo-choice" and options.harmless == "none":
            return None  # letters are read by rules
        note("vedere safety: no judge; answers go into the log and can be judged by a later run with --judge")
        return None
    if options.judge_endpoint is not None:
        return ModelJudge(
            EndpointSpeaker(
                options.judge_endpoint,
                options.judge,
                key_variable=options.judge_key_variable,
                structured=not options.no_schema,
            )
        )
    from vedere.infer.session import load

    return ModelJudge(LocalSpeaker(load(options.judge)))
