"""`render`: the span law, labels, agreement with tokenising whole prompts, and every refusal by its message."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_vocabularies import write_gguf

from vedere.errors import ConfigError, ContextError, PromptError, RecordError
from vedere.plan import HDPolicy, SpanKind, SquarePolicy, TilingPolicy, plan_media
from vedere.text.chat import TEMPLATES, Turn, get_template
from vedere.text.render import IGNORED, Span, context_check, render, render_pieces
from vedere.text.tokenizer import Tokenizer

LIMITS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TILING = TilingPolicy(tile=56, max_tiles=6)
PICTURE = plan_media(100, 60, TILING)
VIDEO = plan_media(64, 48, TILING, frames=3)
TEXT = st.text(st.sampled_from("abT 12.\n?é猫<>|"), max_size=12)
ANSWER = TEXT.filter(lambda text: text.strip() and text == text.lstrip())
SIDE = st.integers(1, 900)
PLAN = st.one_of(
    st.builds(lambda w, h: plan_media(w, h, TILING), SIDE, SIDE),
    st.builds(lambda w, h: plan_media(w, h, HDPolicy(tile=56, limit=5)), SIDE, SIDE),
    st.builds(lambda w, h: plan_media(w, h, HDPolicy(tile=56, limit=6, mode="identity", padding="end")), SIDE, SIDE),
    st.builds(lambda w, h: plan_media(w, h, SquarePolicy(tile=56)), SIDE, SIDE),
    st.builds(lambda w, h, n: plan_media(w, h, TILING, frames=n), SIDE, SIDE, st.integers(1, 4)),
)


@st.composite
def dialogues(draw):
    """A closed conversation with media, each behind its placeholder."""
    turns, plans = [], []
    if draw(st.booleans()):
        turns.append(Turn("system", draw(TEXT)))
    for _ in range(draw(st.integers(1, 3))):
        text = draw(TEXT)
        for plan in draw(st.lists(PLAN, max_size=2)):
            plans.append(plan)
            text += ("<video>" if plan.is_video else "<image>") + draw(TEXT)
        turns += [Turn("user", text), Turn("assistant", draw(ANSWER))]
    return tuple(turns), plans


NAMES = st.sampled_from(sorted(TEMPLATES))


@LIMITS
@given(dialogue=dialogues(), name=NAMES, train=st.booleans())
def test_span_law(tokenizer, dialogue, name, train):
    turns, plans = dialogue
    template = get_template(name)
    done = render(turns if train else turns[:-1], plans, template, tokenizer, train=train)
    context = tokenizer.token_id(template.image_context)
    covered = np.zeros(len(done.ids), dtype=int)
    for span in done.spans:
        assert span.length > 0
        covered[span.start : span.start + span.length] += 1
    assert np.array_equal(covered, (done.ids == context).astype(int))  # disjoint, and exactly on the context ids
    starts = [span.start for span in done.spans]
    assert starts == sorted(starts)
    expected = [
        (media, frame, kind, length)
        for media, plan in enumerate(plans)
        for frame, group in enumerate(plan.frame_spans)
        for kind, length in group
    ]
    assert [(span.media, span.frame, span.kind, span.length) for span in done.spans] == expected
    assert sum(span.length for span in done.spans) == sum(plan.tokens for plan in plans)
    types = done.span_types
    assert (types.dtype, types.shape) == (np.dtype(np.uint8), done.ids.shape)
    assert np.array_equal(types > 0, covered > 0)
    for span in done.spans:
        assert np.all(types[span.start : span.start + span.length] == span.kind)


@LIMITS
@given(dialogue=dialogues(), name=NAMES)
def test_labels_are_the_answers_and_their_end_markers(tokenizer, dialogue, name):
    turns, plans = dialogue
    template = get_template(name)
    done = render(turns, plans, template, tokenizer, train=True)
    assert done.labels is not None
    assert done.labels.shape == done.ids.shape
    assert done.ids.dtype == done.labels.dtype == np.int64
    trained = done.labels != IGNORED
    assert np.array_equal(done.labels[trained], done.ids[trained])
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    if template.strip_training:
        answers = [answer.strip() for answer in answers]
    text = tokenizer.decode(done.ids[trained], skip_special=False)
    assert text == "".join(answer + template.answer_end for answer in answers)
    assert not np.any(trained & (done.span_types > 0))


@LIMITS
@given(dialogue=dialogues(), name=NAMES, train=st.booleans())
def test_ids_equal_the_whole_prompt_tokenised_at_once(tokenizer, dialogue, name, train):
    turns, plans = dialogue
    turns = turns if train else turns[:-1]
    template = get_template(name)
    whole = "".join(piece.text for piece in render_pieces(turns, plans, template, train=train))
    assert render(turns, plans, template, tokenizer, train=train).ids.tolist() == tokenizer.encode(whole)


@LIMITS
@given(dialogue=dialogues())
def test_what_is_trained_starts_with_what_is_asked(tokenizer, dialogue):
    turns, plans = dialogue
    template = get_template("smollm2")
    asked = render(turns[:-1], plans, template, tokenizer, train=False)
    trained = render(turns, plans, template, tokenizer, train=True)
    assert asked.labels is None
    assert np.array_equal(trained.ids[: len(asked.ids)], asked.ids)
    assert trained.spans == asked.spans


@LIMITS
@given(dialogue=dialogues(), name=NAMES, train=st.booleans())
def test_reference_agrees_where_nothing_is_amiss(tokenizer, dialogue, name, train):
    turns, plans = dialogue
    if any(plan.is_video for plan in plans):  # the originals know frames only as pictures
        return
    turns = turns if train else turns[:-1]
    ours = render(turns, plans, get_template(name), tokenizer, train=train)
    theirs = render(turns, plans, get_template(name), tokenizer, train=train, reference=True)
    assert np.array_equal(ours.ids, theirs.ids)
    assert ours.spans == theirs.spans


def ask(text, plans=(), name="smollm2", **options):
    """Pieces of a single question."""
    options = {"train": False, **options}
    return render_pieces((Turn("user", text),), list(plans), get_template(name), **options)


def test_bos_comes_once_and_carries_no_label(raw, tokenizer, tmp_path):
    bos = 2
    with_bos = Tokenizer.from_gguf(write_gguf(tmp_path / "m.gguf", raw, bos=bos))
    turns = (Turn("user", "<image>a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    for name in ("internlm2-chat", "ixc2", "smollm2"):
        plain = render(turns, [PICTURE], get_template(name), tokenizer, train=True)
        dressed = render(turns, [PICTURE], get_template(name), with_bos, train=True)
        assert dressed.ids.tolist() == [bos, *plain.ids.tolist()]
        assert dressed.labels.tolist() == [IGNORED, *plain.labels.tolist()]
        assert [span.start for span in dressed.spans] == [span.start + 1 for span in plain.spans]
    alone = render((Turn("user", "a"),), [PICTURE], get_template("ixc2"), with_bos, train=False)
    assert alone.ids[0] == bos
    assert alone.spans[0].start == 1  # XComposer2: bos, then an untagged picture, then the text
    history = render(turns[:3], [PICTURE], get_template("ixc1"), with_bos, train=False)
    assert np.count_nonzero(history.ids == bos) == 2  # XComposer's stored history


def test_hd_row_ends_and_separator_are_spans_of_their_own(tokenizer):
    plan = plan_media(120, 60, HDPolicy(tile=56, limit=2))
    done = render((Turn("user", "<image>"),), [plan], get_template("ixc2"), tokenizer, train=False)
    # 2 x 2 tokens a tile: a global view of two rows, a separator, two rows of 2 tiles
    kinds = [(span.kind, span.length) for span in done.spans]
    row = [(SpanKind.VISUAL, 2), (SpanKind.ROW_END, 1)] * 2
    assert kinds == [*row, (SpanKind.SEPARATOR, 1), *([(SpanKind.VISUAL, 4), (SpanKind.ROW_END, 1)] * 2)]
    first = done.spans[0]
    assert first == Span(media=0, frame=0, start=first.start, length=2, kind=SpanKind.VISUAL)


def test_untagged_pictures_go_in_front_of_the_first_question(tokenizer):
    template = get_template("internvl2_5")
    turns = (Turn("user", "Which?"), Turn("assistant", "This."), Turn("user", "Why?"), Turn("assistant", "So."))
    tagged = (Turn("user", "<image>\n<image>\nWhich?"), *turns[1:])
    for count in (1, 4):
        mine = render(turns[:count], [PICTURE] * 2, template, tokenizer, train=count > 1)
        assert np.array_equal(mine.ids, render(tagged[:count], [PICTURE] * 2, template, tokenizer, train=count > 1).ids)


def test_an_empty_answer_is_closed_and_not_trained(tokenizer):
    turns = (Turn("user", "a"), Turn("assistant", ""), Turn("user", "b"), Turn("assistant", "c"))
    template = get_template("internvl2_5")
    text = "".join(piece.text for piece in render_pieces(turns, [], template, train=True))
    assert "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nb" in text
    done = render(turns, [], template, tokenizer, train=True)
    assert tokenizer.decode(done.ids[done.labels != IGNORED], skip_special=False) == "c<|im_end|>"


def test_placeholders_outside_user_turns_are_text(tokenizer):
    turns = (Turn("user", "<image>"), Turn("assistant", "Write <image> there."))
    done = render(turns, [PICTURE], get_template("smollm2"), tokenizer, train=True)
    assert "Write <image> there." in tokenizer.decode(done.ids[done.labels != IGNORED])
    assert sum(span.length for span in done.spans) == PICTURE.tokens


def test_rendered_travels_to_workers(tokenizer):
    done = render((Turn("user", "<image>"),), [PICTURE], get_template("smollm2"), tokenizer, train=False)
    again = pickle.loads(pickle.dumps(done))
    assert np.array_equal(again.ids, done.ids)
    assert np.array_equal(again.span_types, done.span_types)


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plans", "message"),
    [
        ("<image>?", [], "placeholders for 1 image and 0 videos, but 0 images and 0 videos were given"),
        ("<image>", [PICTURE] * 2, "placeholders for 1 image and 0 videos, but 2 images and 0 videos were given"),
        ("<image><video>", [VIDEO], "placeholders for 1 image and 1 video, but 0 images and 1 video were given"),
        ("What?", [VIDEO], "placeholders for 0 images and 0 videos, but 0 images and 1 video were given"),
        ("What?", [PICTURE, VIDEO], "placeholders for 0 images and 0 videos, but 1 image and 1 video were given"),
        ("<image>", [VIDEO], "placeholders for 1 image and 0 videos, but 0 images and 1 video were given"),
        ("<image><video>", [VIDEO, PICTURE], "placeholder 1 is <image>, but media 1 is for <video>; put"),
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_placeholders_that_do_not_fit_the_media(text, plans, message, train):
    turns = (Turn("user", text), Turn("assistant", "x"))
    with pytest.raises(PromptError, match=message):
        render_pieces(turns if train else turns[:1], plans, get_template("smollm2"), train=train)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_strings_that_only_the_template_writes(name):
    template = get_template(name)
    markers = {template.image_start, template.image_context, template.image_end, *template.turn_markers} - {""}
    for marker in markers:
        with pytest.raises(
            PromptError, match=rf"the user text of turn 1 contains '.*', which template '{name}' writes"
        ):
            ask(f"see {marker} here", name=name)
        with pytest.raises(PromptError, match=f"the system text contains '.*', which template '{name}' writes"):
            render_pieces((Turn("system", marker), Turn("user", "a")), [], template, train=False)
        turns = (Turn("user", "a"), Turn("assistant", f"b {marker}"), Turn("user", "b"))
        if marker in (template.image_start, template.image_end):  # a model spells them out in answers about web pages
            text = "".join(piece.text for piece in render_pieces(turns, [], template, train=False))
            assert f"b {marker}{template.answer_end if not template.bare_history else ''}" in text
            turns = (Turn("user", "a"), Turn("assistant", f"{marker} {template.image_context}"), Turn("user", "b"))
        with pytest.raises(PromptError, match="the assistant text of turn 2 contains"):
            render_pieces(turns, [], template, train=False)
        with pytest.raises(PromptError, match="the assistant text of turn 2 contains"):
            render_pieces((Turn("user", "a"), Turn("assistant", f"b {marker}")), [], template, train=True)


def test_conversations_that_cannot_be_answered():
    template = get_template("smollm2")
    user, assistant, system = Turn("user", "a"), Turn("assistant", "b"), Turn("system", "c")
    for turns, message in [
        ((), "the conversation is empty; expected at least one user turn"),
        ((system,), "has 1 turns and no user turn among them; expected at least one question"),
        ((user, assistant), r"the last turn is assistant's \('b'\); expected a user turn to answer"),
        ((assistant, user), "turn 1 is an assistant turn where user was expected"),
        ((user, user), "turn 2 is a user turn where assistant was expected; user and assistant alternate"),
        ((user, system, user), "turn 2 is a system turn; a system message can only be the first turn"),
    ]:
        with pytest.raises(PromptError, match=message):
            render_pieces(turns, [], template, train=False)


def test_samples_that_cannot_be_trained_on(tokenizer):
    template = get_template("smollm2")
    for turns in [
        (Turn("user", "a"),),
        (Turn("user", "a"), Turn("assistant", "")),
        (Turn("user", "a"), Turn("assistant", " \n")),
    ]:
        with pytest.raises(RecordError, match="the sample has no answer text, so no token would be trained; expected"):
            render(turns, [], template, tokenizer, train=True)


def test_a_vocabulary_without_the_template_s_tokens(tokenizer):
    template = dataclasses.replace(get_template("smollm2"), image_context="<empty_outputs>")
    with pytest.raises(ConfigError, match=r"'<empty_outputs>' is not one token .* did you mean '<empty_output>'\?"):
        render((Turn("user", "<image>"),), [PICTURE], template, tokenizer, train=False)


def test_text_that_encodes_to_the_context_token_is_caught(tokenizer):
    # A context token that plain text can produce: the check by strings is switched off, the count is not.
    template = dataclasses.replace(get_template("smollm2"), image_context="+")
    object.__setattr__(template, "reserved", get_template("smollm2").reserved)
    with pytest.raises(
        PromptError, match=rf"hold \+, but the plans of 1 media ask for {PICTURE.tokens}; a text encodes"
    ):
        render((Turn("user", "<image>1+1"),), [PICTURE], template, tokenizer, train=False)


def test_context_overflow_is_told_with_its_numbers():
    context_check(1000, 24, 1024)
    with pytest.raises(
        ContextError,
        match="prompt takes 1000 tokens and 25 new tokens were asked for: 1025 together, but the model has 1024 "
        "positions; lower the new tokens to 24 or shorten the prompt",
    ):
        context_check(1000, 25, 1024)
    with pytest.raises(
        ContextError, match=r"2049 together.* shorten the prompt: fewer tiles or frames, or less history"
    ):
        context_check(2048, 1, 1024)


@pytest.mark.parametrize("vocabulary", ["qwen2", "qwen2-fast", "internlm2", "phi3"])
@pytest.mark.parametrize("name", ["internvl2_5", "internlm2-chat", "Hermes-2", "phi3-chat"])
def test_a_prompt_to_answer_is_tokenised_in_one_go(vocabulary, name):
    """As InternVL's `chat` does it: where a vocabulary puts a space before a text, that is once and not before each turn."""
    template = get_template(name)
    words = Tokenizer.load(Path(__file__).parent / "vocabularies" / vocabulary)
    markers = (*template.turn_markers, template.image_start, template.image_context, template.image_end)
    words = words.with_tokens(words.lacks(markers))  # of phi3's, ``<|im_start|>`` is no named token then
    turns = (
        Turn("user", "<image>\n the  cat"),
        Turn("assistant", " a\n"),
        Turn("user", ""),
        Turn("assistant", "b"),
        Turn("user", "\ta <image>"),
    )
    plans = [PICTURE, PICTURE]
    whole = "".join(piece.text for piece in render_pieces(turns, plans, template, train=False))
    start = [] if words.bos_id is None else [words.bos_id]
    assert render(turns, plans, template, words, train=False).ids.tolist() == [*start, *words.encode(whole)]


@pytest.mark.parametrize(
    ("opening", "message"),
    [
        (
            "Sure<|im_end|>",
            r"the opening of the answer contains '<\|im_end\|>', which template 'internvl2_5' writes itself",
        ),
        ("<IMG_CONTEXT>", "the opening of the answer contains '<IMG_CONTEXT>'"),
        ("a\ud800", "half of a surrogate pair at character 1"),
        (b"a", "content of type bytes; expected a string"),
    ],
)
def test_openings_that_are_none(tokenizer, opening, message):
    with pytest.raises(PromptError, match=message):
        render((Turn("user", "a"),), [], get_template("internvl2_5"), tokenizer, train=False, opening=opening)
