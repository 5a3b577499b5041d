"""Tools for building such a set: certificates, balance, answers without the video."""

import json
import random

import pytest
from film_stand_ins import media_id, outcomes, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import RecordError
from vedere.evals.video_mme.annotation_page import annotation_page
from vedere.evals.video_mme.certificate import agreement, joined, lengths, overlap, read_annotations, sample
from vedere.evals.video_mme.construction import answerable, balance, uneven_probability
from vedere.evals.video_mme.questions import Question

LAWS = settings(max_examples=100, deadline=None)
CLIP = st.tuples(st.integers(0, 90), st.integers(1, 30)).map(lambda pair: (float(pair[0]), float(sum(pair))))
CLIPS = st.lists(CLIP, min_size=1, max_size=8)


def questions(videos=6, **change):
    names = ("question_id", "video_id", "duration", "domain", "sub_category", "task_type", "question", "answer")
    return [
        Question(
            **{"media_id": row["videoID"], "options": tuple(row["options"]), **{n: row[n] for n in names}, **change}
        )
        for row in rows(videos)
    ]


@LAWS
@given(CLIPS)
def test_joined_clips_cover_the_same_seconds_without_overlap(clips):
    found = joined(clips)
    covered = {second for start, end in clips for second in range(int(start), int(end))}
    assert {second for start, end in found for second in range(int(start), int(end))} == covered
    assert sum(end - start for start, end in found) == len(covered)
    assert all(one[1] < other[0] for one, other in zip(found, found[1:], strict=False))  # noqa: RUF007
    assert joined(found) == found


@LAWS
@given(CLIPS, CLIPS)
def test_overlap_is_shared_over_all_seconds(one, other):
    left, right = joined(one), joined(other)
    sets = [{second for start, end in clips for second in range(int(start), int(end))} for clips in (left, right)]
    assert overlap(left, right) == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert overlap(left, left) == 1


