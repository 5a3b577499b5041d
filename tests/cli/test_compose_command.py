"""``vedere compose`` and ``vedere gallery``: whole runs with a script or an endpoint, and all that may be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_endpoint import said, serve
from vedere.cli import main
from vedere.compose import encoders

EVIL = '<script>alert(1)</script> & "x"'
ANSWERS = {
    "write": f"A calm lake lies there.\n{EVIL}\nTea grows on hills.",
    "spot": "<Seg0>, <Seg2>",
    "caption": ["a calm lake", "green tea fields"],
    "select": "A",
}


class Words:
    """Texts as sums of random directions, one a word."""

    def texts(self, texts: list[str]) -> np.ndarray[Any, Any]:
        found = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.lower().split():
                row += np.random.default_rng(sum(map(ord, word)) * 7919 + len(word)).normal(size=64)
            row /= np.linalg.norm(row)
        return found


@pytest.fixture(autouse=True)
def _light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and an encoder without weights."""
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    light = encoders.TextEncoder("words", Words(), 64, 0.3)
    monkeypatch.setattr("vedere.compose.gallery.open_encoder", lambda *_: light)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for seed, (name, caption) in enumerate(
        {
            "lake": "a calm lake",
            "tea": "green tea fields",
            "field": "tea fields in rain",
            "lake2": "a lake in a calm night",
        }.items()
    ):
        small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 64)).save(folder / f"{name}.jpg")
        rows.append({"file": f"{name}.jpg", "caption": caption, "author": "A. Person", "licence": "CC-BY-4.0"})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "broken.jpg").write_bytes(b"")
    (tmp_path / "script.json").write_text(json.dumps(ANSWERS))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    status = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    return status, out, err


def composed(capsys: pytest.CaptureFixture[str], place: Path, name: str, *more: str | Path) -> tuple[int, Any, str]:
    given = [
        "compose",
        "West Lake",
        "--gallery",
        place / "pictures",
        "-o",
        place / name,
        "--script",
        place / "script.json",
    ]
    status, out, err = run(capsys, *given, "--json", *more)
    return status, json.loads(out), err


