"""The demo with a session that answers by rote: what it asks, prints and writes."""

import base64
import importlib.util
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vedere.errors import ConfigError, MediaError, RecordError
from vedere.vision.pixels import image_size
from vedere.vision.video import probe

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def demo() -> Any:
    spec = importlib.util.spec_from_file_location("vedere_demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vedere_demo"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Reply:
    text: str
    prompt_tokens: int = 31
    answer_tokens: int = 3


@dataclass
class Rote:
    """Answers as told; remembers what it was shown."""

    answers: dict[str, str]
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def chat(self, question: str, **options: Any) -> Reply:
        self.seen.append((question, options))
        return Reply(self.answers.get(question, "<b>I do not know</b>"))


def test_the_demo_asks_prints_and_writes(demo, tmp_path):
    session = Rote({"Which digit is shown?": " 6.", "What does the sign say?": "shop", "What is drawn here?": "tree"})
    lines: list[str] = []
    answers = demo.run(session, EXAMPLES / "questions.json", tmp_path / "demo.html", "title & more", lines.append)
    asked = json.loads((EXAMPLES / "questions.json").read_text("utf-8"))
    assert [question for question, _ in session.seen] == [item["question"] for item in asked]
    for item, (_, options) in zip(asked, session.seen, strict=True):
        name = item.get("file", "")
        key = "videos" if name.endswith(".mp4") else "images"
        assert options.get(key, []) == ([EXAMPLES / name] if name else [])
        assert {"images", "videos"} & set(options) == ({key} if name else set())
    known = sum("expected" in item for item in asked)
    assert lines[-1].startswith(f"2 of {known} answers are as expected")
    assert [answer.asked.file for answer in answers if answer.right] == ["sign.png", "digit.png"]
    assert "31 tokens in, 3 out" in lines[0]
    assert "expected lollipop" in lines[0]
    assert "right" in next(line for line in lines if line.startswith("digit.png"))
    assert "expected" not in lines[-2]

    page = (tmp_path / "demo.html").read_text("utf-8")
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)]
    assert len(pictures) == sum("file" in item for item in asked)
    assert (EXAMPLES / "digit.png").read_bytes() in pictures
    assert image_size(pictures[-1]) == (640, 90), "a strip of four frames stands for the clip"
    assert "title &amp; more" in page
    assert "&lt;b&gt;I do not know" in page
    assert "<b>I do" not in page
    assert page.count('class="good"') + page.count('class="bad"') == known


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('[{"file": "none.png", "question": "What?"}]', MediaError, "not beside it: none.png"),
        ('[{"file": "a.png", "querstion": "What?"}]', ConfigError, "did you mean 'question'"),
        ('{"question": "What?"}', RecordError, "expected a list"),
        ("[", RecordError, "not JSON"),
    ],
)
def test_a_bad_questions_file_is_refused(demo, tmp_path, content, error, message):
    (tmp_path / "questions.json").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        demo.read_questions(tmp_path / "questions.json")


def test_example_files_are_small_named_and_readable():
    files = [path for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png", ".mp4")]
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    asked = {item.get("file") for item in json.loads((EXAMPLES / "questions.json").read_text("utf-8"))}
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        assert f"`{path.name}`" in readme, f"{path.name} has no licence in examples/README.md"
        assert path.name in asked, f"nobody asks about {path.name}"
        if path.suffix == ".mp4":
            assert 2 < probe(path).duration < 10
        else:
            assert min(image_size(path)) >= 100