def write(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def entry(question="001-1", clips=((1, 3), (2, 6)), annotator="a", seconds=100):
    return {
        "question_id": question,
        "annotator": annotator,
        "video_seconds": seconds,
        "clips": [list(c) for c in clips],
    }


def test_lengths_of_certificates(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        entry("001-1", [(0, 50)]),
        entry("001-1"),  # mended later: 5 s
        entry("001-1", [(1, 4)], "b"),
        entry("001-2", [(10, 30)], seconds=80),
        entry("002-1", [(0, 100), (200, 300)], seconds=600),
    )
    found = read_annotations(path)
    assert [one.seconds for one in found] == [5, 3, 20, 200]
    table = lengths(found, questions())
    assert list(table) == ["short", "medium", "all"]
    assert (table["short"].questions, table["short"].median, table["short"].mean) == (2, 12, 12)
    assert table["short"].share == pytest.approx((0.04 + 0.25) / 2)
    assert table["short"].video_mean == 80  # a video once
    assert (table["medium"].clips, table["all"].questions) == (2, 3)
    assert agreement(found) == (1, pytest.approx(3 / 5))
    assert agreement(found[1:]) is None
    assert list(lengths(found)) == ["short", "medium", "all"]  # by the videos' lengths
    with pytest.raises(RecordError, match="an annotation is of question '001-1', which the questions do not have"):
        lengths(found, [one for one in questions() if one.video_id != "001"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": []}, r"a\.jsonl line 1: 'clips' is \[\]; expected a list of at least one \[start, end\]"),
        ({"clips": [[3, 2]]}, r"clip \[3, 2\]; expected \[start, end\] in seconds, start before end"),
        ({"clips": [[3]]}, r"clip \[3\]; expected"),
        ({"clips": [[90, 103]]}, r"clip \[90, 103\] ends after the video of 100\.0 s"),
        ({"video_seconds": 0}, r"'video_seconds' is 0\.0; expected seconds, more than 0"),
        ({"question_id": None}, "'question_id' is null; expected a value"),
    ],
)
def test_annotations_that_cannot_be(tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        read_annotations(write(tmp_path / "a.jsonl", entry() | change))


def test_a_sample_is_even_over_durations_and_videos():
    asked = questions(12)
    drawn = sample(asked, 9, 3)
    assert len({one.question_id for one in drawn}) == 9
    assert [sum(one.duration == name for one in drawn) for name in ("short", "medium", "long")] == [3, 3, 3]
    assert len({one.video_id for one in drawn}) == 9
    assert drawn == sample(asked, 9, 3) != sample(asked, 9, 4)
    assert sample(asked, 1000, 0) == asked


def test_the_page_holds_the_questions_and_nothing_foreign():
    page = annotation_page(questions(1, question="Is </script><b> shown & told?"))
    data = page.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)[0]["question"] == "Is </script><b> shown & told?"
    assert json.loads(data)[0]["media_id"] == media_id(1)
    assert page.count("</script>") == 2
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    with pytest.raises(RecordError, match="0 questions to annotate"):
        annotation_page([])


def test_uneven_letters_are_unlikely():
    rng = random.Random(0)
    for counts in ([10, 10, 10, 10], [677, 735, 684, 604], [20, 9, 6, 5], [0, 0, 0, 0]):
        total = sum(counts)
        even = total / 4
        wanted = sum((c - even) ** 2 for c in counts)
        drawn = 0
        for _ in range(1000):
            letters = rng.choices(range(4), k=total)
            drawn += sum((letters.count(k) - even) ** 2 for k in range(4)) >= wanted
        assert uneven_probability(counts) == pytest.approx(drawn / 1000, abs=0.06)
    with pytest.raises(ValueError, match="3 counts; expected 4"):
        uneven_probability([1, 2, 3])


def test_balance_of_an_even_set_finds_nothing():
    made = [
        Question(
            **{
                **vars(one),
                "answer": "ABCD"[k % 4],
                "sub_category": f"{one.sub_category}",
                "options": tuple(f"{letter}. {'x' * ((k + place) % 4 + 1)}" for place, letter in enumerate("ABCD")),
            }
        )
        for k, one in enumerate(questions(12))
    ]
    found = balance([one for one in made if one.duration == "short"])
    assert found.letters == {"A": 3, "B": 3, "C": 3, "D": 3}
    assert found.always[1] == 0.25
    whole = balance(made)
    assert whole.videos == {"short": 4, "medium": 4, "long": 4}
    assert whole.cells["Law"] == {"short": 4}
    assert any("sub-categories lack a duration: Food/medium" in line for line in whole.findings)


def test_imbalances_are_told():
    made = [
        Question(**{**vars(one), "answer": "B", "options": ("A. no", "B. the only right one", "C. no", "D. ")})
        for one in questions(20)
    ]
    found = balance([*made, Question(**{**vars(made[0]), "question_id": "001-9"})])
    text = "\n".join(found.findings)
    assert "the right letters are uneven (A 0, B 61, C 0, D 0; probability" in text
    assert "always B scores 100.0 %" in text
    assert "the right option is the longest in 100.0 % of questions (chance 25 %)" in text
    assert "shortest" not in text
    assert "001-1 has the same option twice" in text
    assert "001-1 has an option without words" in text
    assert "001-1, 001-9 ask the same of one video" in text
    with pytest.raises(RecordError, match="0 questions to check"):
        balance([])


def test_questions_that_need_no_video_are_sent_back():
    always = {row["question_id"]: row["answer"] for row in rows(20) if row["question_id"].endswith("-1")}
    runs = [outcomes(20, seed, right=0.1, said=always) for seed in (1, 2, 3)]
    found = answerable(runs)
    assert (found.runs, found.questions, found.needed) == (3, 60, 2)
    assert set(always) <= set(found.revise)
    assert set(found.revise[:20]) >= set(list(always)[:5])
    right = [[one.corrected == one.answer for one in run] for run in runs]
    assert found.accuracy == pytest.approx(sum(map(sum, right)) / 180)
    assert sum(found.by_task.values()) / 12 == pytest.approx(found.accuracy, abs=0.05)
    assert len(answerable(runs, needed=3).revise) <= len(found.revise)
    with pytest.raises(RecordError, match="0 runs without the videos"):
        answerable([])
    with pytest.raises(RecordError, match="the runs have no question in common"):
        answerable([runs[0][:3], runs[1][3:]])
