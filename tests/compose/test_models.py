"""Models behind the protocol: a local one in its own words or the published ones, an endpoint, and both."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from composing import article, noise, picture

import tiny_models
import tiny_xcomposer
import tiny_xcomposer2
from fake_endpoint import said, serve, streamed
from vedere.compose.cast import DividedStyle, open_cast, spoken
from vedere.compose.endpoint_model import Divided, EndpointModel
from vedere.compose.local_model import LocalModel, published_style, style_of
from vedere.compose.plain_prompts import PlainStyle, plain_style
from vedere.compose.prompts import FIRST, SECOND, Brief
from vedere.compose.steps import Draft, OwnPictures, StreamingModel, Write, pipeline, run, watch
from vedere.errors import ConfigError, ContextError, MediaError, PromptError
from vedere.infer.session import load
from vedere.plan import HDPolicy, plan_media
from vedere.recaption.endpoint import EndpointConfig

EN = plain_style("en")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return load(tiny_models.tiny_directory(tmp_path_factory.mktemp("tiny")), device="cpu")


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return load(tiny_xcomposer2.folder(tmp_path_factory.mktemp("ixc2"), "square", max_positions=2048), device="cpu")


@pytest.fixture
def photos(tmp_path):
    return tuple(picture(name, path=str(noise(tmp_path / f"{name}.png", seed))) for seed, name in enumerate("abcd"))


def test_a_local_model_is_asked_in_plain_words(session, photos, monkeypatch):
    model, style = LocalModel(session), style_of(session)
    assert isinstance(model, StreamingModel)
    assert isinstance(style, PlainStyle)
    assert style.per_picture > 4
    prompt = style.select(["A lake.\n"], photos[:2])
    asked = []
    chat = session.chat

    def keeping(text, **options):
        asked.append((text, options))
        return chat(text, **options)

    monkeypatch.setattr(session, "chat", keeping)
    answer = model.answer(prompt)
    assert answer == "".join(model.stream(prompt))
    (text, options), _ = asked
    assert text == prompt.text
    assert options["images"] == [photos[0].path, photos[1].path]
    assert (options["temperature"], options["max_new_tokens"]) == (0.0, prompt.decoding.new_tokens)


def test_seeds_depend_on_prompt_and_seed_only(session):
    prompt = EN.expand("A lake.")
    draws = [LocalModel(session, seed=seed, temperature=2.0).answer(prompt) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_the_published_prompts_go_to_the_model_that_was_tuned_to_them(second, session, photos, monkeypatch):
    """Ids of the whole prompt: each text between two pictures by itself, and nothing around it."""
    assert published_style(session) is None
    style = style_of(second)
    assert (style.name, style.second, style.room) == ("xcomposer2", True, 2048)
    context = ["西湖在杭州。\n", photos[3], "断桥有雪。\n"]
    prompt = style.select(context, photos[:2])
    model = LocalModel(second)
    made = []
    make = type(second.prompts).make
    monkeypatch.setattr(
        type(second.prompts), "make", lambda self, question: made.append(make(self, question)) or made[-1]
    )
    model.answer(prompt)
    (rendered,) = made
    tokenizer, request = second.prompts.tokenizer, rendered.request
    plain = [tokenizer.encode(part) for part in prompt.parts if isinstance(part, str)]
    expected = [tokenizer.bos_id, *(number for ids in plain for number in ids)]
    assert request.ids[np.asarray(request.span_types) == 0].tolist() == expected
    assert len(rendered.media) == 3
    assert request.sampling.temperature == 1.0  # as the published code decodes it
    assert prompt.text.startswith("[UNUSED_TOKEN_146]user\n")
    assert prompt.text.endswith("最合适的图是")


def test_the_first_version_decodes_as_the_published_demo(tmp_path, photos, monkeypatch):
    """Five beams for text, places and choice, none for captions; the penalty is on the answer alone."""
    first = load(tiny_xcomposer.folder(tmp_path / "ixc1"), device="cpu")
    style = style_of(first)
    assert style.name == FIRST.name
    made, chat = [], first.engine.generate
    monkeypatch.setattr(first.engine, "generate", lambda requests: made.extend(requests) or chat(requests))
    prompts = [
        style.write(Brief(title="x")),
        style.spot(article("湖", "山"), 1),
        style.caption(article("湖", "山"), 0, ()),
        style.select(["湖"], photos[:2]),
        style.caption(article("湖", "山"), 0, (), added=True),
    ]
    prompts = [replace(prompt, decoding=replace(prompt.decoding, new_tokens=3)) for prompt in prompts]
    model = LocalModel(first)
    found = [list(model.stream(prompt)) for prompt in prompts]
    sampling = [request.sampling for request in made]
    assert [(one.num_beams, one.repetition_penalty) for one in sampling] == [
        (5, 5.0), (5, 1.0), (1, 5.0), (5, 1.0), (1, 5.0),
    ]  # fmt: skip
    assert [one.penalise_prompt for one in sampling] == [False, False, False, False, True]
    assert all(len(pieces) == 1 for pieces, one in zip(found, sampling, strict=True) if one.num_beams > 1)
    made.clear()
    LocalModel(first, beams=1).answer(prompts[0])
    LocalModel(first, temperature=0.5).answer(prompts[0])
    assert [(one.num_beams, one.temperature) for one in (request.sampling for request in made)] == [(1, 0.0), (5, 0.5)]
    assert LocalModel(first, beams=1).identity != LocalModel(first).identity
    with pytest.raises(ConfigError, match=r"num_beams is 0; expected 1 \(no search\) or more"):
        open_cast(tmp_path / "ixc1", beams=0)


def test_a_sibling_with_larger_pictures_reckons_with_these(second, monkeypatch):
    """4KHD was not tuned to the composition model's 256 positions a picture, nor to its 4096 of a prompt."""
    assert style_of(second).per_picture == SECOND.per_picture
    monkeypatch.setattr(second, "prompts", replace(second.prompts, policy=HDPolicy(limit=9)))
    style = style_of(second)
    assert (style.name, style.per_picture) == ("xcomposer2", plan_media(640, 480, HDPolicy(limit=9)).tokens)
    assert style.room == second.prompts.max_positions


