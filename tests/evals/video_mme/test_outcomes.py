"""Counting: both extractions, both denominators, errors clustered by video, and the official file."""

import json
import math
import random

import pytest
from film_stand_ins import outcomes, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError, RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.clusters import clustered_error, paired_difference
from vedere.evals.records import Row
from vedere.evals.video_mme.outcomes import WHOLE, Outcome, cells
from vedere.evals.video_mme.questions import Question
from vedere.evals.video_mme.results import official_form, read_result, without_trailing_commas, write_official
from vedere.evals.video_mme.tables import as_json, crossed, figure, tables

LAWS = settings(max_examples=80, deadline=None)
CLUSTERS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=2, max_size=12)
PLACE = {"duration": "short", "domain": "Knowledge", "sub_category": "Law", "task_type": "OCR Problems"}


def sums(groups):
    return [(sum(group), len(group)) for group in groups]


@LAWS
@given(CLUSTERS)
def test_the_error_is_that_of_inspect(groups):
    from inspect_ai.scorer import SampleScore, Score, stderr

    scores = [
        SampleScore(score=Score(value=value), sample_metadata={"video": str(name)}, sample_id=f"{name}-{k}")
        for name, group in enumerate(groups)
        for k, value in enumerate(group)
    ]
    assert clustered_error(sums(groups)) == pytest.approx(stderr(cluster="video")(scores))


@LAWS
@given(st.lists(st.integers(0, 1), min_size=2, max_size=30))
def test_clusters_of_one_give_the_usual_error(values):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert clustered_error((value, 1) for value in values) == pytest.approx(math.sqrt(variance / len(values)))


@LAWS
@given(CLUSTERS, st.randoms())
def test_the_error_does_not_depend_on_order_and_grows_with_copies(groups, rng):
    mixed = [rng.sample(group, len(group)) for group in rng.sample(groups, len(groups))]
    assert clustered_error(sums(mixed)) == pytest.approx(clustered_error(sums(groups)))
    tripled = [group * 3 for group in groups]  # three equal answers a video say no more than one
    assert clustered_error(sums(tripled)) == pytest.approx(clustered_error(sums(groups)))


def test_the_interval_covers_the_truth():
    rng, hits, tries = random.Random(1), 0, 400
    for _ in range(tries):
        groups = []
        for _ in range(60):
            chance = rng.choice((0.2, 1.0))  # questions of a video go right together: the truth is 0.6
            groups.append([int(rng.random() < chance) for _ in range(3)])
        mean = sum(map(sum, groups)) / 180
        hits += abs(mean - 0.6) < 1.96 * clustered_error(sums(groups))
    assert 0.92 < hits / tries < 0.98


def test_too_few_clusters_have_no_error():
    assert clustered_error([]) is None
    assert clustered_error([(1, 3)]) is None
    assert clustered_error([(1, 3), (0, 0)]) is None


@LAWS
@given(CLUSTERS)
def test_a_paired_difference_to_itself_is_nothing(groups):
    values = [value for group in groups for value in group]
    names = [str(name) for name, group in enumerate(groups) for _ in group]
    assert paired_difference(values, values, names) == (0, 0)
    zeros = [0.0] * len(values)
    mean, error = paired_difference(values, zeros, names)
    assert mean == pytest.approx(sum(values) / len(values))
    assert error == pytest.approx(clustered_error(sums(groups)))


def outcome(question, answer, response, **place):
    video = question.partition("-")[0]
    return Outcome(question_id=question, video_id=video, answer=answer, response=response, **{**PLACE, **place})


