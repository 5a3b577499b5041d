import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import stand_ins

import vedere
from fake_endpoint import said, serve
from vedere.answers import ANSWER_RULES_VERSION
from vedere.cli import main
from vedere.errors import ConfigError, RecordError
from vedere.evals.safety.forms import FORMS
from vedere.evals.safety.judges import EndpointSpeaker, Failed, Judged, LocalSpeaker, ModelJudge
from vedere.evals.safety.log import is_safety_log, read_log
from vedere.evals.safety.mis import load_mis
from vedere.evals.safety.neighbours import load_neighbour
from vedere.evals.safety.rates import summary
from vedere.evals.safety.run import ModelSubject, RecordedSubject, evaluate

SAFE = {"label_perception": "Perception Level1", "label_str": "Safe"}
ASKED, ANSWERED = "CANARY-ASKED-41", "CANARY-ANSWERED-42"


@pytest.fixture
def requests(tmp_path):
    return load_mis(stand_ins.mis(tmp_path / "set"), "hard", consent=True, complete=False)


class Answers:
    """A subject that counts; it fails for the ids it is told."""

    def __init__(self, *failing):
        self.identity, self.failing, self.asked = {"model": "a"}, failing, []

    def answer(self, request):
        self.asked.append(request.id)
        if request.id in self.failing:
            raise Failed("status 500")
        return f"[stand-in answer {request.id}]"


class Verdicts:
    """A judge that counts."""

    def __init__(self, name="j", verdict=SAFE, why="", dies_at=None):
        self.identity, self.found, self.asked, self.dies_at = {"model": name}, (verdict, why), [], dies_at

    def judge(self, request, response):
        assert response == f"[stand-in answer {request.id}]"
        if request.id == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(request.id)
        verdict, why = self.found
        return Judged(verdict=verdict, why=why, tries=1, raw=("said",))


def test_a_whole_run_and_nothing_asked_twice(tmp_path, requests):
    log, subject, judge = tmp_path / "run.jsonl", Answers("4"), Verdicts()
    found = evaluate(requests, subject, judge, log)
    assert [one.label for one in found.outcomes] == ["RSR"] * 3 + ["no answer"] + ["RSR"] * 2
    again = evaluate(requests, subject, judge, log)
    assert subject.asked == [*"123456", "4"]  # what failed is tried again
    assert judge.asked == list("12356")
    assert again == found
    healed = evaluate(requests, Answers(), judge, log)
    assert [one.label for one in healed.outcomes] == ["RSR"] * 6


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_log_is_its_owners_alone(tmp_path, requests, mask):
    old = os.umask(mask)
    try:
        evaluate(requests, Answers(), None, tmp_path / "a" / "run.jsonl")
        (tmp_path / "open.jsonl").touch(mode=0o666)
        evaluate(requests, Answers(), None, tmp_path / "open.jsonl")
    finally:
        os.umask(old)
    for path in (tmp_path / "a" / "run.jsonl", tmp_path / "open.jsonl"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_killed_run_goes_on_where_it_was(tmp_path, requests):
    log, subject = tmp_path / "run.jsonl", Answers()
    with pytest.raises(KeyboardInterrupt):
        evaluate(requests, subject, Verdicts(dies_at="3"), log)
    with open(log, "ab") as file:
        file.write(b'{"kind": "verdict", "set": "mis-hard", "id": "3", "verd')
    judge = Verdicts()
    found = evaluate(requests, subject, judge, log)
    assert subject.asked == list("123456")
    assert judge.asked == list("3456")
    assert all(one.label == "RSR" for one in found.outcomes)


def test_another_judge_is_put_to_the_same_answers(tmp_path, requests):
    log, subject = tmp_path / "run.jsonl", Answers()
    evaluate(requests, subject, Verdicts("first"), log)
    second = Verdicts("second", {**SAFE, "label_str": "Unsafe"})
    found = evaluate(requests, subject, second, log)
    assert len(subject.asked) == len(second.asked) == 6
    assert {one.label for one in found.outcomes} == {"ASR"}
    assert found.judge["identity"] == {"model": "second"}
    assert len(found.judge["prompts"]["mis"]) == 16
    back = Verdicts("first")
    assert {one.label for one in evaluate(requests, subject, back, log).outcomes} == {"RSR"}
    assert not back.asked


def test_no_verdict_is_no_safe_answer_and_is_asked_again_by_the_next_run(tmp_path, requests):
    log = tmp_path / "run.jsonl"
    found = evaluate(requests, Answers(), Verdicts(verdict=None, why="unreadable"), log)
    figures = summary(found.outcomes)["sets"]["mis-hard"]
    assert (figures["judged"], figures["judge_unreadable"], figures["RSR"]) == (0, 6, None)
    judge = Verdicts()
    assert summary(evaluate(requests, Answers(), judge, log).outcomes)["sets"]["mis-hard"]["RSR"]["value"] == 100
    assert len(judge.asked) == 6


def test_another_run_does_not_go_on_with_a_log(tmp_path, requests):
    log = tmp_path / "run.jsonl"
    evaluate(requests, Answers(), None, log)
    other = Answers()
    other.identity = {"model": "b"}
    with pytest.raises(RecordError, match="the subject differ"):
        evaluate(requests, other, None, log)
    with pytest.raises(RecordError, match="the sets"):
        evaluate(requests[:3], Answers(), None, log)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RecordError, match="no safety log"):
        evaluate(requests, Answers(), None, tmp_path / "x.jsonl")


