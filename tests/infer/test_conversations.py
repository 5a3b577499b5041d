"""Conversations with pictures and videos as the originals lay them out: every template, several turns, ragged batches, V2PE.

What a prompt should be is written here as one string a template, not taken from the renderer.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_internvl
from vedere.errors import ConfigError
from vedere.infer.engine import Finished
from vedere.infer.prompts import Medium, Question
from vedere.infer.session import Session, load
from vedere.plan import TilingPolicy, plan_media
from vedere.text.tokenizer import Tokenizer
from vedere.vision.pixels import media_tiles

TILE, PER_TILE = tiny_internvl.TILE, 4
PHI3 = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
IM = "<|im_start|>{role}\n{text}<|im_end|>"
TURNS = {  # (a turn, what stands between turns)
    "internvl2_5": (IM, "\n"),
    "internlm2-chat": (IM, ""),
    "Hermes-2": (IM, ""),
    "phi3-chat": ("<|{role}|>\n{text}<|end|>", ""),
    "native": (IM, "\n"),
}
NAMES = list(TURNS)
WIDE = Image.effect_noise((TILE * 2, TILE), 80).convert("RGB")  # two tiles and a thumbnail
SMALL = Image.effect_noise((TILE, TILE), 60).convert("RGB")
SHORT = {"max_new_tokens": 5}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """A session for each name in `TURNS`."""
    from vedere.cli.convert import main as convert

    source = tiny_internvl.folder(tmp_path_factory.mktemp("models") / "original", "original", vocab_size=340)
    native = source.parent / "native"
    assert convert([str(source), str(native), "--layout", "hf"]) == 0
    config = json.loads((native / "config.json").read_text())
    del config["converted_from"]  # as on the hub: nobody said what its original had as system message
    (native / "config.json").write_text(json.dumps(config))
    Tokenizer.load(source).with_tokens(PHI3).save(source)
    made = {name: load(source, template=name) for name in NAMES[:-1]}
    return made | {"native": load(native)}


def clip(frames: int = 2) -> Medium:
    """A video that has been read already."""
    pictures = [Image.effect_noise((40, 30), 20 * (k + 1)).convert("RGB") for k in range(frames)]
    plan = plan_media(40, 30, TilingPolicy(tile=TILE, patch=7), frames=frames)
    tiles = media_tiles(pictures, plan)
    return Medium(kind="video", name="clip", plan=plan, tiles=tiles, times=tuple(map(float, range(frames))))


def shown(tiles: int) -> str:
    return "<img>" + "<IMG_CONTEXT>" * PER_TILE * tiles + "</img>"


def dialogue(name: str, *texts: str) -> str:
    """Turns of user and assistant in turn, with an answer opened at the end."""
    turn, between = TURNS[name]
    system = [] if name == "native" else [("system", "Be kind.")]
    turns = [*system, *zip(("user", "assistant") * len(texts), texts, strict=False)]
    opened = turn.format(role="assistant", text="\0").split("\0")[0]
    return "".join(turn.format(role=role, text=text) + between for role, text in turns) + opened


def prompt(session: Session, text: str, **fields) -> tuple[str, np.ndarray]:
    request = session.prompts.make(Question(text=text, **fields)).request
    return session.prompts.tokenizer.decode(np.asarray(request.ids).tolist(), skip_special=False), request.pixels


@pytest.mark.parametrize("name", NAMES)
def test_interleaved_pictures_stand_where_they_are_named(sessions, name):
    session = sessions[name]
    text, pixels = prompt(session, "see <image> then <image> both", images=[WIDE, SMALL])
    assert text == dialogue(name, f"see {shown(3)} then {shown(1)} both")
    wide, small = (prompt(session, "what", images=[image])[1] for image in (WIDE, SMALL))
    assert np.array_equal(pixels, np.concatenate([wide, small]))
    _, turned = prompt(session, "see <image> then <image> both", images=[SMALL, WIDE])
    assert np.array_equal(turned, np.concatenate([small, wide]))


@pytest.mark.parametrize("name", NAMES)
def test_numbered_pictures(sessions, name):
    text, _ = prompt(sessions[name], "Image-1: <image>\nImage-2: <image>\nwhat", images=[SMALL, WIDE])
    assert text == dialogue(name, f"Image-1: {shown(1)}\nImage-2: {shown(3)}\nwhat")


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_a_video_have_prefixes(sessions, name):
    video = clip(3)
    text, pixels = prompt(sessions[name], "<video>\nwhat", videos=[video])
    frames = "\n".join(f"Frame{k}: {shown(1)}" for k in (1, 2, 3))
    assert text == dialogue(name, f"{frames}\nwhat")
    assert np.array_equal(pixels, video.tiles)
    spelled, again = prompt(
        sessions[name],
        "Frame1: <image>\nFrame2: <image>\nFrame3: <image>\nwhat",
        images=[
            Medium(kind="image", name="", plan=plan_media(TILE, TILE, video.plan.policy), tiles=tile[None])
            for tile in video.tiles
        ],
    )
    assert spelled == text  # as the originals' callers write it
    assert np.array_equal(again, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_may_come_in_later_turns(sessions, name):
    session = sessions[name]
    first = session.chat("what", **SHORT)
    second = session.chat("and <image> now", [WIDE], history=[first], **SHORT)
    text, pixels = prompt(session, "this", images=[SMALL], videos=[clip(2)], history=[first, second])
    frames = "\n".join(f"Frame{k}: {shown(1)}" for k in (1, 2))
    assert text == dialogue(name, "what", first.text, f"and {shown(3)} now", second.text, f"{shown(1)}\n{frames}\nthis")
    assert len(pixels) == 3 + 1 + 2
    assert np.array_equal(pixels[:3], second.media[0].tiles)


@pytest.mark.parametrize("name", NAMES)
def test_a_ragged_batch_answers_as_one_by_one(sessions, name):
    session = sessions[name]
    first = session.chat("what", [SMALL], **SHORT)
    questions = [
        Question(text="how many", **SHORT),
        Question(text="see <image> and <image>", images=[WIDE, SMALL], max_new_tokens=9),
        Question(text="what", videos=[clip()], max_new_tokens=3),
        Question(text="again", images=[WIDE], history=[first], **SHORT),
    ]
    session.engine.max_batch, session.engine.chunk = 3, 17  # prompts are cut inside pictures, and one has to wait
    together = session.chat_many(questions)
    session.engine.max_batch, session.engine.chunk = 8, 512
    for reply, question in zip(together, questions, strict=True):
        request = session.prompts.make(question).request
        (alone,) = [event for event in session.engine.generate([request]) if isinstance(event, Finished)]
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert reply.answer_tokens == len(alone.ids)


def test_v2pe_is_an_option_of_loading_and_counts_on_across_turns(sessions, tmp_path):
    folder = tiny_internvl.folder(tmp_path / "model", "original", rope_scaling="dynamic")
    session = load(folder, v2pe_delta=0.25)
    assert session.engine.max_positions == 512  # NTK is off
    first = session.prompts.make(Question(text="what", images=[WIDE], max_new_tokens=4))
    positions = first.request.positions
    visual = np.flatnonzero(np.asarray(first.request.span_types))
    before = float(positions[visual[0] - 1])
    assert positions[visual].tolist() == [before + 0.25 * k for k in range(1, 13)]
    assert float(positions[visual[-1] + 1]) == before + 4  # ceil(before + 3) + 1
    (done,) = [event for event in session.engine.generate([first.request]) if isinstance(event, Finished)]
    # decoding from the cache equals one pass over prompt and answer at these positions
    ids = torch.tensor([*first.request.ids, *done.ids])
    places = torch.cat([positions, positions[-1] + torch.arange(1, 5)])
    types = torch.zeros(len(ids), dtype=torch.uint8)
    types[torch.from_numpy(visual)] = 1
    with torch.inference_mode():
        from vedere.vision.pixels import normalise

        pixels = normalise(torch.from_numpy(first.request.pixels), "imagenet")
        hidden = session.model(ids, places, [0, len(ids)], types, pixels)
        logits = session.engine.decoder.logits(hidden[-5:-1]).log_softmax(-1)
    assert done.logprobs == pytest.approx(logits.gather(1, ids[-4:, None])[:, 0].tolist(), abs=1e-4)
    # the next turn: nothing of the first moves, its answer stands where it was decoded, the new picture has steps too
    later = session.prompts.make(Question(text="and", images=[SMALL], history=[replayed(first)]))
    then = later.request.positions
    assert torch.equal(then[: len(positions)], positions)
    assert then[len(positions) : len(positions) + 2].tolist() == [float(positions[-1]) + 1, float(positions[-1]) + 2]
    second = np.flatnonzero(np.asarray(later.request.span_types))[12:]
    assert then[second].diff().tolist() == [0.25] * 3


def replayed(prompt):
    """A turn with the answer "what is"."""
    return dataclasses.replace(prompt.exchange, answer="what is")


def test_a_step_of_one_changes_nothing_and_others_are_checked(tmp_path):
    folder = tiny_internvl.folder(tmp_path / "model", rope_scaling="dynamic")
    plain, one = load(folder), load(folder, v2pe_delta=1)
    assert one.engine.max_positions == plain.engine.max_positions == 1024
    assert one.chat("what", [WIDE], **SHORT).logprobs == plain.chat("what", [WIDE], **SHORT).logprobs
    assert (
        load(folder, v2pe_delta=0.25).chat("what", [WIDE], **SHORT).logprobs
        != plain.chat("what", [WIDE], **SHORT).logprobs
    )
    for wrong in (0, -0.5, 2):
        with pytest.raises(ConfigError, match=r"outside \(0, 1\]"):
            load(folder, v2pe_delta=wrong)


def test_the_command_takes_the_step(tmp_path, capsys):
    from vedere.cli.chat import main

    folder = tiny_internvl.folder(tmp_path / "model")
    SMALL.save(tmp_path / "small.png")
    arguments = ["--model", str(folder), "--max-new-tokens", "4", "--v2pe-delta"]
    with pytest.raises(ConfigError, match=r"V2PE delta 3\.0 is outside"):
        main([*arguments, "3", str(tmp_path / "small.png"), "what"])
    assert main([*arguments, "0.25", str(tmp_path / "small.png"), "what"]) == 0
    assert capsys.readouterr().out == load(folder, v2pe_delta=0.25).chat("what", [SMALL], max_new_tokens=4).text + "\n"
