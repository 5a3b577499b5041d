"""Every recorded prompt and trained span of the original implementations, string for string."""

import dataclasses
import json
from itertools import groupby
from pathlib import Path

import pytest

from vedere.errors import ConfigError, PromptError
from vedere.plan import SquarePolicy, TilingPolicy, plan_media
from vedere.text.chat import TEMPLATES, Template, Turn, get_template
from vedere.text.render import render_pieces

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "chat-templates" / "dialogues.json").read_text("utf-8"))
POLICY = TilingPolicy(tile=56, thumbnail=False)  # 4 tokens a tile, as in the record
INTERNVL = [
    pytest.param(name, dialogue, id=f"{name}-{dialogue['name']}")
    for name, entry in RECORD["templates"].items()
    for dialogue in entry["dialogues"]
]
XCOMPOSER2 = [
    pytest.param(dialogue, key, id=f"{dialogue['name']}-{key}")
    for dialogue in RECORD["ixc2"]["dialogues"]
    for key in ("without_meta", "with_meta")
]
# Where product and reference must agree: no untagged picture lost, no empty answer.
QUIRKY = {"empty_answer_in_history"}


def conversation(turns, system=None):
    found = [] if system is None else [Turn("system", system)]
    for question, answer in turns:
        found.append(Turn("user", question.replace("<ImageHere>", "<image>")))
        if answer is not None:
            found.append(Turn("assistant", answer))
    return tuple(found)


def plans(tiles):
    return [plan_media(56 * count, 56, POLICY) for count in tiles]


def joined(pieces):
    return "".join(piece.text for piece in pieces)


def test_the_record_counts_tokens_as_this_test_does():
    assert RECORD["num_image_token"] == POLICY.tokens_per_tile
    assert [plan.tokens for plan in plans([1, 2, 3, 4])] == [4, 8, 12, 16]


@pytest.mark.parametrize(("name", "dialogue"), INTERNVL)
def test_inference_prompts(name, dialogue):
    turns, media = conversation(dialogue["turns"]), plans(dialogue["tiles_per_image"])
    pieces = render_pieces(turns, media, get_template(name), train=False, reference=True)
    assert joined(pieces) == dialogue["inference_prompt"]
    assert not any(piece.trained for piece in pieces)
    if dialogue["name"] not in QUIRKY:
        assert render_pieces(turns, media, get_template(name), train=False) == pieces