def test_what_a_log_gives_away_is_no_text(tmp_path, requests):
    log = tmp_path / "run.jsonl"
    evaluate(requests, Answers(), Verdicts(), log)
    text = log.read_text()
    assert "[stand-in question 3]" in text
    assert "[stand-in answer 3]" in text
    assert "stand-in question" not in repr(read_log(log))
    assert "stand-in answer" not in repr(read_log(log))
    assert is_safety_log(log)
    assert not is_safety_log(tmp_path / "set" / "mis_hard.json")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda lines: lines.__setitem__(2, "{CANARY"), ":3 is no JSON object"),
        (lambda lines: lines.__setitem__(2, '{"kind": "answer", "id": "CANARY"}'), ":3 is no answer"),
        (lambda lines: lines.__setitem__(0, '{"kind": "CANARY"}'), "no safety log"),
        (lambda lines: lines.__setitem__(-1, lines[-1].replace('"Safe"', '"CANARY"')), "its rubric does not have"),
    ],
)
def test_a_damaged_log_is_told_without_its_text(tmp_path, requests, damage, match):
    log = tmp_path / "run.jsonl"
    evaluate(requests, Answers(), Verdicts(), log)
    lines = log.read_text().splitlines()
    damage(lines)
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError, match=match) as caught:
        read_log(log)
    assert "CANARY" not in str(caught.value)


def test_what_would_fail_always_ends_the_run_and_keeps_the_answers(tmp_path, requests):
    class Wrong(Answers):
        def answer(self, request):
            if request.id == "3":
                raise ConfigError("status 401")
            return super().answer(request)

    with pytest.raises(ConfigError, match="401"):
        evaluate(requests, Wrong(), None, tmp_path / "run.jsonl", concurrency=2)
    assert len(read_log(tmp_path / "run.jsonl").outcomes) >= 1


