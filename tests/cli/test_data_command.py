"""``vedere data``: building, showing and checking corpora."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import small_runs
from vedere.cli import main
from vedere.data.mixture import open_meta
from vedere.errors import PackageError
from vedere.recipes import get_recipe
from vedere.text.tokenizer import Tokenizer
from vedere.train.run import preparer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ground")
    small_runs.language_model(root / "lm")
    small_runs.corpus(root / "data")
    return root


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["data", *argv])
    out, err = capsys.readouterr()
    return status, out, err


def test_build_writes_a_corpus_that_check_finds_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vedere.data import build

    def no_network(*_: object) -> Path:
        raise PackageError("no network in tests")

    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vedere.packages._run", no_network)
    whole = build.build_corpus
    monkeypatch.setattr(build, "build_corpus", lambda out, **given: whole(out, **given, heldout=5))
    out_dir = tmp_path / "mini"
    status, out, err = run(capsys, "build", "mini", "--out", str(out_dir), "--size", "120", "--seed", "3", "--json")
    assert status == 0
    summary = json.loads(out)
    assert summary["seed"] == 3
    assert {"scenes", "words", "drawings"} <= set(summary["records"]["concept"])
    assert "skipped captions: " in err
    assert "skipped emoji: " in err
    status, out, _ = run(capsys, "check", str(out_dir / "concept"))
    assert status == 0
    assert "0 bad" in out
    assert "CC0-1.0" in out
    status, out, _ = run(capsys, "build", "mini", "--out", str(tmp_path / "again"), "--size", "120", "--seed", "3")
    assert status == 0
    assert out.splitlines()[0].split() == ["kind", *summary["records"], "pictures", "blind", "accuracy"]
    assert (tmp_path / "again" / "concept" / "words.jsonl").read_bytes() == (
        out_dir / "concept" / "words.jsonl"
    ).read_bytes()
    status, _, err = run(capsys, "build", "mini", "--out", str(out_dir))
    assert status == 2
    assert "is not an empty folder" in err


def test_build_takes_kinds_shares_and_workers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["build", "mini", "--size", "40", "--kinds", "scenes", "drawings", "--json"]
    shares = ["--share", "scenes=3", "drawings=1", "--workers", "2"]
    status, out, _ = run(capsys, *argv, "--out", str(tmp_path / "c"), *shares)
    assert status == 0
    assert json.loads(out)["records"]["instruction"] == {"scenes": 30, "drawings": 10}
    for wrong in (["scenes"], ["scenes=many"], ["scenes=1", "scenes=2"]):
        status, _, err = run(capsys, *argv, "--out", str(tmp_path / "d"), "--share", *wrong)
        assert status == 2
        assert f"--share '{wrong[-1]}'; expected KIND=NUMBER, each kind once" in err


def test_show_counts_what_training_would_see(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    argv = ("show", str(place / "data"), "--language-model", str(place / "lm"))
    status, out, _ = run(capsys, *argv, "--json")
    assert status == 0
    found = json.loads(out)
    recipe = get_recipe("mono-mini")
    prepare = preparer(recipe, recipe.stages[0], Tokenizer.load(place / "lm"))
    for part in open_meta(place / "data" / "meta.json"):
        lengths = [len(prepare(part.records[n], random.Random(n)).ids) for n in range(len(part.records))]
        facts = found["sets"][part.name]
        assert facts["records"] == len(lengths)
        assert facts["tokens"]["least"] == min(lengths)
        assert facts["tokens"]["most"] == max(lengths)
        assert facts["tokens"]["mean"] == pytest.approx(sum(lengths) / len(lengths))
    packs = found["packs"]
    assert 0.95 < packs["fill"] <= 1
    mean = sum(facts["tokens"]["mean"] * facts["records"] for facts in found["sets"].values()) / 25
    assert packs["documents"] == pytest.approx(packs["fill"] * 2048 / mean, rel=0.05)
    status, out, _ = run(capsys, *argv, "--samples", "2", "--stage", "S2-instruction")
    assert status == 0
    assert "packs of mono-mini, S2-instruction (" in out
    assert out.splitlines()[1].startswith("colours ")


def test_check_names_file_and_line_of_everything_bad(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = small_runs.corpus(tmp_path / "data")
    path = data / "colours.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("human", "hman")
    lines[2] = lines[2][:-5]
    mute = json.loads(lines[3])
    lines[3] = json.dumps({**mute, "conversations": mute["conversations"][:1]})
    path.write_text("\n".join(lines) + "\n")
    (data / "blue.png").write_bytes((data / "blue.png").read_bytes()[:60])
    status, out, _ = run(capsys, "check", str(data), "--json")
    assert status == 1
    found = json.loads(out)
    assert found["records"] == 25
    text = "\n".join(f"{problem['where']} {problem['problem']}" for problem in found["problems"])
    assert "colours.jsonl:2: turn 1 is from 'hman'; did you mean 'human'?" in text
    assert "colours.jsonl:3: not JSON" in text
    assert "colours.jsonl:4 sample 'colours#3' has no answer to learn from" in text
    assert "colours.jsonl:7 sample 'colours#6': " in text  # blue, cut off
    blue = sum("blue.png" in problem["problem"] for problem in found["problems"])
    assert blue == 2 + 6  # the third blue picture's line does not parse; six pairs hold blue
    assert found["bad"] == len({problem["where"] or problem["problem"] for problem in found["problems"]}) == 11
    status, out, _ = run(capsys, "check", str(data), "--limit", "2")
    assert status == 1
    assert "... and 9 more (--limit 11 lists all)" in out
    assert "25 records in 2 data sets, " in out
    assert out.rstrip().endswith("; 11 bad")


def test_a_quick_check_reads_headers_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = small_runs.corpus(tmp_path / "data")
    whole = (data / "grey.png").read_bytes()
    (data / "grey.png").write_bytes(whole[:60])  # the header is fine, the pixels are not
    assert run(capsys, "check", str(data), "--quick")[0] == 0
    assert run(capsys, "check", str(data))[0] == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("shw", "x"), "unknown command 'data shw'; did you mean 'show'?"),
        (("build", "mimi", "--out", "OUT"), "unknown corpus 'mimi'; did you mean 'mini'? (corpora: mini)"),
        (("check", "/nowhere/meta.json"), "the meta file cannot be read"),
        (("show", "DATA", "--stage", "S1.1-concpt"), "has no stage 'S1.1-concpt'; did you mean 'S1.1-concept'?"),
        (("show", "DATA", "--recipe", "mimi"), "unknown recipe 'mimi'"),
        (("show", "DATA", "--samples", "0"), "--samples 0; expected at least 1"),
    ],
)
def test_messages(
    capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path, argv: tuple[str, ...], message: str
) -> None:
    names = {"OUT": str(tmp_path / "out"), "DATA": str(place / "data")}
    status, out, err = run(capsys, *(names.get(argument, argument) for argument in argv))
    assert status == 2
    assert message in err
    assert out == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(command in out for command in ("build", "show", "check"))
    assert run(capsys)[0] == 2
