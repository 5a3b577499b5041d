"""A benchmark as a task of Inspect AI: samples, the solver that asks, the scorer that hands over to the pure rules.

The log is the product: each sample keeps under ``vedere`` in its metadata the prompt's texts, frame numbers and SHA-256 of
every medium, the model with its hash, what the judge said, and the record that is scored. A medium that cannot be read makes
its item ``not_asked``, scored as an empty answer and counted; a model that cannot be reached makes a failed sample, which is
in no figure and is asked again by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from vedere import __version__
from vedere.answers import ANSWER_RULES_VERSION
from vedere.config import nearest
from vedere.errors import ConfigError, MediaError, PromptError, RecordError
from vedere.evals.answer_store import AnswerStore, answer_key
from vedere.evals.benchmarks import SCORING_RULES_VERSION
from vedere.evals.inspect_identity import drawn, identity, nameless
from vedere.evals.inspect_media import carry, logged_messages, sending
from vedere.evals.items import Benchmark, Frames, Item, Prompt, Settings, Sound, select
from vedere.evals.records import FINAL_RULE, Row
from vedere.evals.summary import Asked, flat, shown, summarise

KEY = "vedere"
"""Name under which a sample's metadata hold what vedere records."""
_TOLERATED = 0.05  # share of samples that may fail before a run is given up


@dataclass(kw_only=True)
class Watch:
    """What a caller of Inspect wants of the tasks that it starts.

    Attributes:
        progress: Called with (items through, items) after each item.
        stores: The stores that were opened, to close after the run.
    """

    progress: Callable[[int, int], None] | None = None
    stores: list[AnswerStore] = field(default_factory=list)


WATCH: ContextVar[Watch | None] = ContextVar("watch of evaluations", default=None)
"""Set by `vedere.evals.run` around a call of Inspect."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the solver of one task works with, and what it found: ``done`` is by item."""

    benchmark: Benchmark
    items: Mapping[str, Item]
    settings: Settings
    store: AnswerStore
    judge: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)


def make_task(benchmark: Benchmark, data: Path, out: Path, settings: Settings, judge: str = "") -> Task:
    """Loads a benchmark and returns its task.

    Args:
        benchmark: What is asked.
        data: Folder of its files, or the file.
        out: Folder of the answers kept.
        settings: How it is run.
        judge: Model that judges, as Inspect names it; empty: none.

    Raises:
        RecordError: the data is not right, or another run has ``out``.
        ConfigError: a judge that is needed and missing, or given and without use; an unknown prompt set.
    """
    check_judge(benchmark, judge)
    check_prompts(benchmark, settings.prompts)
    check_blind(benchmark, settings)
    items = select(benchmark.load(data, settings), settings.limit, settings.seed)
    store = AnswerStore(out)
    watch = WATCH.get()
    if watch is not None:
        watch.stores.append(store)
    run = Run(
        benchmark=benchmark,
        items={item.id: item for item in items},
        settings=settings,
        store=store,
        judge=judge,
    )
    samples = [
        Sample(
            id=item.id,
            input=item.question or item.id,
            target=item.target,
            choices=[f"{letter}. {text}" for letter, text in item.options.items()] or None,
            metadata={**item.metadata, "group": item.group or item.id},
        )
        for item in items
    ]

    return Task(
        name=benchmark.name,
        dataset=MemoryDataset(samples, name=benchmark.name),
        solver=ask(run),
        scorer=rules(run),
        config=GenerateConfig(temperature=0.0),
        fail_on_error=float(max(10, int(_TOLERATED * len(items)))),
        metadata=about(benchmark, data, settings, judge),
    )


def check_judge(benchmark: Benchmark, judge: str) -> None:
    """Refuses a benchmark without the judge it needs, and a judge without a benchmark that asks one.

    Raises:
        ConfigError: as said.
    """
    if benchmark.judge is None and judge:
        raise ConfigError(f"{benchmark.name} is scored by rules alone and asks no judge; leave '{judge}' out")
    if benchmark.judge is not None and benchmark.judge.required and not judge:
        raise ConfigError(
            f"{benchmark.name} is graded by a judge model; name one with --judge (with inspect: -T judge=openai/...)"
        )


