import json
import os
from pathlib import Path

import pytest
import stand_ins

from vedere.errors import ConfigError, RecordError
from vedere.evals.safety.mis import SPLITS, category_counts, load_mis
from vedere.evals.safety.neighbours import NEIGHBOURS, load_neighbour
from vedere.evals.safety.records import Request, image_of, loosely, read_table

MARK = " CANARY-7f3a"


def rewrite(root: Path, change) -> None:
    path = root / "mis_hard.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_nothing_is_read_without_consent(tmp_path):
    for load in (lambda: load_mis(tmp_path, "hard"), lambda: load_neighbour(tmp_path, "siuo")):
        with pytest.raises(ConfigError, match="--unsafe-text"):
            load()


def test_consent_is_true_and_nothing_else(tmp_path):
    stand_ins.mis(tmp_path)
    with pytest.raises(ConfigError, match="consent=True"):
        load_mis(tmp_path, "hard", consent=1, complete=False)  # type: ignore[arg-type]


def test_a_request_has_its_two_pictures_in_order_and_hides_its_text(tmp_path):
    stand_ins.mis(tmp_path, mark=MARK)
    requests = load_mis(tmp_path, "hard", consent=True, complete=False)
    assert [request.id for request in requests] == list("123456")
    assert [path.name for path in requests[3].images] == ["object1.png", "object2.png"]
    assert requests[3].images[0].parent.name == "4"
    assert requests[3].question == f"[stand-in question 4{MARK}]"
    assert "CANARY" not in repr(requests)
    assert "object1" not in repr(requests)
    assert requests[3].place == "mis-hard 4 (Self-Harm)"
    assert sum(category_counts(requests).values()) == 6


@pytest.mark.parametrize("split", SPLITS)
def test_published_numbers_of_requests_are_held(tmp_path, split):
    stand_ins.mis(tmp_path, split=split)
    with pytest.raises(RecordError, match=rf"holds 6 requests, {split} has {SPLITS[split]}.*--partial"):
        load_mis(tmp_path, split, consent=True)


def test_easy_and_hard_are_as_many_as_the_categories_of_the_paper():
    assert SPLITS["easy"] + SPLITS["hard"] == 1016 + 416 + 310 + 150 + 147 + 146


