"""docs/from-remote-code.md: every new call of its table runs, on a tiny folder in the original layout."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_internvl
import vedere
from vedere.infer.session import Exchange, Question, Reply

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-remote-code.md"
ROWS = [
    line.strip("| \n").split(" | ")
    for line in PAGE.read_text("utf-8").split("## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| Remote")
]


def code(cell: str) -> list[str]:
    """What stands in a cell as Python that uses a session or makes one, in its order."""
    found = []
    for text in re.findall("`([^`]+)`", cell):
        if not ("session." in text or "vedere.load(" in text):
            continue
        try:
            ast.parse(text)
        except SyntaxError:
            continue
        found.append(text)
    return found


CALLS = [text for _, new in ROWS for text in code(new)]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the calls are written with."""
    import av

    folder = tmp_path_factory.mktemp("remote")
    torch.manual_seed(0)
    path = tiny_internvl.folder(folder / "model", "original", dtype=torch.bfloat16, max_positions=8192)
    Image.effect_noise((60, 30), 50).convert("RGB").save(folder / "one.png")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 25 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield {
            "vedere": vedere,
            "session": vedere.load(path),
            "path": path,
            "file": folder / "one.png",
            "one": str(folder / "one.png"),
            "two": Image.new("RGB", (30, 60), "red"),
            "clip": folder / "clip.mp4",
            "question": "what is it",
            "later": "and",
            "answer": "a picture",
            "pixels": torch.zeros(2, 3, tiny_internvl.TILE, tiny_internvl.TILE, dtype=torch.bfloat16),
            "Question": Question,
            "Exchange": Exchange,
        }


def test_the_page_has_calls_for_what_scripts_do():
    old = " ".join(before for before, _ in ROWS)
    for call in ("model.chat", "model.batch_chat", "return_history", "load_image", "load_video", "device_map", "load_in_8bit",
                 "generation_config", "num_patches_list", "None, question", "model.generate"):  # fmt: skip
        assert call in old
    assert len(CALLS) >= 25


def test_every_new_call_runs(names, capsys):
    replies = []
    for text in CALLS:
        tree = ast.parse(text)
        if isinstance(tree.body[-1], ast.Expr):
            value = eval(text, names)
            if isinstance(value, Reply):
                replies.append(value)
            assert value is not None, text
        else:
            exec(text, names)
    assert isinstance(names["reply"], Reply)
    assert len(replies) >= 10
    assert "Finished(" in capsys.readouterr().out


def test_two_pictures_have_their_own_limits_as_in_load_image(names):
    """``max_tiles=24`` for two is 12 for each."""
    wide = Image.new("RGB", (tiny_internvl.TILE * 12, tiny_internvl.TILE))
    reply = names["session"].chat("what", images=[wide, wide], max_tiles=24, max_new_tokens=1)
    assert [len(plan.tiles) for plan in reply.plans] == [13, 13]
