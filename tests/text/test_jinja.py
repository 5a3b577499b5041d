"""The Jinja form of a template, run by transformers, writes what vedere's renderer writes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError
from vedere.plan import TilingPolicy, plan_media
from vedere.text.chat import Turn, get_template
from vedere.text.jinja import jinja_template
from vedere.text.render import render, render_pieces
from vedere.text.tokenizer import Tokenizer

QWEN2 = Path(__file__).parent / "vocabularies" / "qwen2"
POLICY = TilingPolicy(tile=56, thumbnail=False)  # 4 tokens a tile
# What spec and releases say of the native template, written down by hand: no default system message, media lines in the turn.
NATIVE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<|>"), max_size=20)


@st.composite
def dialogues(draw):
    """(messages for transformers, turns and plans for vedere)."""
    messages, turns, plans = [], [], []
    system = draw(st.one_of(st.just(""), WORDS))
    if system:
        messages.append({"role": "system", "content": system})
    turns.append(Turn("system", system))
    for place in range(rounds := draw(st.integers(1, 3))):
        kinds = draw(st.lists(st.sampled_from(("image", "video")), max_size=2))
        text = draw(WORDS)
        items = [{"type": kind} for kind in kinds] + [{"type": "text", "text": text}]
        messages.append({"role": "user", "content": items if kinds or draw(st.booleans()) else text})
        turns.append(Turn("user", "".join(f"<{kind}>\n" for kind in kinds) + text))
        for kind in kinds:
            tiles = draw(st.integers(1, 3))
            plans.append(
                plan_media(56, 56, POLICY, frames=tiles) if kind == "video" else plan_media(56 * tiles, 56, POLICY)
            )
        if place < rounds - 1:
            answer = draw(WORDS)
            messages.append({"role": "assistant", "content": answer})
            turns.append(Turn("assistant", answer))
    return messages, tuple(turns), plans


def expanded(text, plans, processor):
    """Placeholders replaced by the code of transformers' processor."""
    from transformers.models.internvl.processing_internvl import InternVLProcessor

    parts = []
    for plan in plans:
        mark = "<video>" if plan.is_video else "<IMG_CONTEXT>\n"
        before, text = text.split(mark, 1)
        if plan.is_video:
            frames = SimpleNamespace(shape=(len(plan.frame_spans),))
            block = InternVLProcessor.replace_video_token(processor, {"pixel_values_videos": [frames]}, 0)
        else:
            block = InternVLProcessor.replace_image_token(processor, {"num_patches": [len(plan.tiles)]}, 0) + "\n"
        parts += [before, block]
    return "".join([*parts, text])


@pytest.fixture(scope="module")
def peer():
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(QWEN2)


@pytest.fixture(scope="module")
def ours():
    return Tokenizer.load(QWEN2)


@pytest.mark.peer
@settings(max_examples=150, deadline=None)
@given(dialogue=dialogues())
def test_native_prompts_and_ids_equal_transformers(peer, ours, dialogue):
    messages, turns, plans = dialogue
    template = get_template("internvl2_5")
    made = jinja_template(template)
    text = peer.apply_chat_template(messages, chat_template=made, tokenize=False, add_generation_prompt=True)
    assert text == peer.apply_chat_template(messages, chat_template=NATIVE, tokenize=False, add_generation_prompt=True)
    processor = SimpleNamespace(
        start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=4
    )
    text = expanded(text, plans, processor)
    assert text == "".join(piece.text for piece in render_pieces(turns, plans, template, train=False))
    assert peer.encode(text) == render(turns, plans, template, ours, train=False).ids.tolist()


@pytest.mark.peer
@pytest.mark.parametrize("name", ["internvl2_5", "internlm2-chat", "Hermes-2", "phi3-chat", "smollm2"])
def test_other_templates_without_media(peer, name):
    messages = [
        {"role": "system", "content": "Say \"yes\" \\ 'no'."},
        {"role": "user", "content": "图片\n?"},
        {"role": "assistant", "content": "{{ a }}"},
        {"role": "user", "content": "{% b %}"},
    ]
    turns = tuple(Turn(message["role"], message["content"]) for message in messages)
    template = get_template(name)
    text = peer.apply_chat_template(
        messages, chat_template=jinja_template(template), tokenize=False, add_generation_prompt=True
    )
    assert text == "".join(piece.text for piece in render_pieces(turns, [], template, train=False))


@pytest.mark.peer
def test_the_bos_is_written_once_and_in_front(peer):
    made = jinja_template(get_template("internlm2-chat"), bos=True)
    text = peer.apply_chat_template(
        [{"role": "user", "content": "a"}], chat_template=made, tokenize=False, bos_token="<s>"
    )
    assert text == "<s><|im_start|>user\na<|im_end|>"
    assert "bos_token" not in jinja_template(get_template("internlm2-chat"))


def test_no_default_system_message_is_written():
    template = get_template("internvl2_5")
    assert template.system not in jinja_template(template)


@pytest.mark.parametrize("name", ["ixc1", "ixc2"])
def test_templates_that_look_at_more_than_a_message_are_refused(name):
    with pytest.raises(ConfigError, match=f"template '{name}' has no Jinja form: .*; use vedere's renderer"):
        jinja_template(get_template(name))