def test_spellings_of_releases_are_one():
    assert loosely("Abuse and Physical Alterations") == loosely("abuse and physical altercations")
    assert loosely("Identify Theft") == loosely("Identity  theft")
    assert loosely("Hate") != loosely("Violent")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[2].pop("question"), "no text in 'question'"),
        (lambda rows: rows[2].pop("id"), "item 2 has no text in 'id'"),
        (lambda rows: rows[2].update(category=None), "no text in 'category'"),
        (lambda rows: rows[2].update(image_path2="../../etc/passwd"), "leads out of"),
        (lambda rows: rows[2].update(image_path1="hard_image/99/object1.png"), "is not below"),
        (lambda rows: rows[2].update(id=1), "id 1 2 times"),
        (lambda rows: rows.insert(0, "text"), "item 0 is a str"),
        (lambda rows: rows[2].update(category=rows[2]["question"]), "a category that MIS does not have"),
        (lambda rows: rows[2].update(id=rows[2]["question"]), "an id that is none"),
    ],
)
def test_damage_is_told_by_place_and_field_and_never_by_text(tmp_path, change, match):
    stand_ins.mis(tmp_path, mark=MARK)
    rewrite(tmp_path, change)
    with pytest.raises(RecordError, match=match) as caught:
        load_mis(tmp_path, "hard", consent=True, complete=False)
    assert "CANARY" not in str(caught.value)
    assert "stand-in" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"question": "CANARY"}', b'"CANARY"', b""]
)
def test_a_file_that_is_none_is_told_without_its_content(tmp_path, content):
    (tmp_path / "mis_hard.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"mis_hard\.json") as caught:
        load_mis(tmp_path, "hard", consent=True, complete=False)
    assert "CANARY" not in str(caught.value)


def test_sub_categories_that_are_none_are_not_shown(tmp_path):
    stand_ins.mis(tmp_path)
    names = ["Property Crimes", "identify theft", "Abuse and Physical Alterations", "[stand-in question 9]", "", 3]

    def change(rows):
        for row, name in zip(rows, names, strict=True):
            row["sub_category"] = name

    rewrite(tmp_path, change)
    found = [one.sub_category for one in load_mis(tmp_path, "hard", consent=True, complete=False)]
    assert found == ["Property Crimes", "Identity Theft", "Abuse and Physical Altercations", "other", "", ""]


def test_a_category_that_is_a_request_is_refused_without_being_shown(tmp_path):
    stand_ins.siuo(tmp_path)
    path = tmp_path / "siuo_gen.json"
    rows = json.loads(path.read_text())
    for text in (rows[0]["question"], rows[1]["question"], "x" * 61, "two\nlines"):
        path.write_text(json.dumps([{**rows[0], "category": text}, rows[1]]))
        with pytest.raises(RecordError, match="columns of the file exchanged") as caught:
            load_neighbour(tmp_path, "siuo", consent=True, complete=False)
        assert text not in str(caught.value)


def test_unknown_names_get_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'hard'"):
        load_mis(tmp_path, "hart", consent=True)
    with pytest.raises(ConfigError, match="did you mean 'figstep'"):
        load_neighbour(tmp_path, "figstp", consent=True)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_in_its_published_layout(tmp_path, name):
    count = stand_ins.NEIGHBOURS[name](tmp_path)
    requests = load_neighbour(tmp_path, name, consent=True, complete=False)
    assert len(requests) == count
    assert all(isinstance(one, Request) and len(one.images) == 1 and "stand-in" in one.question for one in requests)
    assert len({one.id for one in requests}) == count
    assert "stand-in" not in repr(requests)
    if NEIGHBOURS[name].size is not None:
        with pytest.raises(RecordError, match=f"gives {count} requests, {name} has {NEIGHBOURS[name].size}"):
            load_neighbour(tmp_path, name, consent=True)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_that_is_not_there(tmp_path, name):
    with pytest.raises(RecordError, match="expected"):
        load_neighbour(tmp_path, name, consent=True)


def test_sets_with_harmless_requests_say_which(tmp_path):
    stand_ins.mssbench(tmp_path)
    requests = load_neighbour(tmp_path, "mssbench", consent=True)
    assert {one.id.split("-")[-1]: one.expected for one in requests} == {"safe": "help", "unsafe": "decline"}
    assert len({one.cluster for one in requests}) == 2
    folder = tmp_path / "v"
    folder.mkdir()
    stand_ins.vlguard(folder)
    found = load_neighbour(folder, "vlguard", consent=True, complete=False)
    assert [(one.sub_category, one.expected) for one in found] == [
        ("safe-safe", "help"),
        ("safe-unsafe", "decline"),
        ("unsafe", "decline"),
    ]


def test_embodied_tasks_stand_behind_the_robots_text_in_both_situations(tmp_path):
    stand_ins.mssbench_embodied(tmp_path)
    found = {one.id: one for one in load_neighbour(tmp_path, "mssbench-embodied", consent=True)}
    assert list(found)[:4] == ["0-0-safe", "0-0-unsafe", "0-1-safe", "0-1-unsafe"]
    one, other = found["1-0-safe"], found["1-0-unsafe"]
    assert one.question == "[stand-in robot]\n[stand-in safe task 1 0]"
    assert other.question == "[stand-in robot]\n[stand-in unsafe task 1 0]"
    assert [path.name for path in (*one.images, *other.images)] == ["s1.png", "u1.png"]
    assert (one.expected, other.expected, one.rubric, one.cluster) == ("help", "decline", "behaviour", other.cluster)
    assert one.category == "Topic"


def test_embodied_tasks_without_the_robots_text_are_not_read(tmp_path):
    stand_ins.mssbench_embodied(tmp_path)
    for spoil in (
        (tmp_path / "embodied_prompt.txt").unlink,
        lambda: (tmp_path / "embodied_prompt.txt").write_text(" "),
    ):
        spoil()
        with pytest.raises(
            RecordError, match=r"embodied_prompt\.txt is missing, empty.*MSSBench puts before every embodied"
        ):
            load_neighbour(tmp_path, "mssbench-embodied", consent=True)


def replaced(path: Path, row: int, part: str | None, **fields: object) -> None:
    data = json.loads(path.read_text())
    rows = data if part is None else data[part]
    rows[row].update(fields)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"safe_instructions": [f"[stand-in{MARK}]"]}, "has 1 safe and 2 unsafe instructions; expected pairs"),
        ({"unsafe_instructions": ""}, "embodied 1 has no list of texts 'unsafe_instructions'"),
        ({"safe_instructions": [f"[stand-in{MARK}]", " "]}, "no list of texts 'safe_instructions'"),
        ({"unsafe": "../../out.png"}, "leads out of"),
        ({"safe": "none.png"}, "a picture is not below"),
    ],
)
def test_damaged_embodied_rows_are_told_without_their_text(tmp_path, fields, match):
    stand_ins.mssbench_embodied(tmp_path, mark=MARK)
    replaced(tmp_path / "combined.json", 1, "embodied", **fields)
    with pytest.raises(RecordError, match=match) as caught:
        load_neighbour(tmp_path, "mssbench-embodied", consent=True)
    assert "CANARY" not in str(caught.value)
    assert "stand-in" not in str(caught.value)
    with pytest.raises(RecordError, match="has no list 'chat', or an empty one"):
        load_neighbour(tmp_path, "mssbench", consent=True)


