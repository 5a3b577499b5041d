"""``vedere serve compose`` as a process: it says where it is, answers, and ends by Ctrl-C; bad options are explained."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from vedere.cli import main
from vedere.compose.prompts import SECOND, Brief
from vedere.compose.scripted import ScriptedModel
from vedere.serve.one_at_a_time import OneAtATime
from vedere.serve.site import POLICY

SCRIPT = {"write": "A bear.\nShoes.", "spot": "0", "caption": "a bear", "select": "A"}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(SCRIPT))
    return path


def run(capsys, *argv):
    status = main(["serve", *map(str, argv)])
    return status, capsys.readouterr().err


def test_it_serves_until_it_is_interrupted(script, tmp_path):
    command = [
        sys.executable,
        "-m",
        "vedere",
        "serve",
        "compose",
        "--script",
        script,
        "--port",
        "0",
        "--files",
        tmp_path / "f",
    ]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "True"}  # whatever the environment says, it stays off
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line
            with urllib.request.urlopen(address[0], timeout=30) as answer:
                page = answer.read().decode()
                assert answer.headers["content-security-policy"] == POLICY
            assert '"analytics_enabled":false' in page
            assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(?:https?:)?//", page)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, 130)
        assert "Traceback" not in process.stderr.read()


def test_a_port_in_use_is_found_before_anything_is_loaded(script, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, said = run(
            capsys, "compose", "--script", script, "--port", taken.getsockname()[1], "--gallery", "nothing"
        )
    assert status == 2
    assert "cannot listen on 127.0.0.1" in said
    assert "choose another --port" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["compos"], "no page 'compos'; did you mean 'compose'?"),
        (["compose", "--script", "none.json", "--port", "0"], "the script none.json cannot be read"),
        (["compose", "--port", "99999", "--script", "x"], "cannot listen on 127.0.0.1, port 99999"),
        (["compose", "--endpoint", "http://x/v1"], "without --endpoint-model"),
        (["compose", "--script", "x", "--model", "mini"], "--script answers everything"),
    ],
)
def test_bad_options_are_explained(capsys, options, message):
    status, said = run(capsys, *options)
    assert status == 2
    assert message in said


def test_without_gradio_the_extra_is_named(script, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    status, said = run(capsys, "compose", "--script", script)
    assert status == 2
    assert "pip install 'vedere[serve]'" in said


def test_help(capsys):
    assert main(["serve", "--help"]) == 0
    assert "compose" in capsys.readouterr().out


def test_one_answer_begins_when_the_one_before_has_ended():
    prompt = SECOND.write(Brief(title="t"))
    model = OneAtATime(ScriptedModel({"write": ["a b", "c d"]}))
    pieces = model.stream(prompt)
    assert next(pieces) == "a"
    assert not model._turn.acquire(blocking=False)
    pieces.close()  # an abandoned answer gives the turn back
    assert model.answer(prompt) == "c d"
