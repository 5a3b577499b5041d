"""Video-MME-v2: group scores against the published worths, worked out once more, and groups that are no groups."""

import itertools
import json

import pytest

from vedere.answers import video_mme_v2_letter
from vedere.cli import main
from vedere.errors import RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.records import Row
from vedere.evals.video_mme.v2 import STRUCTURES, logic_score, relevance_score

PATTERNS = list(itertools.product((0, 1), repeat=4))


def test_relevance_is_quadratic():
    assert [relevance_score(right) for right in PATTERNS] == [100 * (sum(right) / 4) ** 2 for right in PATTERNS]


@pytest.mark.parametrize("right", PATTERNS)
def test_logic_counts_up_to_the_first_error(right):
    chain = len(list(itertools.takewhile(bool, right)))
    assert logic_score(right, "[1, 2, 3, 4]") == 100 * (chain / 4) ** 2
    middle = 2 if right[:3] == (1, 0, 1) else chain  # questions 2 and 3 in either order
    assert logic_score(right, "[1, [2, 3], 4]") == pytest.approx([0, 100 / 12, 400 / 12, 700 / 12, 100][middle])
    first = 1 if right[:2] == (0, 1) else chain  # questions 1 and 2 in either order
    assert logic_score(right, "[[1, 2], 3, 4]") == [0, 10, 20, 50, 100][first]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_more_right_answer_never_costs(structure):
    for right in PATTERNS:
        for place in range(4):
            better = tuple(1 if k == place else one for k, one in enumerate(right))
            assert logic_score(better, structure) >= logic_score(right, structure)
            assert relevance_score(better) >= relevance_score(right)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("H", "H"),
        ("Final Answer: G", "G"),
        ("Best option: C", "C"),  # version 1's list lacks a comma here
        ("The best option is F.", "F"),
        ("Final Answer: ", ""),
        ("i cannot say", ""),
        ("Final answer: E", "F"),  # the phrase is matched with its capitals, as in the original
    ],
)
def test_letters(text, read):
    assert video_mme_v2_letter(text) == read


def group(video, kind, right, structure="[1, 2, 3, 4]", level=1, none=()):
    return [
        {
            "video_id": video,
            "question_id": f"{video}-{k}",
            "group_type": kind,
            "group_structure": structure,
            "level": level + (k == 3),
            "second_head": "x",
            "answer": "H",
            "response": "" if k in none else "H" if one else "A",
        }
        for k, one in enumerate(right)
    ]


def score(*rows):
    return score_rows("video-mme-v2", [Row(k, row) for k, row in enumerate(rows, 1)])


def test_figures():
    found = score(
        *group("1", "relevance", (1, 0, 1, 0)),
        *group("2", "logic", (1, 1, 0, 1)),
        *group("3", "logic", (0, 1, 0, 0), "[[1, 2], 3, 4]"),
    ).figures
    assert found["score"] == pytest.approx((25 + 25 + 10) / 3)
    assert found["acc"] == pytest.approx(100 * 6 / 12)
    assert found["groups"] == 3
    assert found["standard_error"] == pytest.approx(5.0)
    assert found["by_group_type"]["logic"]["score"] == pytest.approx(17.5)
    assert found["by_level"]["2"] == pytest.approx({"score": 20, "groups": 3, "acc": 100 / 3, "questions": 3})
    assert found["by_level"]["1"]["groups"] == 0  # a group is under the heads of its last question
    assert found["by_second_head"]["x"]["questions"] == 12
    assert found["by_third_head"] == {}


def test_answers_without_a_letter_are_wrong_here_and_right_in_the_published_logic():
    scores = score(*group("1", "logic", (1, 0, 1, 0), none=(1,)), *group("2", "relevance", (1, 0, 0, 0), none=(1, 2)))
    assert scores.figures["score"] == pytest.approx(6.25)
    assert scores.figures["published_score"] == pytest.approx((56.25 + 0) / 2)
    assert scores.counts["unanswered"] == 3


def test_question_ids_may_count_from_1_in_every_video(tmp_path, capsys):
    groups = [group(str(v), "relevance", (1, 1, v % 2, 0)) for v in range(1, 5)]
    rows = [{**row, "question_id": str(k % 4 + 1)} for k, row in enumerate(row for four in groups for row in four)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", "video-mme-v2", str(tmp_path / "a.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["groups"], found["score"]) == (4, pytest.approx((56.25 + 25) / 2))
    assert found["scoring"]["counts"]["repeated_rows_left_out"] == 0
    assert main(["score", "video-mme-v2", str(tmp_path / "a.jsonl")]) == 0
    table = capsys.readouterr().out
    assert "by_level · 1" in table
    assert "by_group_type · relevance" in table


def test_tables_by_setting(tmp_path, capsys):
    for name, third in (("without", 0), ("with", 1)):
        rows = [
            row
            for v in range(1, 5)
            for row in group(str(v), "logic" if v % 2 else "relevance", (1, 1, third, 0), none=(3,) if v == 1 else ())
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["video-mme", "table-v2", *(f"{name}={tmp_path / name}.jsonl" for name in ("without", "with"))]
    assert main(argv) == 0
    text = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "without 4 25.0 ±0.0 50.0 1 25.0" in rows
    assert "with 4 56.2 ±0.0 75.0 1 67.2" in rows  # for the published scorer a group has all four
    assert "logic 2 8 25.0 50.0 56.2 75.0" in rows
    assert "2 4 4 25.0 0.0 56.2 0.0" in rows  # level 2: the last question of each group
    assert "by third head" not in text
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[name]["score"] for name in ("without", "with")] == [25, 56.25]
    assert main([*argv, argv[-1]]) != 0
    assert "setting 'with' stands twice" in capsys.readouterr().err


def test_rows_that_do_not_form_groups_are_refused():
    rows = [*group("1", "relevance", (1, 1, 1, 1)), *group("2", "relevance", (1, 1, 1, 1))]
    with pytest.raises(
        RecordError, match=r"line 7: 7 rows; expected a multiple of 4, the groups of the data in their order"
    ):
        score(*rows[1:])
    with pytest.raises(
        RecordError, match=r"line 4: the row is of video '2' .* in a group of video '1' .*keep the order"
    ):
        score(*rows[1:], rows[0])
    with pytest.raises(RecordError, match=r"'group_structure' is '\[1, 2\]'; expected \[1, 2, 3, 4\] or "):
        score(*group("1", "logic", (1, 1, 1, 1), "[1, 2]"))
    with pytest.raises(RecordError, match="'group_type' is 'x'; expected relevance or logic"):
        score(*group("1", "x", (1, 1, 1, 1)))
    with pytest.raises(RecordError, match="'answer' is 'Z'; expected A to H"):
        score(*[row | {"answer": "Z"} for row in rows])