def test_both_extractions_and_both_denominators():
    found = cells(
        [
            outcome("1-1", "C", "Best option: C"),  # officially the B of "Best"
            outcome("1-2", "C", "(c)"),  # officially no letter
            outcome("2-1", "C", "C. Jade."),
            outcome("2-2", "C", ""),
            outcome("3-1", "A", None),  # of a missing video
        ]
    )
    cell = found[WHOLE, "overall", ""]
    assert (cell.questions, cell.videos) == (4, 2)
    assert (cell.official.correct, cell.official.answered, cell.official.accuracy, cell.official.strict) == (
        1,
        2,
        50,
        25,
    )
    assert (cell.corrected.correct, cell.corrected.answered) == (3, 3)
    assert (cell.corrected.accuracy, cell.corrected.strict) == (100, 75)
    assert cell.official.error == pytest.approx(100 * clustered_error([(0, 1), (1, 1)]))
    assert cell.official.strict_error == pytest.approx(100 * clustered_error([(0, 2), (1, 2)]))


def test_multilingual_counts_once_as_domain_and_once_as_sub_category():
    place = {"domain": "Multilingual", "sub_category": "Multilingual"}
    found = cells([outcome("1-1", "A", "A", **place), outcome("2-1", "A", "B")])
    assert found[WHOLE, "domain", "Multilingual"].questions == 1
    assert found[WHOLE, "sub_category", "Multilingual"].questions == 1
    assert found[WHOLE, "overall", ""].questions == 2


@LAWS
@given(st.integers(0, 10_000), st.integers(3, 20))
def test_cells_of_a_grouping_add_up(seed, videos):
    found = cells(outcomes(videos, seed))
    for scope in {key[0] for key in found}:
        whole = found[scope, "overall", ""]
        for grouping in ("domain", "sub_category", "task_type"):
            parts = [cell for (s, g, _), cell in found.items() if (s, g) == (scope, grouping)]
            for field in ("correct", "answered"):
                assert sum(getattr(part.official, field) for part in parts) == getattr(whole.official, field)
            assert sum(part.questions for part in parts) == whole.questions
        assert whole.official.strict <= whole.official.accuracy + 1e-9


def test_the_scorer_gives_the_cells():
    data = outcomes(12, seed=3)
    scored = score_rows("video-mme", [Row(k, vars(one)) for k, one in enumerate(data, 1)])
    found = cells(data)
    assert scored.figures["overall"]["acc"] == found[WHOLE, "overall", ""].official.accuracy
    assert scored.figures["all_rows"]["domain/Knowledge"]["acc"] == found[WHOLE, "domain", "Knowledge"].official.strict
    assert scored.figures["standard_error"]["duration/long"] == found["long", "overall", ""].official.error
    assert scored.figures["short/sub_category/Law"]["correct"] == found["short", "sub_category", "Law"].official.correct


def test_tables_hold_every_group_in_order():
    made = tables({"frames": outcomes(30, 1), "frames+subtitles": outcomes(30, 2, 0.8)})
    assert [one.title for one in made] == [
        "overall and by duration",
        "by domain",
        "by sub-category",
        "by task type",
        "both extractions, of the answered questions and of all",
    ]
    assert [line[0] for line in made[0].lines] == ["frames", "frames+subtitles"]
    assert [line[0] for line in made[1].lines] == ["Knowledge", "Life Record", "Multilingual"]
    assert [line[0] for line in made[3].lines][:3] == [
        "Temporal Perception",
        "Spatial Perception",
        "Attribute Perception",
    ]
    assert made[3].lines[0][1] == "7"  # multiples of 12 among 4 to 93
    assert all(len(line) == len(one.head) for one in made for line in one.lines)
    assert made[4].lines[0][-1] == "0"
    data = as_json({"frames": outcomes(30, 1)})
    assert json.loads(json.dumps(data))["frames"]["cells"]["all"]["overall"]["questions"] == 90