@pytest.mark.parametrize(("name", "dialogue"), [p for p in INTERNVL if p.values[1]["training"]])
def test_trained_spans(name, dialogue):
    record = dialogue["training"]
    roles = {"human": "user", "gpt": "assistant"}
    turns = tuple(Turn(roles[entry["from"]], entry["value"]) for entry in record["conversation"])
    media = plans(dialogue["tiles_per_image"])
    pieces = render_pieces(turns, media, get_template(name), train=True, reference=True)
    spans = [
        {"trained": trained, "text": joined(run)} for trained, run in groupby(pieces, key=lambda piece: piece.trained)
    ]
    assert [piece.bos for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    if name == "internlm2-chat":  # the one whose stand-in tokenizer has a bos
        spans[0]["text"] = "<BOS>" + spans[0]["text"]
    assert spans == record["spans"]
    assert render_pieces(turns, media, get_template(name), train=True) == pieces


def test_a_history_without_any_tag_gives_pictures_no_tokens_only_in_reference():
    turns, media = conversation([["Hi", "Hello"], ["And this?", None]]), plans([2])
    template = get_template("internvl2_5")
    assert "<IMG_CONTEXT>" not in joined(render_pieces(turns, media, template, train=False, reference=True))
    with pytest.raises(PromptError, match="none of the 2 user turns holds a placeholder"):
        render_pieces(turns, media, template, train=False)


def test_surplus_tags_and_pictures_are_lenient_only_in_reference():
    template = get_template("internvl2_5")
    one, two = conversation([["<image> <image>", None]]), plans([1, 1])
    text = joined(render_pieces(one, two[:1], template, train=False, reference=True))
    assert text.count("</img> <image>") == 1
    lost = joined(render_pieces(conversation([["Q", None]]), two, template, train=False, reference=True))
    assert lost.count("<img>") == 1


@pytest.mark.parametrize(("dialogue", "key"), XCOMPOSER2)
def test_xcomposer2_pieces(dialogue, key):
    meta = RECORD["ixc2"]["meta_instruction_used"] if key == "with_meta" else None
    turns, media = conversation(dialogue["turns"], meta), plans([1] * dialogue["images"])
    pieces = render_pieces(turns, media, get_template("ixc2"), train=False, reference=True)
    found = []
    for image, run in groupby(pieces, key=lambda piece: piece.media):
        run = list(run)
        if image is None:
            assert len({piece.portion for piece in run}) == 1  # tokenised as one string
            found.append({"text": joined(run), "bos": run[0].bos})
        else:
            found.append({"image": image, "hd_num": 25 if dialogue["images"] == 1 else 6})
    assert found == dialogue[key]["pieces"]
    if dialogue["name"] not in QUIRKY:
        assert render_pieces(turns, media, get_template("ixc2"), train=False) == pieces


def portions(pieces):
    found = []
    for (media, _), group in groupby(pieces, key=lambda piece: (piece.media, piece.portion)):
        run = list(group)
        found.append(("image", False) if media is not None else (joined(run), run[0].bos))
    return found


def test_xcomposer1_prompt():
    first, later, history = RECORD["ixc1"]["wrap_prompt"]
    template, media = get_template("ixc1"), plans([1])
    alone = render_pieces((Turn("user", "Who is it?"),), media, template, train=False, reference=True)
    assert portions(alone) == [
        (first["prefix"]["text"], True),
        ("image", False),
        ("Who is it?", False),
        (first["suffix"]["text"], False),
    ]
    assert (first["prefix"]["bos"], first["suffix"]["bos"]) == (True, False)
    talk = (Turn("user", "<image>Who is it?"), Turn("assistant", "A cat."), Turn("user", "And now?"))
    assert portions(render_pieces(talk, media, template, train=False)) == [
        (history["prefix"]["text"], history["prefix"]["bos"]),
        ("image", False),
        ("Who is it?", False),
        (history["suffix"]["text"], history["suffix"]["bos"]),
        ("A cat.", True),
        (later["prefix"]["text"], later["prefix"]["bos"]),
        ("And now?", False),
        (later["suffix"]["text"], later["suffix"]["bos"]),
    ]


def test_xcomposer_trains_on_closed_turns_without_the_gaps_of_its_history():
    """The released fine-tuning text: each question ends with eoh, each answer, which is learnt, with eoa."""
    template = dataclasses.replace(get_template("ixc1"), system=None, system_with_media=None)
    talk = (Turn("user", "<image>Who?"), Turn("assistant", "A cat."), Turn("user", "Sure?"), Turn("assistant", "Yes."))
    plan = plan_media(30, 20, SquarePolicy(tile=224, sampled=66))
    pieces = render_pieces(talk, [plan], template, train=True)
    assert [piece.text for piece in pieces if piece.media is None] == [
        *(" <|User|>:", "Who?", "\n<TOKENS_UNUSED_0>", " <|Bot|>:", "A cat.", "<TOKENS_UNUSED_1>"),
        *(" <|User|>:", "Sure?", "\n<TOKENS_UNUSED_0>", " <|Bot|>:", "Yes.", "<TOKENS_UNUSED_1>"),
    ]
    assert [piece.text for piece in pieces if piece.trained] == [
        *("A cat.", "<TOKENS_UNUSED_1>", "Yes.", "<TOKENS_UNUSED_1>")
    ]
    assert [piece.bos for piece in pieces].count(True) == 1


def test_smollm2_is_the_model_s_own_chat_format_without_media():
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("user", "Bye"))
    text = joined(render_pieces(turns, [], get_template("smollm2"), train=False))
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_smollm2_writes_no_default_system_block_beside_media():
    template, media = get_template("smollm2"), plans([1])
    body = (
        "<|im_start|>user\n<repo_name>" + "<empty_output>" * 4 + "<reponame>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    question = Turn("user", "<image>\nWhat?")
    assert joined(render_pieces((question,), media, template, train=False)) == body
    own = (Turn("system", "Be brief."), question)
    opened = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert joined(render_pieces(own, media, template, train=False)) == opened + body


def test_an_empty_system_turn_asks_for_no_system_block():
    for name in TEMPLATES:
        text = joined(render_pieces((Turn("system", ""), Turn("user", "Hi")), [], get_template(name), train=False))
        assert text.startswith(get_template(name).user_header)


def test_video_frames_are_named_by_the_template():
    video, picture = plan_media(64, 48, POLICY, frames=2), plans([1])[0]
    turns = (Turn("user", "<video>\nThen <image>?"), Turn("assistant", "Yes."))
    block = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
    for name, train, prefix in [
        ("internvl2_5", True, "Frame-{}: "),
        ("internvl2_5", False, "Frame{}: "),
        ("smollm2", True, "Frame{}: "),
    ]:
        template = dataclasses.replace(
            get_template(name), image_start="<img>", image_context="<IMG_CONTEXT>", image_end="</img>"
        )
        text = joined(render_pieces(turns if train else turns[:1], [video, picture], template, train=train))
        assert f"{prefix.format(1)}{block}\n{prefix.format(2)}{block}\nThen {block}?" in text


def test_templates_are_complete_and_frozen():
    assert set(TEMPLATES) == {"internvl2_5", "internlm2-chat", "Hermes-2", "phi3-chat", "ixc2", "ixc1", "smollm2"}
    for name, template in TEMPLATES.items():
        assert template.name == name
        for field in dataclasses.fields(Template):
            value = getattr(template, field.name)
            assert isinstance(value, (str, bool, tuple)) or value is None, field.name
            if isinstance(value, tuple):
                assert value or field.name == "new_tokens"
                assert all(isinstance(text, str) for text in value)
        # SmolLM2 has spare rows for media, and the models of XComposer bring theirs.
        assert bool(template.new_tokens) == (name not in ("ixc2", "ixc1", "smollm2"))
        assert template.image_context
        assert template.grain in ("turn", "prompt", "part")
    with pytest.raises(dataclasses.FrozenInstanceError):
        TEMPLATES["smollm2"].name = "other"
    with pytest.raises(TypeError):
        TEMPLATES["mine"] = TEMPLATES["smollm2"]


def test_unknown_template_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown chat template 'internvl2.5'; did you mean 'internvl2_5'\?"):
        get_template("internvl2.5")


def test_turns_are_checked():
    with pytest.raises(PromptError, match=r"role 'asistant'; did you mean 'assistant'\?; expected one of"):
        Turn("asistant", "x")
    with pytest.raises(PromptError, match="a user turn has content of type list; expected a string"):
        Turn("user", ["x"])


def test_stop_ids(tokenizer):
    template = get_template("smollm2")
    assert template.stop_ids(tokenizer) == tuple(tokenizer.token_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
    stranger = dataclasses.replace(template, stop=("<|nothing|>",))
    with pytest.raises(
        ConfigError, match=r"'smollm2' stops at <\|nothing\|>, but the vocabulary of .* has none of them"
    ):
        stranger.stop_ids(tokenizer)


def test_xcomposer2_trains_on_texts_without_white_space_around_them():
    """As its fine-tuning code does; a prompt is taken as it is."""
    turns = (Turn("user", " Red?\n"), Turn("assistant", "\n yes "))
    trained = render_pieces(turns, (), get_template("ixc2"), train=True)
    assert "".join(piece.text for piece in trained) == (
        "[UNUSED_TOKEN_146]user\nRed?[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\nyes[UNUSED_TOKEN_145]\n"
    )
    assert " Red?\n" in [piece.text for piece in render_pieces(turns[:1], (), get_template("ixc2"), train=False)]


def test_the_first_xcomposer_trains_on_the_prompt_that_it_is_asked_with():
    """Its data have a line break behind ``<image>``, its prompts have none."""
    turns = (Turn("user", "<image>\nRed?"), Turn("assistant", "yes"))
    template = dataclasses.replace(get_template("ixc1"), system=None, system_with_media=None)
    trained = render_pieces(turns, plans([1]), template, train=True)
    asked = render_pieces((Turn("user", "<image>Red?"),), plans([1]), template, train=False)
    begun = "".join(piece.text for piece in asked)
    assert "".join(piece.text for piece in trained) == f"{begun}yes<TOKENS_UNUSED_1>"
    assert [piece.media is None for piece in trained].count(False) == 1