def test_recorded_answers_are_judged_without_a_model(tmp_path, requests):
    path = tmp_path / "answers.jsonl"
    rows = [{"id": n, "response": f"[stand-in answer {n}]"} for n in range(1, 6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate(requests, RecordedSubject(path), Verdicts(), tmp_path / "run.jsonl")
    assert [one.label for one in found.outcomes] == ["RSR"] * 5 + ["no answer"]


def test_a_model_in_this_process_gets_four_tiles_a_picture(tmp_path, requests):
    from tiny_models import tiny_directory

    session = vedere.load(tiny_directory(tmp_path / "model"))
    subject = ModelSubject(LocalSpeaker(session), FORMS["internvl"], limit=4)
    found = evaluate(requests[:2], subject, None, tmp_path / "run.jsonl")
    assert all(one.answered for one in found.outcomes)
    from vedere.evals.safety.forms import media

    plans = [medium.plan for medium in media(FORMS["internvl"], session, requests[0])]
    limit = min(4, session.prompts.policy.max_tiles)
    assert all(len([tile for tile in plan.tiles if tile.role == "tile"]) <= limit for plan in plans)


def canary_script(number, body):
    """Both endpoints: answers with the marked text, errors that repeat the whole request, garbage from the judge."""
    text = json.dumps(body["messages"])
    echo = json.dumps({"error": {"message": f"I did not like {text} {ANSWERED}"}}).encode()
    if body["model"] == "judge":
        return [said(f"garbage {ANSWERED}"), said(json.dumps(SAFE)), (400, {}, echo), said(f"I'm sorry {ASKED}")][
            number % 4
        ]
    return [said(f"[{ANSWERED}]"), said(f"[{ANSWERED}]"), said(f"[{ANSWERED}]"), (400, {}, echo)][number % 4]


def options_of(tmp_path: Path, url: str, form: str) -> list[str]:
    both = ["--endpoint", url, "--model", "m", "--judge-endpoint", url, "--judge", "judge"]
    places = ["--root", str(tmp_path / "set"), "--log", str(tmp_path / "out" / "run.jsonl")]
    return ["safety", "mis-hard", *places, "--unsafe-text", "--partial", "--harmless", "none", "--form", form, *both]


def search_for_the_canary(tmp_path: Path, *streams: bytes) -> None:
    """Both marks are in the log and nowhere else: not in what was printed, not in any file, not in a name."""
    log, root = tmp_path / "out" / "run.jsonl", tmp_path / "set"
    text = log.read_text()
    assert ASKED in text
    assert ANSWERED in text
    for marked in (ASKED, ANSWERED, "stand-in question"):
        for stream in streams:
            assert marked.encode() not in stream
        for path in tmp_path.rglob("*"):
            assert marked not in path.name
            if path.is_file() and path not in (log, root / "mis_hard.json"):
                assert marked.encode() not in path.read_bytes(), path


def test_the_canary_stays_in_the_log(tmp_path):
    """A whole evaluation in a process of its own, every debug switch on; then everything that is left is searched."""
    root, home = stand_ins.mis(tmp_path / "set", count=8, mark=ASKED), tmp_path / "home"
    home.mkdir()
    places = ["HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "VEDERE_CACHE", "TMPDIR"]
    environment = {
        **os.environ,
        **dict.fromkeys(places, str(home)),
        "OPENAI_LOG": "debug",
        "VEDERE_DEBUG": "1",
        "OPENAI_API_KEY": "k",
        "PYTHONPATH": str(Path(vedere.__file__).parents[1]),
    }
    with serve(canary_script) as endpoint:
        command = [
            sys.executable,
            "-X",
            "dev",
            "-m",
            "vedere",
            *options_of(tmp_path, endpoint.url, "internvl"),
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, timeout=120, env=environment, cwd=home, check=False)
        assert any(ASKED in json.dumps(body) for body in endpoint.asked)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["sets"]["mis-hard"]["requests"] == 8
    assert b"mis-hard 1 (Illegal Activity): " in done.stderr
    search_for_the_canary(tmp_path, done.stdout, done.stderr)
    assert root.is_dir()


@pytest.mark.parametrize("form", FORMS)
def test_the_canary_stays_in_the_log_in_every_form_and_in_errors(tmp_path, form, capfd, monkeypatch, caplog):
    """Runs that end, go on, and fail, in this process, with all logging on."""
    stand_ins.mis(tmp_path / "set", count=8, mark=ASKED)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setattr("vedere.evals.safety.judges.sleep", lambda seconds: None)
    caplog.set_level(1)
    log = tmp_path / "out" / "run.jsonl"
    with serve(canary_script) as endpoint:
        options = options_of(tmp_path, endpoint.url, form)
        assert main(options) == 0
        assert main(options) == 0
        assert main([*options, "--limit", "3"]) == 2  # another run's log
        assert main([*options, "--recorded", str(log)]) == 2
        damaged = log.with_name("damaged.jsonl")
        damaged.write_text(f'{{"kind": "vedere safety run"}}\n{ASKED}\n')
        assert main([*options[:5], str(damaged), *options[6:]]) == 2
        assert main(["report", str(damaged), "--out", str(tmp_path / "damaged.html")]) == 2
        damaged.unlink()
    assert main(["report", str(log), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Illegal Activity" in page
    assert "RSR" in page
    printed = "".join(capfd.readouterr()) + caplog.text
    search_for_the_canary(tmp_path, printed.encode())


@pytest.fixture
def choices(tmp_path):
    root = tmp_path / "choices"
    root.mkdir()
    stand_ins.siuo_choice(root)
    return load_neighbour(root, "siuo-choice", consent=True, complete=False)


class Letters:
    """A subject that chooses B, says one thing unclearly and fails once."""

    identity = {"model": "letters"}  # noqa: RUF012

    def answer(self, request):
        return {"0": "The answer is A.", "3": "Maybe (A), maybe (B).", "5": "(b)"}.get(request.id, "B")


def test_letters_are_read_by_rules_whoever_judges(tmp_path, choices):
    log = tmp_path / "run.jsonl"
    labels = ["right", "right", "wrong", "no letter", "wrong", "right"]  # of A B C D A B
    found = evaluate(choices, Letters(), None, log)
    assert [one.label for one in found.outcomes] == labels
    assert found.judge["identity"] == {"kind": "rules", "model": "none", "answer_rules": ANSWER_RULES_VERSION}
    figures = summary(found.outcomes)["sets"]["siuo-choice"]
    assert figures["accuracy"]["value"] == 50
    assert figures["no letter"]["value"] == pytest.approx(100 / 6)
    judge = Verdicts("never asked")
    again = evaluate(choices, Letters(), judge, log)
    assert (judge.asked, [one.label for one in again.outcomes]) == ([], labels)
    assert again.judge["identity"]["answer_rules"] == ANSWER_RULES_VERSION
    assert evaluate(choices, Letters(), None, log) == again  # without a judge the last one's verdicts stay


def test_rules_and_a_judge_side_by_side(tmp_path, requests, choices):
    class Both(Letters):
        def answer(self, request):
            return f"[stand-in answer {request.id}]" if request.rubric == "mis" else super().answer(request)

    log = tmp_path / "run.jsonl"
    first = evaluate([*requests, *choices], Both(), None, log)
    assert [one.label for one in first.outcomes][5:8] == ["no verdict (not judged yet)", "right", "right"]
    judge = Verdicts()
    second = evaluate([*requests, *choices], Both(), judge, log)
    assert judge.asked == list("123456")
    assert [one.label for one in second.outcomes][5:8] == ["RSR", "right", "right"]


@pytest.mark.parametrize(("name", "file"), [("siuo-choice", "siuo_mcqa.json"), ("mssbench-embodied", "combined.json")])
def test_the_canary_stays_in_the_log_of_the_neighbours_too(tmp_path, name, file, capfd, monkeypatch, caplog):
    root = tmp_path / "set"
    root.mkdir()
    {"siuo-choice": stand_ins.siuo_choice, "mssbench-embodied": stand_ins.mssbench_embodied}[name](root, mark=ASKED)
    monkeypatch.setattr("vedere.evals.safety.judges.sleep", lambda seconds: None)
    caplog.set_level(1)
    log = tmp_path / "out" / "run.jsonl"
    options = ["safety", name, "--root", str(root), "--log", str(log), "--harmless", "none", "--partial"]
    assert main(options) == 2  # no consent: nothing is read
    assert not log.exists()
    with serve(canary_script) as endpoint:
        ends = ["--endpoint", endpoint.url, "--model", "m", "--judge-endpoint", endpoint.url, "--judge", "judge"]
        assert main([*options, "--unsafe-text", *ends]) == 0
        assert main([*options, "--unsafe-text", *ends, "--json"]) == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert main(["report", str(log), "--out", str(tmp_path / "report.html")]) == 0
    text, printed = log.read_text(), "".join(capfd.readouterr()) + caplog.text
    for marked in (ASKED, ANSWERED):
        assert marked in text
        assert marked not in printed
        for path in tmp_path.rglob("*"):
            if path.is_file() and path not in (log, root / file):
                assert marked.encode() not in path.read_bytes(), path


def test_a_choice_from_the_command_line_needs_no_judge(tmp_path, choices, capsys):
    recorded = tmp_path / "answers.jsonl"
    recorded.write_text("".join(json.dumps({"id": one.id, "response": one.target}) + "\n" for one in choices))
    options = ["--root", str(tmp_path / "choices"), "--log", str(tmp_path / "r"), "--recorded", str(recorded)]
    shown = [*options, "--unsafe-text", "--partial", "--harmless", "none"]
    assert main(["safety", "siuo-choice", *shown]) == 0
    out, err = capsys.readouterr()
    assert "accuracy" in out
    assert "100.00 [" in out
    assert "no judge" not in err
    assert main(["report", str(tmp_path / "r"), "--out", str(tmp_path / "report.html")]) == 0
    assert "100.0<small>% accuracy" in (tmp_path / "report.html").read_text()


def test_a_wrong_key_ends_the_run_with_a_message_that_repeats_nothing(tmp_path, requests):
    with serve(lambda number, body: (401, {}, json.dumps({"error": {"message": ASKED}}).encode())) as endpoint:
        subject = ModelSubject(EndpointSpeaker(endpoint.url, "m", retries=0), FORMS["plain"])
        with pytest.raises(ConfigError, match=r"status 401 for model 'm'.*OPENAI_API_KEY") as caught:
            evaluate(requests, subject, None, tmp_path / "run.jsonl")
    assert ASKED not in str(caught.value)


def test_the_endpoint_is_asked_greedily_with_pictures_before_the_text(tmp_path, requests):
    with serve(lambda number, body: said("fine" if body["max_tokens"] == 1024 else json.dumps(SAFE))) as endpoint:
        speaker = EndpointSpeaker(endpoint.url, "m")
        found = evaluate(
            requests[:1], ModelSubject(speaker, FORMS["qwen2-vl"]), ModelJudge(speaker), tmp_path / "run.jsonl"
        )
        asked, judged = endpoint.asked
    assert found.outcomes[0].label == "RSR"
    assert [part["type"] for part in asked["messages"][0]["content"]] == ["image_url", "image_url", "text"]
    assert (asked["temperature"], asked["max_tokens"], len(asked["messages"])) == (0, 1024, 1)
    assert judged["messages"][0] == {"role": "system", "content": "You are a helpful assistant."}
    assert judged["response_format"]["json_schema"]["strict"] is True
    assert (judged["temperature"], judged["max_tokens"]) == (0, 128)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "--unsafe-text"),
        (["--unsafe-text"], "holds 6 requests, hard has 510"),
        (["--unsafe-text", "--partial", "--form", "qwen"], "unknown prompt form 'qwen'"),
        (["--unsafe-text", "--partial", "--stub-judge", "--judge", "x"], "several judges"),
        (["--unsafe-text", "--partial", "--judge-endpoint", "http://x/v1"], "add --judge NAME"),
        (["--unsafe-text", "--partial", "--harmless", "mssbench"], "--harmless-root"),
        (["--unsafe-text", "--partial", "--harmless", "none", "--endpoint", "file:///x"], "no plain http"),
        (["--unsafe-text", "--partial", "--harmless", "none", "--endpoint", "http://k@x/v1"], "no plain http"),
    ],
)
def test_wrong_options_of_the_command_are_told(tmp_path, capsys, options, match):
    stand_ins.mis(tmp_path)
    assert main(["safety", "mis-hard", "--root", str(tmp_path), "--log", str(tmp_path / "r"), *options]) == 2
    assert match in capsys.readouterr().err


def test_the_command_prints_over_refusal_beside_the_rates(tmp_path, capsys):
    stand_ins.mis(tmp_path)
    answers = tmp_path / "a.jsonl"
    rows = [{"id": n, "response": "I'm sorry, I can't help." if n < 4 else ""} for n in range(1, 7)]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--unsafe-text", "--partial", "--recorded", str(answers), "--stub-judge", "--harmless", "none"]
    assert main(["safety", "mis-hard", "--root", str(tmp_path), "--log", str(tmp_path / "r"), *options]) == 0
    out = capsys.readouterr().out
    assert "harmless refused" in out
    assert "not measured" in out
    assert "no safety figures" in out
    assert main(["safety", "mis-heart", "--root", "x", "--log", "y"]) == 2
    assert "did you mean 'mis-hard'" in capsys.readouterr().err
