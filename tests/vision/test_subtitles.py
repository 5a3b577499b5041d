"""SRT files as they come, and which of their lines go with which frames."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError, MediaError
from vedere.vision.subtitles import (
    Cue,
    Subtitles,
    format_srt,
    frame_milliseconds,
    parse_srt,
    read_srt,
    subtitle_lines,
)

LAWS = settings(max_examples=150, deadline=None)
WORDS = st.text(alphabet="abcXYZ 12,.!?é猫'", max_size=20)
CUES = st.lists(
    st.builds(Cue, st.integers(0, 9000), st.integers(0, 9000), WORDS.map(lambda text: " ".join(text.split()))),
    max_size=8,
)
TIMES = st.lists(st.integers(0, 9000), max_size=20).map(sorted)


def stamp(ms: int) -> str:
    return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"


def srt(cues: list[Cue], *, numbers: bool = True, end: str = "\n") -> str:
    blocks = []
    for number, cue in enumerate(cues, 1):
        head = [str(number)] if numbers else []
        blocks.append(end.join([*head, f"{stamp(cue.start)} --> {stamp(cue.end)}", cue.text, ""]))
    return end.join(blocks)


def test_a_plain_file() -> None:
    found = read_srt(b"1\n00:00:01,500 --> 00:00:03,000\nHello\nthere\n\n2\n01:00:00,000 --> 01:00:02,007\nEnd\n")
    assert found == Subtitles((Cue(1500, 3000, "Hello there"), Cue(3600000, 3602007, "End")), "utf-8")


def test_automatic_captions() -> None:
    text = (
        '1\r\n00:00:00,000 --> 00:00:02,500\r\n<font color="white" size=".72c">so what is</font>\r\n\r\n'
        '2\r\n00:00:01,000 --> 00:00:04,000\r\n<font color="white" size=".72c">so what is\r\nthis [Music]</font>\r\n\r\n'
    )
    found = read_srt(b"\xef\xbb\xbf" + text.encode())
    assert found.encoding == "utf-8-sig"
    assert found.cues == (Cue(0, 2500, "so what is"), Cue(1000, 4000, "so what is this [Music]"))
    assert not found.problems


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("<i>a</i> <b>b</b>", "a b"),
        (r"{\an8}top\Nbottom", "top bottom"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("I <3 you", "I <3 you"),
        ("a &amp; b {x}", "a &amp; b {x}"),
        ("<c.colorE5E5E5>now</c>", "now"),
    ],
)
def test_markup_goes_and_words_stay(line: str, words: str) -> None:
    assert parse_srt(f"1\n00:00:01,000 --> 00:00:02,000\n{line}\n").cues[0].text == words


@pytest.mark.parametrize(
    ("line", "start", "end"),
    [
        ("00:00:01.500 --> 00:00:02.000", 1500, 2000),
        ("0:0:1,5 -> 0:0:2", 1500, 2000),
        ("00:00:01,05-->00:00:02,000  X1:40 X2:600", 1050, 2000),
        ("100:00:00,000 --> 100:00:01,000", 360000000, 360001000),
    ],
)
def test_times_as_people_write_them(line: str, start: int, end: int) -> None:
    assert parse_srt(f"1\n{line}\nx").cues == (Cue(start, end, "x"),)


def test_what_is_odd_is_told_and_kept() -> None:
    found = parse_srt(
        "junk\n1\n00:00:05,000 --> 00:00:04,000\nback\n\n00:00:06,000 --> 00:00:07,000\n\n3\n"
        "00:00:07,000 --> 00:00:09,000\nfirst\n\nsecond 3\n"
    )
    assert found.cues == (Cue(5000, 4000, "back"), Cue(6000, 7000, ""), Cue(7000, 9000, "first second 3"))
    assert found.problems == (
        "text before the first record, in front of line 3",
        "line 3: the record ends at 4000 ms and starts at 5000 ms, so no frame is inside",
        "line 6: the record has no words",
    )
    assert parse_srt("").problems == ("no line with two times (00:00:01,000 --> 00:00:02,000)",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_that_are_recognised(encoding: str) -> None:
    content = srt([Cue(0, 900, "été, 猫が好き")]).encode(encoding)
    found = read_srt(content)
    assert found.cues == (Cue(0, 900, "été, 猫が好き"),)
    assert not found.problems


def test_other_encodings_are_read_and_told() -> None:
    found = read_srt(srt([Cue(0, 900, "l’été")]).encode("cp1252"))
    assert found.cues[0].text == "l’été"
    assert found.problems == ("not UTF-8: read as cp1252, letters may be wrong",)
    assert read_srt(srt([Cue(0, 900, "x")]).encode() + b"\xe9\x81").encoding == "latin-1"


def test_files_that_are_no_subtitles(tmp_path) -> None:
    with pytest.raises(MediaError, match=r"a\.srt cannot be read \(No such file"):
        read_srt(tmp_path / "a.srt")
    with pytest.raises(MediaError, match=r"cannot be read \(Is a directory\); expected an SRT file"):
        read_srt(tmp_path)
    with pytest.raises(MediaError, match="holds binary data; expected an SRT file, which is text"):
        read_srt(b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8)


@LAWS
@given(CUES, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_written_file_is_read_back(cues: list[Cue], numbers: bool, end: str) -> None:
    cues = [cue for cue in cues if not cue.text.isdigit()]  # a last line of digits is the next record's number
    assert parse_srt(srt(cues, numbers=numbers, end=end)).cues == tuple(cues)
    assert parse_srt(format_srt(cues)).cues == tuple(cues)


@LAWS
@given(st.binary(max_size=400))
@example(b"1\n00:00:01,000 --> 00:00:02,000\n\xff\xfe")
@example(b"99999999999999999999:99:99,999 --> 0:0:0")
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        found = read_srt(content)
    except MediaError:
        return
    assert all("\n" not in cue.text and cue.text == cue.text.strip() for cue in found.cues)
    assert found.cues or found.problems


@LAWS
@given(CUES, TIMES)
def test_each_frame_gets_the_first_record_around_it(cues: list[Cue], times: list[int]) -> None:
    expected = []
    for time in times:
        around = [cue for cue in cues if cue.start < time < cue.end]
        expected += [around[0].text] if around and around[0].text else []
    assert subtitle_lines(cues, "frame_aligned", times) == expected


@LAWS
@given(CUES, TIMES)
def test_unique_drops_repeats_in_a_row_and_nothing_else(cues: list[Cue], times: list[int]) -> None:
    aligned, unique = (subtitle_lines(cues, mode, times) for mode in ("frame_aligned", "frame_aligned_unique"))
    assert all(one != other for one, other in itertools.pairwise(unique))
    assert unique == [line for k, line in enumerate(aligned) if k == 0 or aligned[k - 1] != line]
    assert set(aligned) <= set(subtitle_lines(cues, "full"))


def test_the_ends_of_a_record_are_outside_and_the_first_record_wins() -> None:
    cues = [Cue(0, 2000, "old"), Cue(1000, 3000, "new"), Cue(4000, 5000, "")]
    assert subtitle_lines(cues, "frame_aligned", [0, 1, 1500, 2000, 2999, 3000, 4500]) == ["old", "old", "new", "new"]
    assert subtitle_lines(cues, "frame_aligned_unique", [1, 1500, 2500, 1]) == ["old", "new", "old"]
    assert subtitle_lines(cues, "full") == ["old", "new"]
    with pytest.raises(ConfigError, match=r"unknown subtitle mode 'frame-aligned'; did you mean 'frame_aligned'\?"):
        subtitle_lines(cues, "frame-aligned", [1])  # type: ignore[arg-type]


def test_times_of_frames_are_whole_milliseconds() -> None:
    assert frame_milliseconds([0, 1, 10, 90], 29.97) == [0, 33, 334, 3003]
    assert frame_milliseconds([1, 3], 400.0) == [2, 8]  # 2.5 and 7.5: halves to even