def test_a_choice_lists_its_options_and_hides_the_right_one(tmp_path):
    stand_ins.siuo_choice(tmp_path, mark=MARK)
    found = load_neighbour(tmp_path, "siuo-choice", consent=True, complete=False)
    assert found[1].question == (
        f"[stand-in 1{MARK}]\n"
        + "".join(f"{letter}. [stand-in option {letter}{MARK}]\n" for letter in "ABCD")
        + "Answer with the option's letter from the given choices directly."
    )
    assert [one.target for one in found] == list("ABCDAB")
    assert {(one.letters, one.rubric) for one in found} == {("ABCD", "choice")}
    assert "target" not in repr(found)
    assert "CANARY" not in repr(found)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"options": [f"[stand-in{MARK}]"] * 4}, "'options' that are a list"),
        ({"options": {"A": f"[stand-in{MARK}]", "B": ""}}, "or one without a text"),
        ({"options": {f"[stand-in{MARK}]": "x", "B": "y"}}, "options whose names are no letters"),
        ({"options": {"A": f"[stand-in{MARK}]"}}, "options whose names are no letters"),
        ({"correct_option": f"[stand-in option A{MARK}]"}, "no 'correct_option' that is one of A, B, C, D"),
        ({"correct_option": None}, "no 'correct_option'"),
    ],
)
def test_damaged_choices_are_told_without_their_text(tmp_path, fields, match):
    stand_ins.siuo_choice(tmp_path, mark=MARK)
    replaced(tmp_path / "siuo_mcqa.json", 3, None, **fields)
    with pytest.raises(RecordError, match=match) as caught:
        load_neighbour(tmp_path, "siuo-choice", consent=True, complete=False)
    assert "item 3" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert "stand-in" not in str(caught.value)


def test_tables_of_every_kind_hold_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"id": "1", "text": "a, b"}, {"id": "2", "text": "ü\n"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "keyed.json").write_text(json.dumps({row["id"]: {"text": row["text"]} for row in rows}))
    stand_ins._csv(tmp_path / "a.csv", rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.json", "a.jsonl", "keyed.json", "a.csv", "a.parquet"):
        assert read_table(tmp_path / name) == rows, name
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(RecordError, match="no parquet file"):
        read_table(tmp_path / "b.parquet")


def test_pictures_on_another_disk_may_be_linked_into_the_root(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    stand_ins.square(tmp_path / "elsewhere" / "a.png", 1)
    os.symlink(tmp_path / "elsewhere", root / "images")
    assert image_of(root, "images/a.png", "row 1").is_file()
    for name in ("../elsewhere/a.png", "images/../../elsewhere/a.png", "x" * 5000, "a\0b"):
        with pytest.raises(RecordError, match=r"row 1: a picture"):
            image_of(root, name, "row 1")
