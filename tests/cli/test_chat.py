import builtins
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tiny_models import tiny_directory, tiny_shipped
from vedere import cli
from vedere.cli.chat import split_inputs
from vedere.errors import MediaError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_directory(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (60, 30), "red").save(path)
    return str(path)


def _run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_an_answer_goes_to_standard_output(capsys, model, picture):
    arguments = ("chat", picture, "what is it?", "--model", model, "--max-new-tokens", "5")
    status, out, err = _run(capsys, *arguments)
    assert status == 0
    assert out.endswith("\n")
    assert err == ""
    assert _run(capsys, *arguments)[1] == out


def test_a_delta_with_the_language_model_that_it_needs(capsys, tmp_path, picture, monkeypatch):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    delta, language_model = tiny_shipped(tmp_path)
    arguments = ("chat", picture, "what?", "--model", str(delta), "--max-new-tokens", "5")
    status, _, err = _run(capsys, *arguments)
    assert status == 2
    assert "give it: language_model='FOLDER' or --language-model FOLDER" in err
    status, out, err = _run(capsys, *arguments, "--language-model", str(language_model))
    assert (status, err) == (0, "")
    assert out.endswith("\n")


def test_json_is_one_object(capsys, model, picture):
    status, out, err = _run(
        capsys, "chat", picture, picture, "what?", "--model", model, "--json", "--max-new-tokens", "5",
        "--temperature", "1.5", "--seed", "3", "--timings",
    )  # fmt: skip
    assert status == 0
    reply = json.loads(out)
    assert out.count("\n") == 1
    assert reply["answer_tokens"] <= 5
    assert reply["seed"] == 3
    assert [(medium["kind"], medium["width"], medium["height"]) for medium in reply["media"]] == [("image", 60, 30)] * 2
    assert sum(medium["tokens"] for medium in reply["media"]) < reply["prompt_tokens"]
    seconds = reply["seconds"]
    assert 0 < seconds["process_to_loaded"] <= seconds["process_to_first_token"]
    assert "first token" in err


def test_beams(capsys, model, picture):
    words = ("chat", picture, "What?", "--model", model, "--max-new-tokens", "4", "--num-beams", "3")
    text = _run(capsys, *words)[1]
    found = json.loads(_run(capsys, *words, "--length-penalty", "1.0", "--json")[1])
    assert text == found["text"] + "\n"
    assert found["answer_tokens"] <= 4
    drawn = [_run(capsys, *words, "--temperature", "1", "--seed", seed)[1] for seed in "3345678"]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    status, _, err = _run(capsys, *words[:-1], "0")
    assert status == 2
    assert "num_beams is 0; expected 1 (no search) or more" in err


def test_json_and_text_say_the_same(capsys, model, picture):
    arguments = ("chat", picture, "what?", "--model", model, "--max-new-tokens", "8")
    text = _run(capsys, *arguments)[1]
    assert json.loads(_run(capsys, *arguments, "--json")[1])["text"] + "\n" == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chat", "no such.png", "what?"), "'no such.png' does not exist; check the path"),
        (("chat", "missing.jpg"), "'missing.jpg' does not exist; check the path, or write the question after it"),
        (("chat", "what?", "--video", "no.mp4"), "'no.mp4' does not exist"),
        (
            ("chat", "https://x.org/a.png", "what?"),
            "'https://x.org/a.png' is an address; expected a local file: download",
        ),
        (("chat", "data:image/png;base64,AA", "what?"), "AA' is an address; expected a local file"),
        (("chat", "what?", "--model", "mimi"), "did you mean 'mini'"),
        (("chat", "x" * 5000, "what?"), "xxx' does not exist; check the path"),
        (("verify", "nowhere"), "no folder nowhere; give one with recorded outputs"),
        (("caht", "x"), "unknown command 'caht'; did you mean 'chat'? (commands: chat, plan"),
    ],
)
def test_errors_are_one_message_and_status_2(capsys, arguments, message):
    status, out, err = _run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("vedere: ")
    assert "Traceback" not in err
    status, out, err = _run(capsys, *arguments, "--json")
    assert status == 2
    assert message in json.loads(out)["error"]["message"]
    assert message in err


def test_the_number_format_can_be_chosen(capsys, model, picture):
    arguments = ["chat", picture, "what?", "--model", model, "--max-new-tokens", "4", "--device", "cpu"]
    status, out, _ = _run(capsys, *arguments, "--dtype", "fp32")
    assert status == 0
    assert out.strip()
    status, _, err = _run(capsys, *arguments, "--dtype", "fp16")
    assert status == 2
    assert "float16 is refused for Mono-InternVL" in err


def test_a_file_that_is_no_picture(capsys, model, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    status, _, err = _run(capsys, "chat", str(path), "what?", "--model", model)
    assert status == 2
    assert "is not a picture that can be read" in err


def test_a_clip_among_the_pictures_is_told_where_to_go(capsys, tmp_path, session):
    path = tmp_path / "clip.MP4"
    path.touch()
    status, _, err = _run(capsys, "chat", str(path), "what?")
    assert status == 2
    assert f"'{path}' is a video, and only pictures stand without an option; give it as --video '{path}'" in err
    assert f"'{path}' is a video; give it as /video {path}" in session([f"/image {path}", "/exit"])[2]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "utf-8:surrogateescape"])
