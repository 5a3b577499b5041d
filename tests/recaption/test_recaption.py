"""Captions for picture sets: records that train reads, resuming after kills, pictures that cannot be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import small_runs
from fake_endpoint import said, serve
from tiny_models import tiny_directory
from vedere.cli import main
from vedere.data.build.record import CAPTION_PROMPTS
from vedere.data.mixture import open_meta
from vedere.errors import ConfigError, RecordError
from vedere.infer.session import load
from vedere.journal import Journal
from vedere.recaption.captioner import Answer, AnswerConfig, Asked, LocalCaptioner
from vedere.recaption.endpoint import EndpointCaptioner, EndpointConfig
from vedere.recaption.filters import FilterConfig
from vedere.recaption.pictures import open_pictures
from vedere.recaption.run import RecaptionConfig, recaption
from vedere.train.loop import Trainer

NAMES = sorted(
    [f"{c}.png" for c in ("red", "green", "blue", "grey")] + [f"more/{c}.jpg" for c in ("red", "green", "blue", "grey")]
)


class Parrot:
    """Says what the colour is, and remembers what it was asked."""

    def __init__(self, model: str = "parrot", script: Any = None) -> None:
        self.asked: list[Asked] = []
        self.model, self.script = model, script

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.model}

    def answers(self, questions: Iterable[Asked]) -> Iterator[tuple[Asked, Answer]]:
        for asked in questions:
            self.asked.append(asked)
            yield (
                asked,
                self.script(asked)
                if self.script
                else Answer(text=f"a square that is called {asked.name or 'nothing'}"),
            )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(out: Path) -> dict[str, bytes]:
    return {
        name: (out / name).read_bytes() for name in ("captions.jsonl", "dropped.jsonl", "meta.json", "recaption.json")
    }


def test_a_folder_becomes_records_that_training_reads(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = recaption(open_pictures(photos, licence="CC0-1.0"), Parrot(), out, RecaptionConfig(seed=3))
    assert (summary.pictures, summary.asked, summary.kept, summary.left) == (9, 8, 8, 0)
    assert summary.unreadable == ("broken.png",)
    (part,) = open_meta(out / "meta.json")
    assert part.name == "recaption"
    samples = [part.records[n] for n in range(len(part.records))]
    assert [sample.name for sample in samples] == [f"recaption#{name}" for name in NAMES]
    for sample in samples:
        Image.open(sample.media[0].path).load()
        assert sample.licence == "CC0-1.0"
        assert sample.conversation[0].content.removeprefix("<image>\n") in CAPTION_PROMPTS
        assert sample.conversation[1].content.startswith("a square that is called ")
    first = read(out / "captions.jsonl")[0]
    assert (first["source_model"], first["prompt"]) == ("parrot", "Describe the picture.")
    (dropped,) = read(out / "dropped.jsonl")
    assert (dropped["image"], dropped["reason"]) == ("broken.png", "unreadable")
    assert "broken.png" in dropped["problem"]


def test_a_stage_trains_on_the_folder_as_it_is(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_runs.bare(monkeypatch)
    recaption(open_pictures(photos), Parrot(), tmp_path / "data" / "semantic")
    small_runs.language_model(tmp_path / "lm")
    config = small_runs.one_stage(small_runs.recipe(tmp_path, held_out=""), data="semantic", steps=2)
    trainer = Trainer(config, tmp_path / "run", say=lambda _: None)
    assert trainer.records == {"semantic": {"recaption": 8}}
    assert trainer.train()["last"]["step"] == 2


def test_nothing_is_asked_twice_and_a_mended_picture_is_asked(photos: Path, tmp_path: Path) -> None:
    pictures, out = open_pictures(photos), tmp_path / "out"
    first = Parrot()
    assert recaption(pictures, first, out, RecaptionConfig(limit=3)).left == 6
    (photos / "broken.png").write_bytes((photos / "red.png").read_bytes())
    second = Parrot()
    summary = recaption(pictures, second, out)
    assert (summary.before, summary.asked, summary.kept) == (2, 7, 9)  # one of the first three was damaged
    assert not {a.name for a in first.asked} & {a.name for a in second.asked}
    whole, third = results(out), Parrot()
    recaption(pictures, third, out)
    assert third.asked == []
    assert results(out) == whole


def test_prompts_seeds_and_phrases_depend_on_the_picture_alone(photos: Path, tmp_path: Path) -> None:
    config = RecaptionConfig(prompts=("What is this?", "Describe it."), seed=1)
    parrots = []
    for name, limits in (("once", [None]), ("thrice", [2, 3, None])):
        parrots.append(Parrot())
        for limit in limits:
            recaption(
                open_pictures(photos), parrots[-1], tmp_path / name, RecaptionConfig(**{**vars(config), "limit": limit})
            )
    once, thrice = ({a.name or a.prompt: (a.prompt, a.seed) for a in parrot.asked} for parrot in parrots)
    assert once == thrice
    assert len({prompt for prompt, _ in once.values()}) == 2
    assert len({seed for _, seed in once.values()}) == len(once)
    assert results(tmp_path / "once") == results(tmp_path / "thrice")


def test_what_is_dropped_is_counted_with_its_reason_and_other_filters_ask_nothing(photos: Path, tmp_path: Path) -> None:
    replies = dict(
        zip(
            NAMES,
            (
                Answer(text="I'm sorry, I can't see it."),
                Answer(text="a red square on", complete=False),
                Answer(text="A grey picture."),
                Answer(text="a red square"),
                Answer(text="A red square!"),
                Answer(text="a red  square"),
                Answer(error="no connection"),
                Answer(text="a blue square"),
            ),
            strict=True,
        )
    )
    out = tmp_path / "out"
    parrot = Parrot(script=lambda asked: replies.get(asked.name, Answer(text="a grey picture")))
    summary = recaption(open_pictures(photos), parrot, out, RecaptionConfig(filters=FilterConfig(equal=2)))
    expected = {"refusal": 1, "cut off": 1, "says nothing": 1, "duplicate": 1, "failed": 1, "unreadable": 1}
    assert summary.dropped == expected
    assert Counter(line["reason"] for line in read(out / "dropped.jsonl")) == expected
    texts = [record["conversations"][1]["value"] for record in read(out / "captions.jsonl")]
    assert texts == ["a red square", "A red square!", "a blue square"]
    (refused,) = [line for line in read(out / "dropped.jsonl") if line["reason"] == "refusal"]
    assert refused["text"] == "I'm sorry, I can't see it."
    again = Parrot()
    wider = recaption(open_pictures(photos), again, out, RecaptionConfig(filters=FilterConfig(equal=3)))
    assert wider.kept == 5
    assert [asked.name for asked in again.asked] == [NAMES[6]]  # the one that failed


def test_records_keep_licence_and_attribution_and_each_picture_comes_once(photos: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "noise"}]
    lines = [
        {"image": "red.png", "conversations": turns, "licence": "CC-BY-2.0", "attribution": "Ann"},
        {"image": ["red.png", "more/blue.jpg"], "conversations": turns, "licence": "CC0-1.0"},
        {"video": "film.mp4", "conversations": turns},
        {"conversations": turns},
    ]
    source = tmp_path / "noisy.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n")
    pictures = open_pictures(source, root=photos)
    assert [p.name for p in pictures.pictures] == ["red.png", "more/blue.jpg"]
    assert pictures.videos == 1
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"noisy": {"root": "photos", "annotation": "noisy.jsonl"}}))
    assert [p.name for p in open_pictures(meta).pictures] == ["red.png", "more/blue.jpg"]
    recaption(open_pictures(meta), Parrot(), tmp_path / "out")
    red, blue = read(tmp_path / "out" / "captions.jsonl")
    assert (red["licence"], red["attribution"]) == ("CC-BY-2.0 AND CC0-1.0", "Ann")
    assert (blue["licence"], blue["attribution"]) == ("CC0-1.0", "")


def test_sets_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist; expected a folder"):
        open_pictures(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="no pictures in it"):
        open_pictures(tmp_path)


def test_a_folder_goes_on_with_what_it_began_with_only(photos: Path, tmp_path: Path) -> None:
    pictures, out = open_pictures(photos), tmp_path / "out"
    recaption(pictures, Parrot(), out, RecaptionConfig(limit=1))
    with pytest.raises(ConfigError, match="model: 'parrot' before, 'crow' now"):
        recaption(pictures, Parrot("crow"), out)
    with pytest.raises(ConfigError, match="seed: 0 before, 1 now"):
        recaption(pictures, Parrot(), out, RecaptionConfig(seed=1))
    with Journal(out / "answers.jsonl"), pytest.raises(RecordError, match="in use by another process"):
        recaption(pictures, Parrot(), out)
    (out / "recaption.json").unlink()
    with pytest.raises(RecordError, match=r"holds answers but no recaption\.json"):
        recaption(pictures, Parrot(), out)


def test_many_failures_in_a_row_end_the_run_and_keep_what_there_is(photos: Path, tmp_path: Path) -> None:
    parrot = Parrot(
        script=lambda asked: (
            Answer(error="no connection") if "more" in asked.name else Answer(text=f"a dog in {asked.name}")
        )
    )
    with pytest.raises(RecordError, match="3 questions in a row failed, the last with: no connection"):
        recaption(open_pictures(photos), parrot, tmp_path / "out", RecaptionConfig(give_up=3))
    assert len(read(tmp_path / "out" / "captions.jsonl")) == 3  # blue, green, grey come before more/


@pytest.mark.parametrize("half", [b"{", b'{"name": "b"}', b'{"name": "\xc3'], ids=["brace", "object", "character"])
def test_a_journal_drops_a_last_line_without_its_end(tmp_path: Path, half: bytes) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append({"name": "a"})
        journal.append({"name": "ü\u2028"})
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    with Journal(path) as journal:
        assert journal.lines == [{"name": "a"}, {"name": "ü\u2028"}]
        assert path.read_bytes() == whole
        journal.append({"name": "c"})
    with Journal(path) as journal:
        assert len(journal.lines) == 3
    path.write_bytes(b"damage\n" + whole)
    with pytest.raises(RecordError, match=r"j\.jsonl:1 is no JSON object"):
        Journal(path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append({"name": "a"})
        monkeypatch.setattr("vedere.journal.os.fsync", full)
        with pytest.raises(RecordError, match="No space left on device"):
            journal.append({"name": "b"})
        monkeypatch.undo()
        assert read(tmp_path / "j.jsonl") == [{"name": "a"}]
        journal.append({"name": "c"})
    assert read(tmp_path / "j.jsonl") == [{"name": "a"}, {"name": "c"}]


def test_killed_at_any_moment_a_run_ends_as_if_it_never_was(photos: Path, tmp_path: Path) -> None:
    """kill -9 while questions are on their way: no answer on disk is lost or asked for again, and the results are equal."""
    code = (
        "import sys; from pathlib import Path\n"
        "from vedere.recaption.endpoint import EndpointCaptioner, EndpointConfig\n"
        "from vedere.recaption.pictures import open_pictures\n"
        "from vedere.recaption.run import recaption\n"
        "captioner = EndpointCaptioner(EndpointConfig(url=sys.argv[1], model='seer', concurrency=2))\n"
        "recaption(open_pictures(Path(sys.argv[2])), captioner, Path(sys.argv[3]))\n"
    )
    out, victims, kills = tmp_path / "out", [], 2
    on_disk: list[set[str]] = []

    def script(number: int, body: dict[str, Any]) -> Any:
        if victims and number in (4, 8):
            os.kill(victims[-1].pid, signal.SIGKILL)
            return None
        return said(f"a square that is number {body['seed']}")

    with serve(script) as endpoint:
        for _ in range(kills + 1):
            victims.append(subprocess.Popen([sys.executable, "-c", code, endpoint.url, str(photos), str(out)]))
            status = victims[-1].wait(60)
            assert status == (-signal.SIGKILL if len(victims) <= kills else 0)
            with Journal(out / "answers.jsonl") as journal:
                on_disk.append({line["name"] for line in journal.lines})
        seeds = Counter(body["seed"] for body in endpoint.asked)
        answered = {line["seed"] for line in read(out / "answers.jsonl")}
        names = [line["name"] for line in read(out / "answers.jsonl")]
    assert on_disk[0] < on_disk[1] < on_disk[2] == {"", *NAMES}
    assert len(names) == len(set(names)) == 9
    assert set(seeds) == answered
    assert sum(seeds.values()) - len(seeds) <= kills * 2  # only what was on its way is asked again
    with serve(lambda _, body: said(f"a square that is number {body['seed']}")) as endpoint:
        captioner = EndpointCaptioner(EndpointConfig(url=endpoint.url, model="seer"))
        recaption(open_pictures(photos), captioner, tmp_path / "whole")
    for name in ("captions.jsonl", "dropped.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("tiny") / "model")


def test_a_local_model_answers_in_batches_as_one_by_one(photos: Path, tmp_path: Path, tiny: Path) -> None:
    config = AnswerConfig(max_new_tokens=6, temperature=1.0)
    for name, batch in (("one", 1), ("many", 4)):
        captioner = LocalCaptioner(load(tiny, max_batch=batch, say=lambda _: None), config)
        summary = recaption(open_pictures(photos), captioner, tmp_path / name)
        assert summary.asked == 8
    texts = [
        {line["name"]: line["text"] for line in read(tmp_path / name / "answers.jsonl")} for name in ("one", "many")
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0].values())) > 2


def test_the_command_captions_and_goes_on(
    photos: Path, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "data",
        "recaption",
        str(photos),
        "--out",
        str(tmp_path / "out"),
        "--model",
        str(tiny),
        "--max-new-tokens",
        "5",
    ]
    loose = ["--filters.language", "any", "--filters.least-words", "1", "--prompt", "what is in the picture"]
    assert main([*argv, *loose, "--limit", "4", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["asked"] + len(first["unreadable"]) == 4
    assert first["left"] == 9 - 4
    assert main([*argv, *loose]) == 0
    out, err = capsys.readouterr()
    assert f"9 pictures: {first['asked']} answered before, {8 - first['asked']} now, 0 left" in out
    assert "unreadable: broken.png" in out
    assert " pictures, " in err
    assert main([*argv, *loose, "--seed", "1", "--json"]) == 2
    assert "seed: 0 before, 1 now" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_the_command_asks_an_endpoint(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda _, body: said(f"a square that is number {body['seed']}")) as endpoint:
        argv = ["data", "recaption", str(photos), "--out", str(tmp_path / "out"), "--endpoint", endpoint.url, "--json"]
        assert main([*argv, "--model", "seer"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["model"], summary["kept"], summary["dropped"]) == ("seer", 8, {"unreadable": 1})
        assert main(argv) == 2
        assert "without --model" in json.loads(capsys.readouterr().out)["error"]["message"]