def check_blind(benchmark: Benchmark, settings: Settings) -> None:
    """Refuses ``blind`` where a prompt set of the benchmark's own leaves its media out.

    Raises:
        ConfigError: as said.
    """
    own = next((name for name in ("blind", "text-only") if name in benchmark.prompt_sets), "")
    if settings.blind and own:
        raise ConfigError(f"{benchmark.name} has words of its own for that; give --prompts {own} in place of --blind")


def check_prompts(benchmark: Benchmark, prompts: str) -> None:
    """Refuses a prompt set that the benchmark does not have.

    Raises:
        ConfigError: with the nearest one.
    """
    if prompts and prompts not in benchmark.prompt_sets:
        raise ConfigError(
            f"{benchmark.name} has no prompt set '{prompts}'{nearest(prompts, benchmark.prompt_sets)} (it has "
            f"{', '.join(benchmark.prompt_sets)})"
        )


def about(benchmark: Benchmark, data: Path, settings: Settings, judge: str) -> dict[str, Any]:
    """What a log says of the run as a whole."""
    prompts = settings.prompts or benchmark.prompt_sets[0]
    return {
        KEY: {
            "benchmark": benchmark.name,
            "version": __version__,
            "data": data.name,
            "prompts": prompts,
            "prompts_version": benchmark.prompts_version(prompts),
            "settings": asdict(settings),
            "judge": judge,
            "rules": {"scoring": SCORING_RULES_VERSION, "answers": ANSWER_RULES_VERSION},
        }
    }


@solver
def ask(run: Run) -> Solver:
    """Asks the model about an item, and the judge about its answer; what was asked before is taken from the store."""
    through = 0

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        nonlocal through
        try:
            return await _solve(run, state)
        finally:
            through += 1
            watch = WATCH.get()
            if watch is not None and watch.progress is not None:
                watch.progress(through, len(run.items))
            if through == len(run.items):
                run.store.close()

    return solve


async def _solve(run: Run, state: TaskState) -> TaskState:
    item = run.items[str(state.sample_id)]
    kept: dict[str, Any] = {"id": item.id, "group": item.group, "shown": dict(item.metadata)}
    state.metadata[KEY] = kept
    model = carry(get_model())
    output, final = ModelOutput.from_content(str(model), ""), dict[str, str]()
    try:
        sent = await anyio.to_thread.run_sync(_ready, run, item)
        state.messages = sent.messages
        kept["prompt"] = {**sent.texts, "media": sent.media}
        output, facts = await answer(model, sent, run.store)
        kept |= facts
        if sent.prompt.final_rule:
            final = {FINAL_RULE: sent.prompt.final_rule}
    except (MediaError, PromptError) as error:
        kept["not_asked"] = str(error)
    state.output = output
    state.messages = [*state.messages, output.choices[0].message] if output.choices else state.messages
    record: dict[str, Any] = {**item.record, run.benchmark.answer_field: _clean(output.completion), **final}
    if "not_asked" in kept:
        record["missing"] = True  # for scorers that count such questions apart
    if run.benchmark.judge is not None:
        record |= await judged(run, record, kept)
    kept["record"] = record
    run.done[item.id] = {KEY: kept}
    return state


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A prompt made ready: messages for the log, and what its answer is known by."""

    prompt: Prompt
    messages: list[ChatMessage]
    texts: Mapping[str, Any]
    media: Sequence[Mapping[str, Any]]


def _ready(run: Run, item: Item) -> Sent:
    return ready(run.benchmark.prompt(item, run.settings))


def ready(prompt: Prompt) -> Sent:
    """Reads and hashes a prompt's media.

    Raises:
        MediaError: one of them cannot be read.
    """
    return Sent(prompt=prompt, messages=logged_messages(prompt), texts=_texts(prompt), media=_media(prompt))


async def answer(
    model: Model, sent: Sent, store: AnswerStore, *, temperature: float | None = None, number: int = 0
) -> tuple[ModelOutput, dict[str, Any]]:
    """Returns a model's answer, from the store if it is there, and facts for the log.

    Args:
        model: A carried model.
        sent: What is asked.
        store: Answers kept.
        temperature: Of this answer; None takes the run's.
        number: Number of the try; each has an answer of its own.
    """
    who = await identity(model)
    config = GenerateConfig(temperature=temperature)
    if model.config.max_tokens is None:
        config.max_tokens = sent.prompt.max_new_tokens
    parts = {"who": who, "texts": sent.texts, "media": nameless(sent.media), "drawn": drawn(model.config.merge(config))}
    key = answer_key({**parts, "try": number})
    found = store.find(key)
    if found is not None:
        output = ModelOutput.from_content(str(model), str(found["text"]), stop_reason=found.get("stop", "stop"))
        return output, {"model": who, "answer": {"key": key, "from_store": True}}
    with sending(sent.prompt):
        output = await model.generate(sent.messages, config=config)
    usage = output.usage.model_dump(exclude_none=True) if output.usage else {}
    fields = {"text": _clean(output.completion), "stop": output.stop_reason, "usage": usage, "seconds": output.time}
    store.keep(key, fields)
    return output, {"model": who, "answer": {"key": key, "from_store": False}}


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: some endpoints send half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


async def judged(run: Run, record: Mapping[str, Any], kept: dict[str, Any]) -> Mapping[str, Any]:
    """Returns the judge's fields of a record; what it said goes into ``kept``."""
    judge = run.benchmark.judge
    assert judge is not None
    prompt = None if kept.get("not_asked") and judge.required else judge.ask(record)
    if prompt is None:
        settled = not kept.get("not_asked")
        kept["judge"] = {"kind": "rules" if settled else "unread", "replies": []}
        return {} if settled else judge.unread(record)
    replies: list[str] = []
    kept["judge"] = {"kind": "unread", "replies": replies, "prompt": prompt.text}
    if run.judge:
        model = carry(get_model(run.judge))
        sent = await anyio.to_thread.run_sync(ready, prompt)
        for number in range(judge.tries):
            warmth = 0.0 if number == 0 else 0.5  # the same question at 0 gives the same reply
            output, facts = await answer(model, sent, run.store, temperature=warmth, number=number)
            replies.append(_clean(output.completion))
            fields = judge.read(output.completion, record)
            if fields is not None:
                kept["judge"] |= {"kind": "read", **facts["model"]}
                return fields
    return judge.unread(record)


