"""A benchmark from the command line or from Python: asks through Inspect, goes on after a kill, writes the result.

``evaluate`` runs the registered task with plainer options. Everything of a run lies in one folder: ``answers.jsonl`` (each
answer as it came), ``logs/`` (Inspect's logs, a new one each time, for ``inspect view``), ``result.json``. Running it again
with the same folder asks only what has no answer yet. Scoring again needs the log alone (`rescore`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vedere.atomic import write_atomically
from vedere.errors import ConfigError, RecordError, VedereError
from vedere.evals.items import Settings
from vedere.evals.suites import suite
from vedere.evals.summary import Asked, summarise

RESULT = "result.json"
OUT = "vedere-evals"
"""Folder of runs that are given none: a folder for each benchmark and model in it."""


def folder_of(benchmark: str, model: str) -> Path:
    """Returns the folder of a run that is given none."""
    return Path(OUT) / re.sub(r"[^\w.-]+", "-", f"{benchmark}-{model}").strip("-")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is evaluated and how.

    Attributes:
        benchmark: Its name.
        data: Its file or folder.
        model: As Inspect names it (``vedere/mini``, ``vedere/FOLDER``, ``openai/gpt-4o``), or a local model alone.
        out: Folder of the run.
        settings: Prompts, split, limit, frames.
        judge: Model that judges; empty: none.
        base_url: Address of an OpenAI-compatible endpoint.
        model_args: Arguments of the provider (``batch``, ``device``, ``max_tiles`` of local models).
        connections: Most questions on their way; None takes the provider's.
        retries: Times that a question is asked again after a time-out, a rate limit or a server's error.
        timeout: Seconds until a try at an endpoint has failed.
    """

    benchmark: str
    data: Path
    model: str
    out: Path
    settings: Settings = field(default_factory=Settings)
    judge: str = ""
    base_url: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    connections: int | None = None
    retries: int = 5
    timeout: int | None = 300


def _inspect() -> None:
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        raise ConfigError(
            "evaluation needs the package inspect-ai; install it with: pip install 'vedere[eval]'"
        ) from None