def test_crossed_tables_add_up_and_refuse_other_fields():
    data = outcomes(30, 1)
    made = crossed({"frames": data, "more": outcomes(12, 2)}, ("duration", "domain", "task_type"))
    assert made.head == ("duration", "domain", "task type", "questions", "frames", "more")
    assert [line[0] for line in made.lines] == sorted(
        (line[0] for line in made.lines), key=["short", "medium", "long"].index
    )
    assert sum(int(line[3]) for line in made.lines) == 90
    assert all(len(line) == 6 for line in made.lines)
    (one,) = crossed({"frames": data}, ("duration",)).lines[:1]
    assert one[2] == figure(cells(data)["short", "overall", ""])
    with pytest.raises(ConfigError, match=r"'domains'; did you mean 'domain'\? \(a table goes by some of duration, "):
        crossed({"frames": data}, ("domains",))
    with pytest.raises(ConfigError, match="each once"):
        crossed({"frames": data}, ("domain", "domain"))


def questions(videos=4):
    names = ("question_id", "video_id", "duration", "domain", "sub_category", "task_type", "question", "answer")
    return [
        Question(media_id=row["videoID"], options=tuple(row["options"]), **{name: row[name] for name in names})
        for row in rows(videos)
    ]


def test_the_official_file_goes_there_and_back(tmp_path):
    asked = questions()
    responses = {one.question_id: f'{one.answer}. said "so", ]' for one in asked if one.video_id != "003"}
    del responses["001-2"]
    result = official_form(asked, responses)
    assert [video["video_id"] for video in result] == ["001", "002", "003", "004"]
    assert [video.get("missing") for video in result] == [None, None, True, None]
    assert list(result[0]) == ["video_id", "duration", "domain", "sub_category", "questions"]
    assert list(result[0]["questions"][0]) == ["question_id", "task_type", "question", "options", "answer", "response"]
    write_official(tmp_path / "a.json", result)
    assert json.loads((tmp_path / "a.json").read_text()) == result
    back = read_result(tmp_path / "a.json")
    assert back.notes[0].startswith(
        "2 short, 1 medium, 0 long videos with answers; the official script wants 300 of each"
    )
    assert back.notes[1] == "1 videos are missing and not counted: 003"
    cell = cells(back.outcomes)[WHOLE, "overall", ""]
    assert (cell.questions, cell.official.answered, cell.official.correct) == (9, 8, 8)
    with pytest.raises(RecordError, match="1 responses are to questions that the data do not have, such as '009-1'"):
        official_form(asked, {"009-1": "A"})


def test_the_published_template_with_trailing_commas_is_read(tmp_path):
    text = json.dumps(official_form(questions(), {one.question_id: "A,] }" for one in questions()}), indent=1)
    loose = text.replace("\n]", ",\n]").replace("}\n", "},\n")
    with pytest.raises(ValueError, match=r"."):
        json.loads(loose)
    (tmp_path / "a.json").write_text(loose)
    (tmp_path / "b.json").write_text(text)
    assert read_result(tmp_path / "a.json").outcomes == read_result(tmp_path / "b.json").outcomes
    assert read_result(tmp_path / "a.json").outcomes[0].response == "A,] }"


LEAVES = st.none() | st.integers() | st.text(max_size=5)


@LAWS
@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner)))
def test_strict_json_has_no_trailing_commas_to_lose(value):
    text = json.dumps(value, ensure_ascii=False)
    assert without_trailing_commas(text) == text


def test_rows_are_read_and_wrong_files_told(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [{**vars(one)} for one in outcomes(2)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    found = read_result(path)
    assert found.outcomes == tuple(outcomes(2))
    assert found.notes == ("1 repeated questions are left out",)
    path.write_text('[{"video_id": "001", "questions": [3]}]')
    with pytest.raises(RecordError, match=r"a\.jsonl video 1: 'questions' is no list of objects; expected 3 questions"):
        read_result(path)
    path.write_text('[{"video_id": "001", "questions": [{"answer": "A"}]}]')
    with pytest.raises(RecordError, match=r"a\.jsonl line 1: no field 'duration'"):
        read_result(path)
    path.write_text("[{,]")
    with pytest.raises(RecordError, match=r"a\.jsonl is no JSON .*; expected the official output form"):
        read_result(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_result(tmp_path / "none.json")
