"""Every benchmark end to end on small data with a scripted model: figures, resuming, logs, re-scoring."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.log import read_eval_log
from inspect_ai.model import ContentImage
from PIL import Image

import small_benchmarks
from scripted import SCRIPT, run, start
from vedere.answers import ANSWER_RULES_VERSION
from vedere.errors import ConfigError, RecordError, VedereError
from vedere.evals.answer_store import AnswerStore
from vedere.evals.benchmarks import SCORING_RULES_VERSION
from vedere.evals.inspect_tasks import make_task
from vedere.evals.items import Frames, Item, Prompt, Settings
from vedere.evals.records import Row, Scores
from vedere.evals.run import rescore
from vedere.evals.suites import SUITES, suite
from vedere.evals.summary import Asked, flat, summarise

JUDGED = ("mmvet", "llava-wild")


def oracle(name: str, data: Path) -> dict[str, str]:
    """Text of a prompt -> the right answer."""
    benchmark, settings = suite(name), Settings()
    found: dict[str, str] = {}
    for item in benchmark.load(data, settings):
        text = benchmark.prompt(item, settings).text.replace("<image>", "")
        found[text] = small_benchmarks.perfect(name, item.target, text)
    return found


def figure(result: dict[str, Any], name: str) -> float:
    return dict(flat(result["figures"]))[name]


def made(name: str, folder: Path) -> Path:
    folder.mkdir()
    return small_benchmarks.MAKERS[name](folder)


def logs(out: Path) -> list[Path]:
    return sorted((out / "logs").glob("*.eval"))


def judge_says(name: str) -> Any:
    return lambda text, messages: "1.0" if name == "mmvet" else "8 8\nEqual."


def test_small_data_is_of_benchmarks():
    assert set(small_benchmarks.MAKERS) <= set(SUITES)


@pytest.mark.parametrize("name", list(small_benchmarks.MAKERS))
def test_right_answers_get_everything_and_the_log_scores_the_same(name, tmp_path):
    data, judge = made(name, tmp_path / "data"), "scripted/judge" if name in JUDGED else ""
    right = oracle(name, data)
    start({"model": lambda text, messages: right[text.replace("<image>", "")], "judge": judge_says(name)})
    result = run(name, data, tmp_path / "out", judge=judge)
    key, best = small_benchmarks.BEST[name]
    assert figure(result, key) == pytest.approx(best, abs=1e-9)
    assert result["complete"]
    assert result["counts"]["answered"] == result["counts"]["items"] == len(suite(name).load(data, Settings()))
    (log,) = logs(tmp_path / "out")
    again = rescore(log)
    assert (again["figures"], again["counts"], again["credit"]) == (
        result["figures"],
        result["counts"],
        result["credit"],
    )
    assert json.loads((tmp_path / "out" / "result.json").read_text())["figures"] == result["figures"]
    assert (again["judge"], again["prompts"]) == (judge, "official")


@pytest.mark.parametrize("name", [name for name in small_benchmarks.MAKERS if name not in JUDGED])
@pytest.mark.parametrize("answer", ["~", "", "z" * 100_000, "无法回答"], ids=["sign", "nothing", "100 kB", "Chinese"])
def test_senseless_answers_get_nothing(name, answer, tmp_path):
    benchmark = suite(name)
    items = benchmark.load(made(name, tmp_path / "data"), Settings())
    records = [{**item.record, benchmark.answer_field: answer} for item in items]
    result = summarise(benchmark, [Asked(id=item.id, record=one) for item, one in zip(items, records, strict=True)])
    key, _ = small_benchmarks.BEST[name]
    floor = {"pope": 2 / 3, "mathvista": 50.0, "visualprocessbench": 100 / 3}  # what a rule makes of nonsense
    assert figure(result, key) <= floor.get(name, 0.0) + 1e-9
    assert result["counts"]["answered"] == len(items)
    for record in records:
        benchmark.verdict(Row(1, record))


def test_what_was_answered_is_not_asked_again(tmp_path):
    data, out = made("pope", tmp_path / "data"), tmp_path / "out"

    def until_the_third(text: str, messages: Any) -> str:
        if len(SCRIPT.asked) >= 3:
            raise RuntimeError("the endpoint is gone")
        return "yes"

    start({"model": until_the_third})
    first = run("pope", data, out)
    assert (first["complete"], first["counts"]["answered"], first["counts"]["failed"]) == (False, 2, 2)
    assert "the endpoint is gone" in first["first_failure"]
    asked = {text for _, text, _ in SCRIPT.asked[:2]}
    start({"model": lambda text, messages: "yes"})
    second = run("pope", data, out)
    assert (second["complete"], second["reused"], second["counts"]["answered"]) == (True, 2, 4)
    assert not asked & {text for _, text, _ in SCRIPT.asked}
    start({})  # would fail if anything were asked
    third = run("pope", data, out)
    assert (third["figures"], third["reused"]) == (second["figures"], 4)
    assert len(logs(out)) == 3


def test_another_model_prompt_or_picture_is_asked_anew(tmp_path):
    data, out = made("scienceqa", tmp_path / "data"), tmp_path / "out"
    start({"model": lambda text, messages: "A", "other": lambda text, messages: "B"})
    run("scienceqa", data, out)
    assert run("scienceqa", data, out, model="scripted/other")["reused"] == 0
    assert run("scienceqa", data, out, settings=Settings(prompts="internvl"))["reused"] == 0
    rows = [
        {**small_benchmarks._choices(n), "image": small_benchmarks.encoded(n + 5), "hint": "Look."} for n in range(2)
    ]
    small_benchmarks.table(data, rows)
    assert run("scienceqa", data, out)["reused"] == 0
    assert len(SCRIPT.asked) == 8


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    data, out = made("ai2d", tmp_path / "data"), tmp_path / "out"
    start({"model": lambda text, messages: "A"})
    store = AnswerStore(out)
    with pytest.raises(
        RecordError, match=r"another evaluation is writing to .*out; wait for it, or give .*--out FOLDER"
    ):
        run("ai2d", data, out)
    store.close()
    assert run("ai2d", data, out)["complete"]


def test_a_kill_loses_no_answer_that_was_written(tmp_path):
    """What a kill leaves: half a line at the journal's end, and Inspect's unfinished log."""
    data, out = made("ai2d", tmp_path / "data"), tmp_path / "out"
    start({"model": lambda text, messages: "A"})
    run("ai2d", data, out)
    journal = out / "answers.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])
    start({"model": lambda text, messages: "A"})
    result = run("ai2d", data, out)
    assert (result["reused"], len(SCRIPT.asked), result["complete"]) == (1, 1, True)


def test_an_unreadable_picture_is_counted_and_the_rest_goes_on(tmp_path):
    data, out = made("realworldqa", tmp_path / "data"), tmp_path / "out"
    rows = [small_benchmarks._choices(0), {**small_benchmarks._choices(1), "image": "A" * 100}]
    small_benchmarks.table(data, rows)
    start({"model": lambda text, messages: "A"})
    result = run("realworldqa", data, out)
    assert result["counts"] | {"items": 2, "answered": 1, "not_asked": 1, "failed": 0} == result["counts"]
    assert result["figures"]["acc"] == 0.5
    assert len(SCRIPT.asked) == 1
    (sample,) = [one for one in read_eval_log(str(logs(out)[0])).samples if one.id == "1"]
    assert "RealWorldQA_small.tsv line 3" in sample.metadata["vedere"]["not_asked"]


def test_the_log_says_what_was_asked_of_whom(tmp_path):
    data, out = made("mmmu", tmp_path / "data"), tmp_path / "out"
    start({"model": lambda text, messages: "A"})
    run("mmmu", data, out, settings=Settings(prompts="internvl"))
    log = read_eval_log(str(logs(out)[0]), resolve_attachments=True)
    told = log.eval.metadata["vedere"]
    assert (told["prompts"], told["settings"]["prompts"], told["rules"]) == (
        "internvl",
        "internvl",
        {"scoring": SCORING_RULES_VERSION, "answers": ANSWER_RULES_VERSION},
    )
    (kept,) = [one.metadata["vedere"] for one in log.samples if one.id == "validation_Art_1"]
    assert kept["prompt"]["text"].startswith(
        "Image-1: <image>\nImage-2: <image>\nWhat does <image 1> show?\nA. a disc\n"
    )
    assert [medium["upscale"] for medium in kept["prompt"]["media"]] == [2, 1]
    assert all(len(medium["sha256"]) == 64 for medium in kept["prompt"]["media"])
    assert kept["model"] == {"model": "scripted/model"}
    (sent,) = [messages for _, _, messages in SCRIPT.asked if len(pictures(messages)) == 2]
    assert [Image.open(io.BytesIO(contents(one))).size for one in pictures(sent)] == [(96, 96), (48, 48)]
    assert [name for score in log.results.scores for name in score.metrics if name == "stderr"]


def contents(image: ContentImage) -> bytes:
    return base64.b64decode(image.image.partition(",")[2])


def pictures(messages: Any) -> list[ContentImage]:
    return [
        one
        for message in messages
        if not isinstance(message.content, str)
        for one in message.content
        if one.type == "image"
    ]


def test_originals_go_to_the_model_and_thumbnails_into_the_log(tmp_path):
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    noise = Image.frombytes("RGB", (900, 700), random.Random(0).randbytes(900 * 700 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    row = {**small_benchmarks._choices(0), "image": base64.b64encode(buffer.getvalue()).decode()}
    data = small_benchmarks.table(folder / "AI2D_large.tsv", [row])
    start({"model": lambda text, messages: "A"})
    run("ai2d", data, out)
    ((_, _, sent),) = SCRIPT.asked
    assert contents(pictures(sent)[0]) == buffer.getvalue()
    (log,) = logs(out)
    assert log.stat().st_size < 0.1 * len(buffer.getvalue())
    sample = read_eval_log(str(log), resolve_attachments=True).samples[0]
    assert Image.open(io.BytesIO(contents(pictures(sample.messages)[0]))).size == (384, 299)
    assert hashlib.sha256(buffer.getvalue()).hexdigest() == sample.metadata["vedere"]["prompt"]["media"][0]["sha256"]


class Clips:
    """A benchmark of one question about a film."""

    name, prompt_sets, answer_field, judge = "clips", ("official",), "response", None

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        return [Item(id="1", parts=(Frames(file=folder), "What happens?"), record={"answer": "turns"}, group="film")]

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        chosen = tuple(number // 2 for number in range(settings.frames))
        return Prompt(parts=(replace(item.parts[0], indices=chosen, side=64), "What happens?"))

    def prompts_version(self, prompts: str) -> int:
        return 7

    def score(self, records: Any) -> Scores:
        return Scores(figures={"acc": sum(one["answer"] == one["response"] for one in records) / len(records)})

    def verdict(self, row: Row) -> None:
        return None


def test_films_are_logged_as_frame_numbers_and_few_thumbnails(tmp_path):
    film = Path(__file__).parents[2] / "examples" / "square.mp4"
    start({"model": lambda text, messages: "turns"})
    task = make_task(Clips(), film, tmp_path / "out", Settings(frames=20))
    (log,) = inspect_eval(task, model="scripted/model", log_dir=str(tmp_path / "logs"), display="none")
    ((_, _, sent),) = SCRIPT.asked
    assert len(pictures(sent)) == 20
    (sample,) = log.samples
    assert len(pictures(sample.messages)) == 10
    (medium,) = sample.metadata["vedere"]["prompt"]["media"]
    assert (medium["kind"], medium["indices"]) == ("frames", [number // 2 for number in range(20)])
    assert (
        log.eval.metadata["vedere"]["prompts_version"] == 7
    )  # the benchmark's, not that of an image set of the same name
    assert log.results.scores[0].metrics["acc"].value == 1.0


def test_a_judge_that_talks_nonsense_is_asked_again_and_counted(tmp_path):
    data, out = made("mmvet", tmp_path / "data"), tmp_path / "out"
    replies = iter(["As an AI, I cannot grade this.", "7/10", "0.5"])

    def grade(text: str, messages: Any) -> str:
        return next(replies) if "What, 0?" in text else "无法评分" * 10_000

    start({"model": lambda text, messages: "disc", "judge": grade})
    result = run("mmvet", data, out, judge="scripted/judge")
    assert result["figures"]["mean"] == 25.0
    assert result["counts"] | {"judged": 1, "judge_unreadable": 1} == result["counts"]
    assert [name for name, _, _ in SCRIPT.asked].count("judge") == 3 + 5
    start({})
    assert run("mmvet", data, out, judge="scripted/judge")["reused"] == 2 + 3 + 5


def test_a_judge_settles_what_rules_leave_open(tmp_path):
    data, out = made("realworldqa", tmp_path / "data"), tmp_path / "out"
    start({"model": lambda text, messages: "It has the hue of a ripe tomato, clearly.", "judge": lambda text, _: "(A)"})
    alone = run("realworldqa", data, out)
    assert (alone["figures"]["acc"], alone["counts"]["unresolved"], alone["counts"]["judge_unreadable"]) == (0.0, 2, 2)
    judged = run("realworldqa", data, out, judge="scripted/judge")
    assert (judged["figures"]["acc"], judged["counts"]["unresolved"], judged["counts"]["judged"]) == (0.5, 0, 2)
    assert judged["judge"] == "scripted/judge"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mmvet", {}, "mmvet is graded by a judge model; name one with --judge"),
        (
            "pope",
            {"judge": "scripted/judge"},
            "pope is scored by rules alone and asks no judge; leave 'scripted/judge' out",
        ),
        (
            "ai2d",
            {"model": "nonsense/model"},
            "the evaluation cannot begin: Model API nonsense of model 'nonsense/model' not recognized",
        ),
        ("ai2d", {"settings": Settings(split="tset")}, "ai2d has no split 'tset'; this file has none"),
        (
            "ai2d",
            {"model": "vedere/mini", "model_args": {"batches": 3}},
            "model argument 'batches' of vedere/mini is not known",
        ),
    ],
)
def test_what_cannot_run_is_refused(name, fields, message, tmp_path):
    data = made(name, tmp_path / "data")
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(name, data, tmp_path / "out", **fields)


def test_an_unknown_prompt_set_is_refused_before_anything_is_asked(tmp_path):
    start({"model": lambda text, messages: "A"})
    with pytest.raises(ConfigError, match=r"ai2d has no prompt set 'intervl'; did you mean 'internvl'"):
        run("ai2d", made("ai2d", tmp_path / "data"), tmp_path / "out", settings=Settings(prompts="intervl"))
    assert not SCRIPT.asked


def test_a_limit_keeps_groups_whole(tmp_path):
    data = made("mmbench", tmp_path / "data")
    start({"model": lambda text, messages: "A"})
    result = run("mmbench", data, tmp_path / "out", settings=Settings(limit=5, seed=3))
    assert result["counts"]["questions_with_fewer_passes_than_options"] == 0
    assert 2 <= result["counts"]["items"] <= 5


@pytest.mark.parametrize("name", ["vedere/vl-rewardbench", "vedere/vl_rewardbench"])
def test_inspect_finds_a_benchmark_in_both_spellings(name, tmp_path):
    data = made("vl-rewardbench", tmp_path / "data")
    start({"model": lambda text, messages: "1"})
    (log,) = inspect_eval(
        name,
        model="scripted/model",
        task_args={"data": str(data), "out": str(tmp_path / "out")},
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    assert (log.status, log.eval.metadata["vedere"]["benchmark"], len(SCRIPT.asked)) == ("success", "vl-rewardbench", 4)
    assert rescore(logs(tmp_path)[0])["counts"]["answered"] == 4


def test_a_log_whose_questions_all_failed_says_of_what(tmp_path):
    data = made("ai2d", tmp_path / "data")
    start({"model": lambda text, messages: {}[text]})
    with pytest.raises(VedereError, match="no item has an answer: KeyError"):
        run("ai2d", data, tmp_path / "out")
    with pytest.raises(RecordError, match=r"has no answers \(the first failed of: KeyError.*with the same --out"):
        rescore(logs(tmp_path / "out")[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; expected a log of 'vedere eval'"),
        (b"not a log", "is no log of Inspect"),
        (b"", "is no log of Inspect"),
    ],
)
def test_what_is_no_log_is_refused(content, message, tmp_path):
    path = tmp_path / "a.eval"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        rescore(path)