def test_published_prompts_lose_their_frame_for_another_model(session, monkeypatch):
    texts = []
    chat = session.chat
    monkeypatch.setattr(session, "chat", lambda text, **options: texts.append(text) or chat(text, **options))
    LocalModel(session).answer(FIRST.spot(article("湖"), 1))
    assert texts == ['给定文章"<Seg0> 湖\n" 根据上述文章，选择适合插入图像的1行 \n\n适合插入图像的行是']


def test_a_long_answer_gets_what_room_there_is_and_says_that_it_was_cut(session):
    told = []
    model = LocalModel(session, say=told.append)
    prompt = EN.write(Brief(title="x"))
    assert prompt.decoding.new_tokens > session.prompts.max_positions
    whole = model.answer(prompt)
    assert whole
    short = replace(prompt, decoding=replace(prompt.decoding, new_tokens=1))
    assert whole.startswith(model.answer(short))
    assert told == ["the answer to 'write' was cut after 1 tokens"]
    with pytest.raises(ContextError):
        model.answer(EN.write(Brief(title="x", material="lake " * 2000)))


def test_pictures_that_cannot_be_shown(session, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"")
    broken = picture("x", path=str(tmp_path / "x.png"))
    with pytest.raises(MediaError, match="is empty"):
        LocalModel(session).answer(EN.select(["a\n"], [broken]))
    blind = LocalModel(session)
    monkeypatch.setattr(session, "prompts", type("Blind", (), {"policy": None})())
    assert not blind.sees
    with pytest.raises(ConfigError, match="sees no pictures, and the step 'select' shows 1; load a model that sees"):
        blind.answer(EN.select(["a\n"], [broken]))


def endpoint_of(url, **changes):
    return EndpointConfig(url=url, model="seer", first_wait=0.01, longest_wait=0.02, retries=1, timeout=5.0, **changes)


def test_an_endpoint_gets_texts_and_pictures_in_order(photos, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    with serve(lambda *_: said("B")) as endpoint:
        model = EndpointModel(endpoint_of(endpoint.url), seed=3, temperature=0.5)
        assert model.answer(EN.select(["A lake.\n", photos[3], "Snow.\n"], photos[:2])) == "B"
    (body,) = endpoint.asked
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url", "text", "image_url", "text"]
    assert content[2]["text"] == "Snow.\n\nCandidates:\nA. "
    assert (body["temperature"], body["max_tokens"]) == (0.5, 10)
    assert endpoint.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in model.identity


def test_an_endpoint_gets_the_beginning_of_a_published_answer_as_a_hint():
    with serve(lambda *_: said("<Seg0>")) as endpoint:
        EndpointModel(endpoint_of(endpoint.url)).answer(SECOND.spot(article("湖")))
    (said_to_it,) = [body["messages"][0]["content"] for body in endpoint.asked]
    assert (
        said_to_it == '给定文章"<Seg0> 湖\n" 根据上述文章，选择适合插入图像的行\n适合插入图像的行是'
    )  # text, no parts


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ((400, {}, b"too long"), PromptError, "no answer to the step 'write': refused with status 400: too long"),
        ((500, {}, b"oops"), PromptError, "no answer to the step 'write': status 500: oops, after 2 tries"),
        ((401, {}, b"no"), Exception, "status 401 for model 'seer': no; is the key in OPENAI_API_KEY right"),
    ],
)
def test_an_endpoint_that_fails_says_so(reply, kind, message):
    with serve(lambda *_: reply) as endpoint, pytest.raises(kind, match=message):
        EndpointModel(endpoint_of(endpoint.url)).answer(EN.write(Brief(title="x")))


