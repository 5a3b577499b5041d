"""Questions and media on the disk: what is read, what is refused, what is told."""

import json

import pytest
from film_stand_ins import media_id, rows, write_clip, write_questions, write_set

from vedere.errors import ConfigError, MediaError, RecordError
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.media import check_media, find_media, report
from vedere.evals.video_mme.questions import Question, deviations, read_questions


def official() -> list[Question]:
    """A set with all published counts: 900 videos, letters and task types as many as there are."""
    tasks = {
        duration: [name for name, counts in taxonomy.TASK_COUNTS.items() for _ in range(counts[place])]
        for place, duration in enumerate(taxonomy.DURATIONS)
    }
    letters = [letter for letter, count in taxonomy.ANSWER_COUNTS.items() for _ in range(count)]
    made = []
    for video in range(900):
        duration = taxonomy.DURATIONS[video // 300]
        sub = taxonomy.SUB_CATEGORIES[video % 30]
        domain = next(name for name, subs in taxonomy.DOMAINS.items() if sub in subs)
        for number in (1, 2, 3):
            made.append(
                Question(
                    question_id=f"{video + 1:03}-{number}",
                    video_id=f"{video + 1:03}",
                    media_id=media_id(video + 1),
                    duration=duration,
                    domain=domain,
                    sub_category=sub,
                    task_type=tasks[duration].pop(),
                    question="?",
                    options=("A. a", "B. b", "C. c", "D. d"),
                    answer=letters.pop(),
                )
            )
    return made


def test_the_published_counts_fit_together():
    assert [sum(counts[place] for counts in taxonomy.TASK_COUNTS.values()) for place in range(3)] == [900, 900, 900]
    assert sum(taxonomy.ANSWER_COUNTS.values()) == taxonomy.QUESTIONS
    assert len(taxonomy.SUB_CATEGORIES) == 30
    assert set(taxonomy.TASK_GROUPS) == set(taxonomy.TASK_TYPES)
    assert [
        sum(g == name for g in taxonomy.TASK_GROUPS.values()) for name in ("perception", "cognition", "synopsis")
    ] == [7, 4, 1]


def test_a_set_with_all_published_counts_does_not_deviate():
    made = official()
    assert not list(deviations(made))
    task, wrong = "Counting Problem", "Counting Problems"
    plural = [Question(**{**vars(one), "task_type": wrong}) if one.task_type == task else one for one in made]
    assert any("unknown task_type: Counting Problems" in line for line in deviations(plural))
    moved = [Question(**{**vars(made[0]), "answer": "B" if made[0].answer != "B" else "A"}), *made[1:]]
    assert [line for line in deviations(moved) if line.startswith("answers {")]
    assert any("2699 rows" in line for line in deviations(made[1:]))
    assert any("1 videos do not have 3 questions: 001" in line for line in deviations(made[1:]))


def test_a_file_is_read_in_its_order(tmp_path):
    data = rows(2)
    found = read_questions(write_questions(tmp_path / "q.parquet", data))
    assert [one.question_id for one in found.questions] == [row["question_id"] for row in data]
    first = found.questions[0]
    assert (first.video_id, first.media_id, first.options) == ("001", media_id(1), tuple(data[0]["options"]))
    assert list(found.videos) == ["001", "002"]
    assert not found.problems
    assert "6 rows; the published set has 2700" in found.deviations
    assert not found.is_official


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "'answer' is 'E', expected one of A, B, C, D"),
        ({"options": ["A. a", "B. b", "C. c"]}, "3 options, expected 4"),
        ({"options": ["a", "B. b", "C. c", "D. d"]}, "option 'a' does not begin with its letter, such as 'A. Apples.'"),
        ({"question": "  "}, "'question' is empty"),
        ({"question_id": "009-1"}, "question_id '009-1' does not belong to video_id '001'"),
        ({"question_id": "001-1"}, "question_id '001-1' comes a second time; the first one stays"),
    ],
)
def test_a_bad_row_is_left_out_and_told(tmp_path, change, message):
    data = rows(2)
    data[1] |= change
    found = read_questions(write_questions(tmp_path / "q.parquet", data))
    assert found.problems == (f"row 2: {message}",)
    assert len(found.questions) == 5


