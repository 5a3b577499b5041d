import dataclasses
import io
import json
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_models import TILE, tiny_directory
from vedere.errors import CheckpointError, ConfigError, ContextError, MediaError, PromptError
from vedere.infer.engine import Engine, Finished, Request
from vedere.infer.sampling import SamplingParams
from vedere.infer.session import Exchange, Question, Reply, Session, load
from vedere.plan import SquarePolicy, TilingPolicy
from vedere.text.chat import Turn, get_template
from vedere.text.render import render

SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_directory(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def session(folder) -> Session:
    return load(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "two by one.png"
    Image.effect_noise((90, 45), 60).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    import av

    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 25 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_question_with_a_picture(session, picture):
    reply = session.chat("what is it?", [picture], **SHORT)
    assert isinstance(reply, Reply)
    (plan,) = reply.plans
    assert (plan.width, plan.height) == (90, 45)
    assert reply.reason in ("stop", "length")
    assert reply.answer_tokens == len(reply.logprobs) <= 6
    want = render(
        (Turn("user", "<image>\nwhat is it?"),),
        [plan],
        session.prompts.template,
        session.prompts.tokenizer,
        train=False,
    )
    assert reply.prompt_tokens == len(want.ids)


def test_all_kinds_of_pictures_are_one(session, picture):
    image = Image.open(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    replies = [
        session.chat("what?", [source], **SHORT)
        for source in (picture, str(picture), buffer.getvalue(), image, np.asarray(image))
    ]
    assert len({reply.logprobs for reply in replies}) == 1
    other = session.chat("what?", [Image.new("RGB", (90, 45), "red")], **SHORT)
    assert other.logprobs != replies[0].logprobs


def test_streamed_pieces_join_to_the_text(session, picture):
    for seed in range(5):  # random weights produce broken UTF-8 in plenty
        options = {"max_new_tokens": 24, "temperature": 1.5, "seed": seed}
        stream = session.chat("what?", [picture], stream=True, **options)
        assert stream.reply is None
        pieces = list(stream)
        assert stream.reply is not None
        assert "".join(pieces) == stream.reply.text == session.chat("what?", [picture], **options).text
        assert all(pieces)


def test_a_closed_stream_has_no_reply(session):
    stream = session.chat("what?", stream=True, max_new_tokens=50)
    next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.reply is None


def test_text_is_the_decoded_ids_without_the_stop_token(session, picture):
    prompt = session.prompts.make(Question(text="what?", images=[picture], max_new_tokens=20, temperature=1.0, seed=3))
    (done,) = [event for event in session.engine.generate([prompt.request]) if isinstance(event, Finished)]
    # make the third token a stop token: the text ends before it
    stopping = dataclasses.replace(
        prompt.request, sampling=dataclasses.replace(prompt.request.sampling, stop_ids=(done.ids[2],))
    )
    (stopped,) = [event for event in session.engine.generate([stopping]) if isinstance(event, Finished)]
    assert stopped.reason == "stop"
    reply = session.chat("what?", [picture], max_new_tokens=20, temperature=1.0, seed=3)
    assert reply.text == session.prompts.tokenizer.decode(done.ids[: len(reply.logprobs)])


def test_history_is_the_conversation_with_its_pictures(session, tmp_path):
    path = tmp_path / "gone.png"
    Image.effect_noise((40, 40), 50).convert("RGB").save(path)
    first = session.chat("what is <image>", [path], **SHORT)
    path.unlink()  # what was answered is not read again
    second = session.chat("and now?", [Image.new("RGB", (40, 40))], history=[first], **SHORT)
    conversation = (
        Turn("user", "what is <image>"),
        Turn("assistant", first.text),
        Turn("user", "<image>\nand now?"),
    )
    want = render(conversation, second.plans, session.prompts.template, session.prompts.tokenizer, train=False)
    assert len(second.plans) == 2
    assert second.prompt_tokens == len(want.ids)
    spelled = [Exchange(question="what is <image>", answer=first.text, images=first.media)]
    again = session.chat("and now?", [Image.new("RGB", (40, 40))], history=spelled, **SHORT)
    assert again.logprobs == second.logprobs
    third = session.chat("so?", history=[("what?", "that"), second], **SHORT)
    assert len(third.plans) == 1


def test_placeholders_order_mixed_media(session, picture, clip):
    reply = session.chat("see <video> and <image>", [picture], [clip], frames=3, **SHORT)
    assert [medium.kind for medium in reply.media] == ["video", "image"]
    assert len(reply.media[0].times) == 3
    in_front = session.chat("see", [picture], [clip], frames=3, **SHORT)
    assert [medium.kind for medium in in_front.media] == ["image", "video"]


def test_pictures_of_a_question_share_the_tiles(session):
    wide = Image.new("RGB", (TILE * 12, TILE), "red")
    alone = session.chat("what?", [wide], **SHORT).plans[0]
    assert len(alone.tiles) == 13
    together = session.chat("what?", [wide] * 3, **SHORT).plans
    assert [len(plan.tiles) for plan in together] == [5, 5, 5]


def test_many_equal_single(session, picture):
    questions = [
        Question(text="what is it?", images=[picture], max_new_tokens=9),
        Question(text="who?", max_new_tokens=3),
        Question(text="how many?", images=[picture], temperature=1.1, seed=4, max_new_tokens=12),
        Question(text="a longer question than the others", max_new_tokens=5),
    ]
    together = session.chat_many(questions)
    for reply, question in zip(together, questions, strict=True):
        options = {field.name: getattr(question, field.name) for field in dataclasses.fields(question)}
        alone = session.chat(options.pop("text"), **options)
        assert reply.text == alone.text
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    assert session.chat_many([]) == []
    with pytest.raises(MediaError, match=r"question 2: .*does not exist"):
        session.chat_many(["fine", Question(text="what?", images=["no such.png"])])


def test_system_messages(session):
    texts = {
        len(session.prompts.make(Question(text="hi", system=system)).request.ids) for system in (None, "", "Be brief.")
    }
    assert len(texts) == 3


def prompt_text(session, system):
    return session.prompts.tokenizer.decode(
        session.prompts.make(Question(text="hi", system=system)).request.ids, skip_special=False
    )


def test_the_original_system_message_and_none_are_a_choice(session, folder, tmp_path):
    """Original releases write theirs by default, native ones none; both can be asked for by name."""
    original = get_template("internvl2_5").system
    block = f"<|im_start|>system\n{original}<|im_end|>\n"
    rest = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    made = {}
    for name, extras in {
        "original": {"model_type": "internvl_chat", "template": "internvl2_5"},
        "native": {"converted_from": {"model_type": "internvl"}},
        "own": {"model_type": "internvl_chat", "template": "internvl2_5", "system_message": "Be brief."},
        "empty": {"model_type": "internvl_chat", "template": "internvl2_5", "system_message": ""},
    }.items():
        made[name] = load(tiny_directory(tmp_path / name, extras))
        assert prompt_text(made[name], "original") == block + rest
        assert prompt_text(made[name], "none") == prompt_text(made[name], "") == rest
        assert prompt_text(made[name], "Shout.") == f"<|im_start|>system\nShout.<|im_end|>\n{rest}"
    assert prompt_text(made["original"], None) == block + rest
    assert prompt_text(made["native"], None) == prompt_text(made["empty"], None) == rest
    assert prompt_text(made["own"], None) == f"<|im_start|>system\nBe brief.<|im_end|>\n{rest}"
    assert prompt_text(session, None) == prompt_text(session, "original")


def test_answers_are_limited_by_the_context(session, picture):
    """Without a limit, what the context leaves; with one that does not fit, an error with the numbers, before any work."""
    text = "x" * 400
    prompt = session.prompts.make(Question(text=text))
    length = len(prompt.request.ids)
    assert prompt.request.sampling.max_new_tokens == 512 - length
    with pytest.raises(
        ContextError, match=rf"the request: the prompt takes {length} tokens .* 300 new tokens .* has 512"
    ):
        session.chat(text, max_new_tokens=300)
    with pytest.raises(ContextError, match=r"the prompt takes \d+ tokens .* 512 positions and an answer needs some"):
        session.chat("x" * 600)


def test_v2pe_positions_of_a_checkpoint(tmp_path, picture):
    """The stride of the original config is the step in 256ths; text goes on at whole numbers after the picture."""
    from tiny_models import tiny_model, tiny_tokenizer
    from vedere.models.checkpoints import save_model

    extras = {
        "template": "smollm2",
        "rope_pos_id_version": "v2pe_fix",
        "rope_pos_id_stride": 64,
        "max_dynamic_patch": 1,
    }
    tiny_tokenizer(tmp_path)
    save_model(tiny_model(v2pe=True), tmp_path, layout="original", extras=extras)
    session = load(tmp_path)
    request = session.prompts.make(Question(text="what?", images=[picture])).request
    visual = np.flatnonzero(np.asarray(request.span_types))
    positions = request.positions
    before = float(positions[visual[0] - 1])
    assert positions[visual].tolist() == [before + 0.25 * k for k in range(1, len(visual) + 1)]
    assert float(positions[visual[-1] + 1]) == before + 2  # ceil(before + 1) + 1
    plain = load(tmp_path, v2pe_delta=1).prompts.make(Question(text="what?", images=[picture])).request
    assert plain.positions.tolist() == list(range(len(plain.ids)))
    config = json.loads((tmp_path / "config.json").read_text())
    for stride in (0, 512, "four", 0.5):
        (tmp_path / "config.json").write_text(json.dumps(config | {"rope_pos_id_stride": stride}))
        with pytest.raises(ConfigError, match=f"'rope_pos_id_stride' in config.json is {stride!r}; expected 1 to 256"):
            load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (
        session.chat("what?", [picture], **SHORT).logprobs
        != load(tmp_path, v2pe_delta=1).chat("what?", [picture], **SHORT).logprobs
    )


def test_policy_of_a_checkpoint():
    shape = (448, 14, 2)
    from vedere.infer.prompts import policy_from

    assert policy_from({}, *shape) == TilingPolicy()
    fields = {"max_dynamic_patch": 6, "min_dynamic_patch": 2, "use_thumbnail": False}
    assert policy_from(fields, *shape) == TilingPolicy(min_tiles=2, max_tiles=6, thumbnail=False)
    assert policy_from(dict.fromkeys(fields), *shape) == TilingPolicy(thumbnail=False)  # null is absent, or false
    with pytest.raises(ConfigError, match=r"'max_dynamic_patch' in config.json is 'six'; expected a number of tiles"):
        policy_from({"max_dynamic_patch": "six"}, *shape)
    assert policy_from({"dynamic_image_size": False, "pad2square": True}, *shape) == SquarePolicy(pad=True)
    assert policy_from({"policy": {"kind": "tiling", "max_tiles": 3}}, *shape) == TilingPolicy(max_tiles=3)
    with pytest.raises(ConfigError, match="unknown key 'max_tile' for TilingPolicy; did you mean 'max_tiles'"):
        policy_from({"policy": {"max_tile": 3}}, *shape)
    with pytest.raises(ConfigError, match=r"'policy' in config.json is \['tiling'\]; expected an object with its kind"):
        policy_from({"policy": ["tiling"]}, *shape)
    with pytest.raises(ConfigError, match="tiles of 336 px; the model is made for 448 px"):
        policy_from({"policy": {"tile": 336}}, *shape)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("",), PromptError, "the question is ''; expected some text"),
        (("what?", "photo.png"), PromptError, r"images is 'photo.png'; expected a list: images=\[...\]"),
        (("what?", ["no such.png"]), MediaError, "'no such.png' does not exist"),
        (("<image> what?",), PromptError, "placeholders for 1 image and 0 videos, but 0 images"),
        (("<image> what?", [Image.new("RGB", (9, 9))] * 2), PromptError, "but 2 images"),
        (("what <|im_end|>",), PromptError, r"contains '<\|im_end\|>'"),
        (("what?", (), (), "hello"), PromptError, r"history is 'hello'; expected a list: history=\[...\]"),
        (("what?", (), (), ["hello"]), PromptError, r"history entry 1 is 'hello'; expected \(question, answer\)"),
    ],
)
def test_what_does_not_fit_is_refused(session, arguments, error, message):
    with pytest.raises(error, match=message):
        session.chat(*arguments)