def test_bytes_that_are_no_text_end_no_run(model, tmp_path, encoding):
    name = os.fsencode(tmp_path) + b"/red\xff.png"
    Image.new("RGB", (60, 30), "red").save(tmp_path / "red.png")
    os.rename(tmp_path / "red.png", name)
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONIOENCODING": encoding}

    def run(*arguments, text=b""):
        command = [
            sys.executable,
            "-m",
            "vedere",
            "chat",
            *arguments,
            "--model",
            model,
            "--max-new-tokens",
            "3",
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, env=environment, input=text, check=False)
        assert b"Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout.decode("utf-8"))

    status, reply = run(name, "what?")
    assert status == 0
    assert reply["media"][0]["name"] == os.fsdecode(name)
    status, reply = run(name + b"f", "what?")
    assert status == 2
    assert os.fsdecode(name) + "f' does not exist" in reply["error"]["message"]
    status, reply = run(name, text=b"wh\xff")
    assert status == 2
    assert "half of a surrogate pair" in reply["error"]["message"]


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("VEDERE_DEBUG", "1")
    with pytest.raises(MediaError):
        cli.main(["chat", "missing.jpg"])


def test_options_are_checked_before_the_run(capsys, model):
    status, _, err = _run(capsys, "chat", "hi", "--model", model, "--max-new-tokens", "600")
    assert status == 2
    assert "600 new tokens were asked for" in err
    with pytest.raises(SystemExit) as exit_:
        cli.main(["chat", "hi", "--temprature", "1"])
    assert exit_.value.code == 2


def test_the_question_is_the_last_argument(picture):
    assert split_inputs((picture, "what?")) == ([picture], "what?")
    assert split_inputs((picture, picture)) == ([picture, picture], None)
    assert split_inputs(()) == ([], None)
    assert split_inputs(("is this a .png",)) == ([], "is this a .png")
    assert split_inputs(("x" * 5000,)) == ([], "x" * 5000)
    assert split_inputs(("a\0b",)) == ([], "a\0b")
    with pytest.raises(MediaError, match=r"'photo.png' does not exist"):
        split_inputs(("photo.png",))


def test_a_question_from_standard_input(capsys, monkeypatch, model, picture):
    arguments = ("chat", picture, "--model", model, "--max-new-tokens", "4")
    monkeypatch.setattr(sys, "stdin", io.StringIO("what?\n"))
    asked = _run(capsys, *arguments)
    assert asked == _run(capsys, "chat", picture, "what?", *arguments[2:])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    status, _, err = _run(capsys, *arguments)
    assert status == 2
    assert "no question; give it as the last argument" in err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def session(capsys, monkeypatch, model):
    """Runs an interactive session with the given lines; an exception in their place is raised."""

    def run(lines, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", _Terminal())
        feed = iter([*lines, EOFError()])

        def answer(prompt: str = "") -> str:
            line = next(feed)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", answer)
        return _run(capsys, "chat", *arguments, "--model", model, "--max-new-tokens", "5")

    return run


def test_a_session(session, picture, capsys, model):
    status, out, err = session(
        ["/image " + picture, "what?", "and?", "", "/clear", "what?", "/exit", "never asked"], "--timings"
    )
    assert status == 0
    assert "1 pictures and 0 videos go with the next question" in err
    assert "forgotten" in err
    assert err.count("[first token") == 3
    first = _run(capsys, "chat", picture, "what?", "--model", model, "--max-new-tokens", "5")[1]
    last = _run(capsys, "chat", "what?", "--model", model, "--max-new-tokens", "5")[1]
    assert out.startswith(first)  # the picture goes with the first question
    assert out.endswith(last)  # and is forgotten after /clear


def test_a_session_survives_mistakes(session, picture):
    status, _, err = session(
        [
            "/image no such.png",
            "/image",
            "/imgae x",
            "<image> <image> what?",
            "/image 'x",
            "/help",
            f"/image '{picture}'",
            "what?",
        ],
        picture,
    )
    assert status == 0  # ends with the input
    assert "/image needs files that exist; given: no, such.png" in err
    assert "given: nothing" in err
    assert "close the quotation mark" in err
    assert "placeholders for 2 images" in err
    assert "unknown command '/imgae'; did you mean '/image'" in err
    assert "/clear" in err
    assert "2 pictures and 0 videos" in err


def test_json_needs_a_question(session):
    status, out, err = session([], "--json")
    assert status == 2
    assert "--json answers one question" in err
    assert json.loads(out)["error"]["kind"] == "PromptError"


def test_ctrl_c(session, capsys, monkeypatch, model):
    status, _, err = session([KeyboardInterrupt()])
    assert status == 130
    assert err.endswith("interrupted\n")

    from vedere.infer.session import Session

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "chat", interrupted)
    status, out, _ = _run(capsys, "chat", "what?", "--model", model, "--json")
    assert status == 130
    assert json.loads(out)["error"]["message"] == "interrupted"
    status, _, err = session(["what?", "/exit"])  # ends the answer only
    assert status == 0
    assert "(interrupted)" in err


def test_the_overview_costs_no_torch():
    code = (
        "import sys; from vedere.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'tyro', 'pydantic', 'PIL'} & set(sys.modules); assert not heavy, heavy; sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    for arguments, status, text in ((["--help"], 0, "vedere COMMAND"), ([], 2, "chat"), (["--version"], 0, "0.")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert (done.returncode, done.stderr) == (status, "")
        assert text in done.stdout


def test_a_command_that_is_not_there_yet(capsys, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "dream", ("vedere.cli.dream", "nothing"))
    status, _, err = _run(capsys, "dream")
    assert status == 2
    assert "no command 'dream' yet" in err


def test_videos(capsys, model, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(6):
            picture = Image.new("RGB", (64, 48), (40 * k, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    options = ("--model", model, "--json", "--frames", "2", "--frame-rule", "linspace", "--max-new-tokens", "3")
    status, out, _ = _run(capsys, "chat", "what?", "--video", str(path), "--video", str(path), *options)
    assert status == 0
    media = json.loads(out)["media"]
    assert [(medium["kind"], medium["frames"], medium["tiles"]) for medium in media] == [("video", 2, 2)] * 2
