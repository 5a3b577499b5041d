"""The shipped model, end to end: the language model untouched, answers about pictures, the commands of the README.

These tests need the language model (fetched once by the first start) and the weights in the package.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vedere
from vedere.infer.engine import Engine, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.checkpoints import load_model
from vedere.models.decoder import Decoder
from vedere.models.sources import language_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPTS = ("What is the capital of France?", "Write a line about the sea.", "1 + 1 =", "Wie geht es dir? 你好")


@pytest.fixture(scope="module")
def mini() -> vedere.Session:
    return vedere.load("mini")


@pytest.fixture(scope="module")
def bare() -> Decoder:
    model = load_model(language_model())
    assert isinstance(model, Decoder)
    return model


def test_text_logits_are_those_of_the_bare_language_model_bit_by_bit(mini: vedere.Session, bare: Decoder) -> None:
    decoder = mini.engine.model.decoder
    tokenizer = mini.prompts.tokenizer
    for prompt in PROMPTS:
        ids = torch.tensor(tokenizer.encode(prompt))
        types = torch.zeros(len(ids), dtype=torch.uint8)
        with torch.inference_mode():
            ours = decoder.logits(decoder(decoder.embed(ids), torch.arange(len(ids)), [0, len(ids)], types))
            theirs = bare.logits(bare(bare.embed(ids), torch.arange(len(ids)), [0, len(ids)]))
        assert torch.equal(ours, theirs), prompt


def test_text_answers_are_those_of_the_bare_language_model(mini: vedere.Session, bare: Decoder) -> None:
    tokenizer = mini.prompts.tokenizer
    sampling = SamplingParams(max_new_tokens=12, temperature=0)
    for prompt in PROMPTS:
        ids = np.array(tokenizer.encode(prompt))
        answers = [
            next(event for event in engine.generate([Request(ids=ids, sampling=sampling)]) if hasattr(event, "reason"))
            for engine in (mini.engine, Engine(bare))
        ]
        assert answers[0].ids == answers[1].ids
        assert answers[0].logprobs == answers[1].logprobs


def test_the_language_model_is_shared_and_unchanged(mini: vedere.Session, bare: Decoder) -> None:
    own = mini.engine.model.decoder.state_dict()
    for name, tensor in bare.state_dict().items():
        assert torch.equal(own[name], tensor), name


def test_the_picture_matters(mini: vedere.Session) -> None:
    names = ("hat.jpg", "shoes.jpg", "scene.png", "sign.png", "drawing.png")
    answers = {mini.chat("What do you see?", images=[EXAMPLES / name], max_new_tokens=16).text for name in names}
    assert len(answers) >= 3


def test_streamed_pieces_join_to_the_answer(mini: vedere.Session) -> None:
    picture = EXAMPLES / "scene.png"
    stream = mini.chat("Describe the picture.", images=[picture], stream=True, max_new_tokens=24)
    assert "".join(stream) == mini.chat("Describe the picture.", images=[picture], max_new_tokens=24).text


def test_a_clip_is_seen_frame_by_frame(mini: vedere.Session) -> None:
    reply = mini.chat("What do you see?", videos=[EXAMPLES / "cars.mp4"], frames=4, max_new_tokens=4)
    assert reply.plans[0].frames == 4
    assert reply.plans[0].tokens == 100


def test_chat_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "vedere", "chat", str(EXAMPLES / "hat.jpg"), "What garment is this?", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["text"]


def test_chat_command_says_which_picture_is_missing() -> None:
    command = [sys.executable, "-m", "vedere", "chat", "no-such-picture.jpg", "What is this?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "no-such-picture.jpg" in done.stderr
    assert "Traceback" not in done.stderr