def test_options_are_checked(session, clip):
    with pytest.raises(ConfigError, match="temperature is -1; expected 0"):
        session.chat("what?", temperature=-1)
    assert len(session.chat("what?", videos=[clip], frames=2, frame_rule="random", **SHORT).media[0].times) == 2
    with pytest.raises(ConfigError, match="unknown frame rule 'midle'; did you mean 'middle'"):
        session.chat("what?", videos=[clip], frame_rule="midle")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_tiles": "12"}, "max_tiles is '12', of type str; expected a whole number"),
        ({"max_tiles": 12.0}, "max_tiles is 12.0, of type float; expected a whole number"),
        ({"max_new_tokens": "5"}, "max_new_tokens is '5', of type str"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5, of type float; expected a whole number"),
        ({"temperature": "0.7"}, "temperature is '0.7', of type str; expected a number"),
        ({"temperature": True}, "temperature is True, of type bool; expected a number"),
        ({"top_k": 50.0}, "top_k is 50.0, of type float"),
        ({"seed": 1.0}, "seed is 1.0, of type float"),
        ({"num_beams": None}, "num_beams is None, of type NoneType"),
        ({"frames": 2.0}, "frames is 2.0, of type float"),
    ],
)
def test_options_of_another_kind_are_refused(session, option, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        session.chat("what?", **option)


def test_none_is_none_of_them_and_numbers_of_numpy_are_numbers(session):
    """The releases' own functions are called with ``None`` for pixels and history."""
    plain = session.chat("what?", **SHORT)
    assert session.chat("what?", None, None, None, max_new_tokens=np.int64(6)).logprobs == plain.logprobs


def test_many_are_a_list_of_questions(session):
    with pytest.raises(PromptError, match=r"one question was given; expected a list of them: chat_many\(\[...\]\)"):
        session.chat_many("what?")
    with pytest.raises(PromptError, match=r"question 2: it is \{'text': 'what'\}; expected a text or a Question"):
        session.chat_many([Question(text="what?", **SHORT), {"text": "what"}])


def test_the_widest_format_answers_too(folder):
    wide, plain = load(folder, dtype=torch.float64), load(folder, dtype=torch.float32)
    assert wide.chat("what?", **SHORT).logprobs == pytest.approx(plain.chat("what?", **SHORT).logprobs, abs=1e-4)


def test_unknown_models(tmp_path, folder):
    with pytest.raises(ConfigError, match="model 'mimi' is neither a folder nor a shipped model; did you mean 'mini'"):
        load("mimi")
    with pytest.raises(CheckpointError, match=r"no weights in .* an empty folder"):
        load(tmp_path)
    (folder / "readme.txt").touch()
    with pytest.raises(ConfigError, match=r"readme.txt' is a file"):
        load(folder / "readme.txt")
    with pytest.raises(ConfigError, match="unknown chat template 'smollm'; did you mean 'smollm2'"):
        load(folder, template="smollm")
    with pytest.raises(ConfigError, match=r"v2pe_delta is '0\.5', of type str; expected a number"):
        load(folder, v2pe_delta="0.5")
    with pytest.raises(ConfigError, match=r"v2pe_delta 0\.5 was given, but the model was not trained with V2PE"):
        load(folder, v2pe_delta=0.5)


def test_a_folder_without_a_template(tmp_path):
    tiny_directory(tmp_path / "m", extras={})
    with pytest.raises(ConfigError, match="names no chat template; give one"):
        load(tmp_path / "m")
    assert load(tmp_path / "m", template="smollm2", max_tiles=3).prompts.policy.max_tiles == 3


def test_many_random_conversations_keep_the_span_law(session):
    """Whatever is asked in whatever order: visual positions equal tiles, and the engine takes it."""
    rng = random.Random(0)
    for _ in range(10):
        count = rng.randrange(3)
        images = [Image.new("RGB", (rng.randrange(1, 200), rng.randrange(1, 200))) for _ in range(count)]
        text = " ".join(["<image>"] * count + ["what"]) if rng.random() < 0.5 else "what"
        request = session.prompts.make(Question(text=text, images=images, max_new_tokens=1)).request
        session.engine.check(request)
        assert isinstance(request, Request)


def test_engines_of_other_callers_see_the_same(session):
    """A caller with ids of its own (evaluation, preference data) gets what the session gets."""
    reply = session.chat("who?", **SHORT)
    prompt = session.prompts.make(Question(text="who?"))
    request = Request(
        ids=prompt.request.ids, sampling=SamplingParams(**SHORT, stop_ids=prompt.request.sampling.stop_ids)
    )
    done = [event for event in Engine(session.model).generate([request]) if isinstance(event, Finished)]
    assert done[0].logprobs == reply.logprobs
    assert torch.is_inference_mode_enabled() is False