def test_an_article_in_every_format(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for number, kind in enumerate(("html", "md", "docx", "json")):
        status, summary, err = composed(capsys, place, f"article.{kind}")
        assert status == 0
        assert [found["id"] for found in summary["pictures"]] == ["lake.jpg", "tea.jpg"]
        assert (summary["asked"], summary["replayed"]) == ((0, 6) if number else (6, 0))
        assert summary["gallery"]["unusable"] == [["broken.jpg", summary["gallery"]["unusable"][0][1]]]
        assert "not used: broken.jpg" in err
    html = (place / "article.html").read_text("utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("data:image/jpeg") == 2
    assert "A. Person, CC-BY-4.0" in html
    text = (place / "article.md").read_text("utf-8")
    assert "article-picture-1" not in text
    assert "![a calm lake](<picture-1.jpg>)" in text
    assert (place / "picture-2.jpg").is_file()
    data = json.loads((place / "article.json").read_text("utf-8"))
    assert data["title"] == "West Lake"
    draft = json.loads((place / "article.draft.json").read_text("utf-8"))
    assert [event["step"] for event in draft["log"]] == ["write", "spot", "caption", "caption", "select", "select"]


def test_text_for_people(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ["--gallery", place / "pictures", "-o", place / "x.md", "--script", place / "script.json"]
    status, out, err = run(capsys, "compose", "West Lake", *given)
    assert status == 0
    assert "3 paragraphs, 2 pictures" in out
    assert "after paragraph 3: tea.jpg (model): green tea fields" in out
    assert "write ..." in err
    assert (place / "x-picture-1.jpg").is_file()


def test_what_a_run_was_asked_reaches_the_model(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "notes.txt").write_text("三面环山", "utf-8")
    (place / "outline.txt").write_text("lake, then tea", "utf-8")
    more = ["--outline", f"@{place / 'outline.txt'}", "--requirements", "short", "--reference", place / "notes.txt"]
    status, _, _ = composed(capsys, place, "a.html", *more, "--pictures", "2", "--language", "zh")
    assert status == 0
    lines = [json.loads(line) for line in (place / "a.journal.jsonl").read_text("utf-8").splitlines()]
    assert "大纲：lake, then tea\n要求：short\n参考资料：三面环山" in lines[0]["prompt"]
    assert "哪2个段落之后" in lines[1]["prompt"]
    assert '<html lang="zh">' in (place / "a.html").read_text("utf-8")


def test_the_users_own_pictures(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    own = [place / "pictures" / "lake.jpg", place / "pictures" / "tea.jpg"]
    given = ["--own", *own, "-o", place / "a.html", "--script", place / "script.json", "--attribution", "Me"]
    status, out, _ = run(capsys, "compose", "West Lake", *given, "--json")
    summary = json.loads(out)
    assert status == 0
    assert [(found["id"], found["credit"], found["chosen_by"]) for found in summary["pictures"]] == [
        ("own-1", "Me", "model"),
        ("own-2", "Me", "only one"),
    ]


def test_without_pictures_there_are_none(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ["-o", place / "a.html", "--script", place / "script.json", "--json"]
    status, out, _ = run(capsys, "compose", "West Lake", *given)
    assert status == 0
    assert json.loads(out)["pictures"] == []


def test_answers_outside_the_options_and_a_place_without_a_suitable_picture(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "script.json").write_text(
        json.dumps(ANSWERS | {"select": ["none of these", "bicycle"], "caption": ["a calm lake", "nuclear reactor"]})
    )
    status, summary, _ = composed(capsys, place, "a.html")
    assert status == 0
    ((found,), (empty,)) = summary["pictures"], summary["empty"]
    assert (found["id"], found["chosen_by"]) == ("lake.jpg", "retrieval")
    assert (empty["paragraph"], empty["note"]) == (2, "no suitable picture was found")
    assert any("the place stays empty" in note for note in summary["notes"])
    assert any("the first picture found was taken" in note for note in summary["notes"])


def test_the_text_itself_is_searched_for(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "script.json").write_text(json.dumps({"write": "Walk.\na calm lake. Walk.", "select": "B"}))
    status, summary, _ = composed(capsys, place, "a.html", "--places", "text")
    assert status == 0
    (found,) = summary["pictures"]
    assert (found["paragraph"], found["id"], found["caption"]) == (1, "lake2.jpg", "a calm lake")
    assert summary["asked"] == 2
    assert summary["notes"] == ["paragraph 1 itself was searched for: a calm lake. Walk."]


def test_retrieval_alone(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "script.json").write_text(json.dumps({k: v for k, v in ANSWERS.items() if k != "select"}))
    status, summary, _ = composed(capsys, place, "a.html", "--select", "retrieval")
    assert status == 0
    assert {found["chosen_by"] for found in summary["pictures"]} == {"retrieval"}


def test_a_run_that_failed_goes_on_where_it_was(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    broken = ANSWERS | {"caption": ["a calm lake", {"error": "the line is dead"}]}
    (place / "script.json").write_text(json.dumps(broken))
    status, out, _ = run(
        capsys, "compose", "West Lake", "--gallery", place / "pictures", "-o", place / "a.html", "--script",
        place / "script.json", "--json",
    )  # fmt: skip
    assert status == 2
    assert json.loads(out)["error"]["message"] == "the line is dead"
    draft = json.loads((place / "a.draft.json").read_text("utf-8"))
    assert draft["article"]["paragraphs"][0]["text"] == "A calm lake lies there."
    assert draft["article"]["paragraphs"][0]["illustration"]["caption"] == "a calm lake"
    assert not (place / "a.html").exists()


def test_an_endpoint_writes_and_is_asked_nothing_twice(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    replies = ["A calm lake.\nTea.", "<Seg0>", "a calm lake", "B"]
    with serve(lambda number, _: said(replies[number])) as endpoint:
        given = ["--gallery", place / "pictures", "-o", place / "a.html", "--json"]
        remote = ["--endpoint", endpoint.url, "--endpoint-model", "writer"]
        status, out, _ = run(capsys, "compose", "West Lake", *given, *remote)
        assert (status, len(endpoint.asked)) == (0, 4)
        first = json.loads(out)
        status, out, _ = run(capsys, "compose", "West Lake", *given, *remote)
        assert (status, len(endpoint.asked)) == (0, 4)
    assert json.loads(out)["pictures"] == first["pictures"]
    assert first["pictures"][0]["id"] == "lake2.jpg"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-o", "a.pdf"], "-o a.pdf: no format '.pdf'; expected a file that ends in .html, .md, .docx, .json"),
        (["-o", "a.html", "--pictures", "-1"], "--pictures -1; expected 0 or more"),
        (["-o", "a.html", "--pictures", "3"], "--pictures 3 without --gallery or --own; say where they are"),
        (["-o", "a.html", "--gallery", "x", "--own", "y"], "--gallery and --own were both given"),
        (["-o", "a.html", "--gallery", "nowhere"], "gallery nowhere does not exist; give a folder of pictures"),
        (["-o", "a.html", "--endpoint", "http://x/v1"], "without --endpoint-model; say which of its models to ask"),
        (["-o", "a.html", "--script", "s", "--model", "mini"], "--script answers everything; leave out --model"),
        (["-o", "a.html", "--script", "none.json"], "the script none.json cannot be read"),
        (["-o", "a.html", "--reference", "none.txt"], "--reference: none.txt cannot be read (No such file or directory)"),
        (["-o", "a.html", "--outline", "@none.txt"], "--outline: none.txt cannot be read"),
        (["-o", "a.html", "--own", "none.jpg"], "'none.jpg' does not exist"),
        (["-o", "a.html", "--own", *["x.jpg"] * 11], "--own names 11 pictures; expected at most 10"),
    ],
)  # fmt: skip
def test_what_cannot_end_well_is_refused_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    status, out, err = run(capsys, "compose", "West Lake", "--json", *argv)
    assert status == 2
    assert message in json.loads(out)["error"]["message"]
    assert message in err


def test_a_title_that_is_a_text_of_its_own(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    status, out, _ = run(capsys, "compose", "长" * 10_000, "-o", place / "a.html", "--json")
    assert status == 2
    assert "a title of 10000 characters; expected at most 1000" in json.loads(out)["error"]["message"]


def test_docx_is_refused_at_once_without_its_package(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docx", None)
    status, summary, _ = composed(capsys, place, "a.docx")
    assert status == 2
    assert "pip install 'vedere[compose]'" in summary["error"]["message"]
    assert not (place / "a.journal.jsonl").exists()


def test_index_and_search(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    status, out, err = run(capsys, "gallery", "index", place / "pictures")
    assert status == 0
    assert out == "5 pictures: 5 new, 0 changed, 0 removed, 1 unusable, 0 without words\n"
    assert "5 of 5 pictures" in err
    status, out, _ = run(capsys, "gallery", "search", place / "pictures", "green tea", "--json", "--count", "1")
    assert status == 0
    found = json.loads(out)
    assert [hit["id"] for hit in found["hits"]] == ["tea.jpg"]
    assert found["gallery"]["new"] == 0
    status, out, _ = run(capsys, "gallery", "search", place / "pictures", "nuclear")
    assert (status, out) == (0, "no picture is similar enough (--similarity lowers the bar)\n")
    for argv, message in (
        (["search", place / "pictures", " "], "an empty query; say what the picture should show"),
        (["search", place / "pictures", "x", "--count", "0"], "--count 0; expected 1 or more"),
        (["serch"], "unknown command 'gallery serch'; did you mean 'search'? (commands: index, search)"),
    ):
        status, _, err = run(capsys, "gallery", *argv)
        assert status == 2
        assert message in err