def test_an_article_is_watched_while_an_endpoint_writes_it():
    pieces = ("A ", "lake", ".\n", "雪。")
    with serve(lambda *_: streamed(*pieces)) as endpoint:
        model = EndpointModel(endpoint_of(endpoint.url))
        assert isinstance(model, StreamingModel)
        assert tuple(model.stream(EN.write(Brief(title="x")))) == pieces
        seen = list(watch([("write", Write(Divided(model, model), EN))], Draft.of(Brief(title="x"))))
        assert [len(made.article.paragraphs) for _, made in seen] == [0, 1, 1, 1, 2, 2]
    assert [body["stream"] for body in endpoint.asked] == [True, True]


@pytest.mark.parametrize(
    ("replies", "asked"),
    [
        ([said("A lake.")], 1),  # one that does not stream
        ([(500, {}, b"oops"), said("A lake.")], 2),  # the second time without streaming
        ([streamed(), said("A lake.")], 2),
        ([(400, {}, b"'seed' is not supported"), (400, {}, b"'seed' is not supported"), said("A lake.")], 3),
    ],
    ids=["plain", "fails", "says nothing", "refuses a setting"],
)
def test_an_endpoint_that_does_not_stream_is_asked_all_the_same(replies, asked):
    with serve(lambda number, _: replies[number]) as endpoint:
        model = EndpointModel(endpoint_of(endpoint.url))
        assert list(model.stream(EN.write(Brief(title="x")))) == ["A lake."]
    assert len(endpoint.asked) == asked


def test_an_endpoint_that_breaks_off_is_an_error_and_what_it_wrote_was_shown():
    with serve(lambda *_: streamed("A lake.\nSn", reason="", done=False)) as endpoint:
        pieces = EndpointModel(endpoint_of(endpoint.url)).stream(EN.write(Brief(title="x")))
        assert next(pieces) == "A lake.\nSn"
        with pytest.raises(PromptError, match="step 'write': the connection ended before the answer did"):
            next(pieces)
    assert len(endpoint.asked) == 1


def test_a_cut_article_is_said():
    told = []
    with serve(lambda *_: said("A lake", finish_reason="length")) as endpoint:
        EndpointModel(endpoint_of(endpoint.url), say=told.append).answer(EN.write(Brief(title="x")))
    with serve(lambda *_: streamed("A lake", reason="length")) as endpoint:
        list(EndpointModel(endpoint_of(endpoint.url), say=told.append).stream(EN.write(Brief(title="x"))))
    assert told == ["the answer to 'write' was cut after 1500 tokens"] * 2


def test_one_writes_and_the_other_chooses(photos):
    asked = []

    class Named:
        def __init__(self, name, answers):
            self.name, self.answers = name, answers

        def answer(self, prompt):
            asked.append((self.name, prompt.step))
            return self.answers[prompt.step]

    writer = Named("writer", {"write": "A lake.\nSnow.", "spot": "<Seg1>", "caption": "snow"})
    both = Divided(writer, Named("chooser", {"select": "C"}))
    result = run(pipeline(both, OwnPictures(photos), EN), Draft.of(Brief(title="x")))
    assert [found.id for found in result.article.pictures()] == ["c"]
    assert asked == [("writer", "write"), ("writer", "spot"), ("writer", "caption"), ("chooser", "select")]


def test_casts(session, tmp_path, monkeypatch):
    folder = tiny_models.tiny_directory(tmp_path / "tiny")
    local = open_cast(folder, device="cpu")
    assert isinstance(local.model, LocalModel)
    assert local.sees
    remote = EndpointConfig(url="http://localhost:1/v1", model="writer")
    both = open_cast(folder, endpoint=remote, language="zh", device="cpu", seed=5)
    assert isinstance(both.model, Divided)
    assert isinstance(both.style, DividedStyle)
    assert both.style.room == local.style.room
    assert "writer at http://localhost:1/v1" in both.identity
    assert "seed 5" in both.identity
    with monkeypatch.context() as patch:
        shipped = copy.copy(session)
        shipped.name = "mini"
        patch.setattr("vedere.infer.session.load", lambda *_, **__: shipped)
        mini = open_cast("mini")  # measured: it chooses worse than chance, and names no places
        assert (mini.sees, mini.places) == (False, False)
        for style in (mini.style, spoken(mini.style, "zh")):  # longer articles of it repeat themselves
            assert style.write(Brief(title="x")).decoding.new_tokens == 400
        beside = open_cast("mini", endpoint=remote)
        assert (beside.sees, beside.places) == (False, True)  # the endpoint places and captions
    alone = open_cast(None, endpoint=remote)
    assert isinstance(alone.model, EndpointModel)
    (tmp_path / "script.json").write_text(json.dumps({"write": "x"}))
    scripted = open_cast(script=tmp_path / "script.json")
    assert scripted.model.answer(EN.write(Brief(title="x"))) == "x"