def test_numbers_as_ids_lose_their_zeros(tmp_path):
    data = [row | {"video_id": int(row["video_id"])} for row in rows(1)]
    with pytest.raises(RecordError, match=r"row 1: 'video_id' is 1, expected a text: leading zeros are lost"):
        read_questions(write_questions(tmp_path / "q.parquet", data))


def test_other_revisions_are_refused(tmp_path):
    path = write_questions(tmp_path / "q.parquet", [row | {"language": "en"} for row in rows(1)])
    with pytest.raises(
        RecordError, match=r"3 rows with language; this is a revision of 2024 before the current one; expected"
    ):
        read_questions(path)
    old = [{"id": "1", "duration_category": "short", "questions": "[]"}]
    with pytest.raises(RecordError, match=r"1 rows without answer, domain.* and with .*this is the first revision"):
        read_questions(write_questions(path, old))


def test_what_is_no_question_file(tmp_path):
    with pytest.raises(RecordError, match=r"holds 0 parquet files \(none\); expected the one of Video-MME's questions"):
        read_questions(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(RecordError, match=r"a\.parquet is no parquet file that can be read"):
        read_questions(tmp_path)
    write_questions(tmp_path / "b.parquet", rows(1))
    with pytest.raises(RecordError, match=r"holds 2 parquet files \(a\.parquet, b\.parquet\)"):
        read_questions(tmp_path)
    write_questions(tmp_path / "videomme.parquet", rows(1))
    assert len(read_questions(tmp_path).questions) == 3


def test_a_whole_set_is_checked(whole_set):
    found = check_media(read_questions(whole_set), find_media(whole_set), "decoded")
    assert (found.videos, found.usable, found.missing, dict(found.damaged)) == (6, 6, (), {})
    assert found.silent == ("002", "004", "006")
    assert found.without_subtitles == ("002", "004", "006")
    assert set(found.odd_length) == {"002", "003", "005", "006"}  # two seconds are neither medium nor long
    assert not found.comparable  # not the published set
    assert "6 of 6 videos can be asked about" in report(found)
    assert "can not stand beside published ones" in report(found)


def test_what_is_missing_or_damaged_is_listed(tmp_path):
    folder = write_set(tmp_path / "set", clips=4)
    data = folder / "data"
    (data / f"{media_id(1)}.mp4").write_bytes(b"not a film")
    film = (data / f"{media_id(2)}.mp4").read_bytes()
    (data / f"{media_id(2)}.mp4").write_bytes(film[: len(film) // 2])
    (data / f"{media_id(3)}.mp4").rename(data / f"{media_id(3)}.MP4")
    write_clip(data / f"{media_id(3)}.mkv")
    write_clip(data / "stranger.mp4")
    (data / f"{media_id(5)}.mp4.part").write_bytes(b"x")
    (data / "chunk_1.zip").write_bytes(b"x")
    (folder / "subtitle" / f"{media_id(3)}.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\né\n".encode("cp1252"))
    found = check_media(read_questions(folder), find_media(folder))
    assert found.missing == ("005", "006")
    assert set(found.damaged) == {"001", "002"}
    assert found.usable == 2
    assert found.subtitle_problems["003"] == ("not UTF-8: read as cp1252, letters may be wrong",)
    assert found.notes == (
        f"{media_id(3)}.mkv is not used: {media_id(3)}.MP4 is there too",
        f"1 unfinished downloads, such as {media_id(5)}.mp4.part",
        "1 archives, such as chunk_1.zip: their content counts once they are unpacked",
        "1 video files that no question is about, such as stranger.mp4",
    )
    text = report(found)
    assert "2 of 6 videos can be asked about" in text
    assert "2 videos are missing:\n  005 006" in text
    listed = check_media(read_questions(folder), find_media(folder), "listed")
    assert (listed.missing, dict(listed.damaged)) == (("005", "006"), {})
    with pytest.raises(ConfigError, match="unknown depth 'deep'; expected listed, probed or decoded"):
        check_media(read_questions(folder), find_media(folder), "deep")
    with pytest.raises(MediaError, match="is no folder; expected one with unpacked video"):
        find_media(folder / "nothing")
    assert json.dumps(found.missing)