def evaluate(config: EvalConfig, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Runs a benchmark, or goes on with it.

    Args:
        config: What and how.
        progress: Called with (items through, items).

    Returns:
        What ``result.json`` holds: figures, credit, counts, rules, who answered, the log's name; ``complete`` says whether
        every item has an answer.

    Raises:
        ConfigError: unknown names, a missing judge, or a model that cannot be made.
        RecordError: the data is not right, another run has the folder, or the answers cannot be written.
        VedereError: the run was given up; what was answered is kept.
        KeyboardInterrupt: after Ctrl-C; what was answered is kept.
    """
    _inspect()
    suite(config.benchmark)  # a wrong name is said before anything heavy is imported
    from inspect_ai import eval as inspect_eval

    from vedere.evals.inspect_registry import TASKS
    from vedere.evals.inspect_tasks import WATCH, Watch

    model = model_name(config.model)
    watch = Watch(progress=progress)
    token = WATCH.set(watch)
    try:
        task = TASKS[config.benchmark](
            data=str(config.data), out=str(config.out), judge=config.judge, **asdict(config.settings)
        )
        logs = inspect_eval(
            task,
            model=model,
            model_base_url=config.base_url or None,
            model_args=dict(config.model_args),
            log_dir=str(config.out / "logs"),
            display="none",
            log_level="error",
            ctl_server=False,
            max_connections=config.connections,
            max_retries=config.retries,
            attempt_timeout=None if model.startswith("vedere/") else config.timeout,  # ours may wait for their turn
        )
    except VedereError:
        raise
    except Exception as error:
        raise _as_ours(error) from error
    finally:
        WATCH.reset(token)
        for store in watch.stores:
            store.close()
    if not logs or logs[0].status == "cancelled":
        raise KeyboardInterrupt
    return _finish(config, logs[0], sum(store.reused for store in watch.stores))


def model_name(name: str) -> str:
    """Returns a model's name for Inspect: ``mini``, a folder or ``vedere/...`` is one of ours.

    Raises:
        ConfigError: a name without a provider that is no local model.
    """
    if name == "mini" or Path(name).is_dir():
        return f"vedere/{name}"
    if "/" not in name:
        raise ConfigError(
            f"model '{name}' is neither a shipped model nor a folder; expected mini, a folder, or PROVIDER/MODEL such as "
            "openai/gpt-4o or vedere/ORG/NAME"
        )
    return name


def _as_ours(error: Exception) -> VedereError:
    """What Inspect raises before a run begins: providers that are not installed, keys that are not set."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, VedereError):
            return type(seen)(str(seen))
        seen = seen.__cause__ or seen.__context__
    return ConfigError(f"the evaluation cannot begin: {' '.join(str(error).split())[:600]}")


def _finish(config: EvalConfig, log: Any, reused: int) -> dict[str, Any]:
    asked, failed, why = read_samples(log)
    if not asked:
        cause = why or (in_words(log.error.message) if log.error else "no sample was asked")
        raise VedereError(f"no item has an answer: {' '.join(cause.split())[:600]}")
    place = Path(str(log.location).removeprefix("file://"))
    result = {
        **about_log(log),
        **summarise(suite(config.benchmark), asked, failed),
        "complete": failed == 0 and log.status == "success",
        "reused": reused,
        "first_failure": " ".join(why.split())[:600],
        "log": f"logs/{place.name}",
    }

    def write(path: Path) -> None:
        path.write_text(json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    write_atomically(config.out / RESULT, write)
    return result


def about_log(log: Any) -> dict[str, Any]:
    """Returns what a log says of its run: benchmark, model, data, prompts, settings, judge, versions, dates."""
    told: dict[str, Any] = dict((log.eval.metadata or {}).get("vedere", {}))
    told.pop("rules", None)  # those of the run; the figures name the ones that made them
    models = [who for sample in log.samples or [] if (who := sample.metadata.get("vedere", {}).get("model"))]
    return {
        **told,
        "model": models[0] if models else {"model": log.eval.model},
        "asked_on": log.eval.created,
    }


_GIVEN_UP = {
    "APIConnectionError": "the endpoint cannot be reached",
    "AttemptTimeoutError": "the endpoint did not answer in time",
    "APITimeoutError": "the endpoint did not answer in time",
    "RateLimitError": "the endpoint takes no more requests for now",
    "InternalServerError": "the endpoint has an error of its own",
}


def in_words(message: str) -> str:
    """Returns what a sample failed of; where all tries failed alike, what of and what to change."""
    found = re.search(r"RetryError\(.*raised (\w+)>", message)
    if found is None:
        return message
    what = _GIVEN_UP.get(found[1], "the endpoint failed")
    return (
        f"{what} ({found[1]}), in all tries: is its address right, is it up? --timeout and --retries give it more time"
    )


def read_samples(log: Any) -> tuple[list[Asked], int, str]:
    """Returns the items with answers in the data's order, the number of failed samples, and what the first one failed of."""
    from vedere.evals.inspect_tasks import asked_of

    asked: list[Asked] = []
    failed, why = 0, ""
    order = {str(name): place for place, name in enumerate(log.eval.dataset.sample_ids or [])}
    for sample in log.samples or []:
        one = None if sample.error else asked_of(sample.metadata)
        if one is None:
            failed += 1
            why = why or (in_words(sample.error.message) if sample.error else "it was not asked")
        else:
            asked.append(one)
    asked.sort(key=lambda one: order.get(one.id, len(order)))
    missing = len(order) - len(asked) - failed
    return asked, failed + max(0, missing), why


def read_log(path: Path) -> Any:
    """Returns a log of Inspect that a task of vedere wrote.

    Args:
        path: ``.eval`` or ``.json`` file.

    Raises:
        RecordError: no such log, or one of another task.
    """
    _inspect()
    from inspect_ai.log import read_eval_log

    if not path.is_file():
        raise RecordError(
            f"{path} does not exist; expected a log of 'vedere eval' or 'inspect eval', such as logs/....eval"
        )
    try:
        log = read_eval_log(str(path.absolute()))
    except Exception as error:  # whatever the reader of a damaged archive meets
        raise RecordError(f"{path.name} is no log of Inspect ({' '.join(str(error).split())[:200]})") from None
    told = (log.eval.metadata or {}).get("vedere")
    if not isinstance(told, dict) or "benchmark" not in told:
        raise RecordError(f"{path.name} is a log of the task '{log.eval.task}'; expected one of vedere's benchmarks")
    return log


def rescore(path: Path) -> dict[str, Any]:
    """Scores a finished log again, with nothing but the log.

    Args:
        path: As for `read_log`.

    Raises:
        RecordError: as `read_log`.
        ConfigError: its benchmark is not known here.
    """
    log = read_log(path)
    asked, failed, why = read_samples(log)
    if not asked:
        cause = f" (the first failed of: {' '.join(why.split())[:300]})" if why else ""
        raise RecordError(
            f"{path.name} has no answers{cause}; run the benchmark again with the same --out to go on with it"
        )
    return {
        **about_log(log),
        **summarise(suite(str(log.eval.metadata["vedere"]["benchmark"])), asked, failed),
        "log": path.name,
    }