def _texts(prompt: Prompt) -> dict[str, Any]:
    return {
        "text": prompt.text,
        "system": prompt.system,
        "prefill": prompt.prefill,
        "max_new_tokens": prompt.max_new_tokens,
        "max_tiles": prompt.max_tiles,
    }


def _media(prompt: Prompt) -> list[dict[str, Any]]:
    found = []
    for medium in prompt.media:
        facts: dict[str, Any] = {"name": medium.name, "sha256": medium.digest()}
        if isinstance(medium, Frames):
            facts |= {"kind": "frames", "indices": list(medium.indices), "times": list(medium.times)}
        elif isinstance(medium, Sound):
            facts |= {"kind": "sound"}
        else:
            facts |= {"kind": "picture", "upscale": medium.upscale}
        found.append(facts)
    return found


def asked_of(metadata: Mapping[str, Any]) -> Asked | None:
    """Returns the item that a sample's metadata tell of; None for a sample that did not get so far."""
    kept = metadata.get(KEY)
    if not isinstance(kept, dict) or not kept.get("record"):
        return None
    return Asked(
        id=str(kept["id"]),
        record=kept["record"],
        group=str(kept.get("group", "")),
        metadata=kept.get("shown", {}),
        not_asked=str(kept.get("not_asked", "")),
        judge=str(kept.get("judge", {}).get("kind", "")),
    )


def rules(run: Run) -> Scorer:
    """The benchmark's pure scorer: a verdict for each sample, and the figures over all of them as metrics."""

    @metric(name="figures")
    def figures() -> Metric:
        def compute(scores: list[SampleScore]) -> Value:
            found = [run.done.get(str(score.sample_id), score.sample_metadata or {}) for score in scores]
            asked = [one for metadata in found if (one := asked_of(metadata)) is not None]
            if not asked:
                return {}
            order = {name: place for place, name in enumerate(run.items)}
            asked.sort(key=lambda one: order[one.id])
            try:
                return dict(flat(summarise(run.benchmark, asked)["figures"]))
            except RecordError:  # a cut of the data that has no whole groups; the log still has every record
                return {}

        return compute

    @scorer(metrics=[figures(), stderr(cluster="group")], name="rules")
    def build() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            one = asked_of(state.metadata)
            credit, read = shown(None if one is None else run.benchmark.verdict(Row(1, one.record)))
            return Score(value=credit, answer=read, explanation=state.output.completion[:2000])

        return score

    return build()
