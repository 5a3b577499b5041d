"""Beam search: exhaustive where that is possible, greedy with one beam, the live peer's answers, and what it refuses."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from tiny_models import TILE, VOCABULARY, tiny_model
from vedere.errors import ConfigError, VedereError
from vedere.infer.beams import BeamSearch
from vedere.infer.cache import Cache
from vedere.infer.engine import Engine, Finished, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.infer.session import Question, load
from vedere.models.checkpoints import load_model
from vedere.models.decoder import DecoderConfig
from vedere.models.positions import document_positions

NEW = 7


def text(length=9, content=0, **sampling):
    ids = torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(content))
    return Request(ids=ids, sampling=SamplingParams(**({"max_new_tokens": NEW} | sampling)))


def picture(**sampling):
    types = torch.tensor([0] * 3 + [1] * 8 + [0] * 4, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(5)
    return Request(
        ids=torch.randint(0, VOCABULARY, (15,), generator=generator),
        span_types=types,
        positions=document_positions(15, [(3, 8)], [0.25]),
        pixels=torch.randint(0, 256, (2, 3, TILE, TILE), generator=generator, dtype=torch.uint8),
        sampling=SamplingParams(**({"max_new_tokens": NEW} | sampling)),
    )


def answers(engine, *requests):
    done = [event for event in engine.generate(requests) if isinstance(event, Finished)]
    return sorted(done, key=lambda event: event.request)


def drive(table, params, seen=None):
    """A search in a model whose logits depend on the tokens so far as ``table`` says; the best answer."""
    generator = torch.Generator().manual_seed(params.seed or 0)
    search, rows = BeamSearch(params, seen, generator), table(())[None]
    while True:
        before = search.beams
        order = search.advance(rows)
        assert all(beam.ids[:-1] == before[parent].ids for beam, parent in zip(search.beams, order, strict=True))
        if search.done:
            return search.answers[0]
        rows = torch.stack([table(beam.ids) for beam in search.beams])


def random_table(seed, vocabulary):
    def logits(ids):
        number = hash((seed, *ids)) % 2**31
        return torch.randn(vocabulary, generator=torch.Generator().manual_seed(number)) * 2

    return logits


def every_answer(table, vocabulary, params):
    """(score, ids) of all answers that there are."""
    found = []
    for length in range(1, params.max_new_tokens + 1):
        for ids in itertools.product(range(vocabulary), repeat=length):
            ended = ids[-1] in params.stop_ids or length == params.max_new_tokens
            if not ended or any(token in params.stop_ids for token in ids[:-1]):
                continue
            total = sum(float(table(ids[:k]).log_softmax(0)[token]) for k, token in enumerate(ids))
            found.append((total / length**params.length_penalty, ids))
    return sorted(found, reverse=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([-0.5, 0.0, 0.3, 1.0, 2.0]), st.sampled_from([(), (1,), (0, 3)]))
def test_with_as_many_beams_as_answers_the_best_of_all_is_found(seed, penalty, stops):
    """Nothing is cut then, except by the published rule for the end, which is off while answers are missing."""
    table = random_table(seed, 4)
    params = SamplingParams(max_new_tokens=3, num_beams=64, length_penalty=penalty, stop_ids=stops)
    score, ids = every_answer(table, 4, params)[0]
    found = drive(table, params)
    assert found.ids == ids
    assert found.score == pytest.approx(score, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_score_is_that_of_its_tokens(seed, beams):
    table = random_table(seed, 9)
    params = SamplingParams(max_new_tokens=5, num_beams=beams, length_penalty=0.7, stop_ids=(2,))
    found = drive(table, params)
    own = [float(table(found.ids[:k]).log_softmax(0)[token]) for k, token in enumerate(found.ids)]
    assert found.logprobs == pytest.approx(own, abs=1e-5)
    assert found.score == pytest.approx(sum(own) / len(own) ** 0.7, abs=1e-5)
    assert found.ids[-1] == 2 or len(found.ids) == 5


def test_the_penalty_of_repetition_works_on_log_probabilities():
    def table(ids):
        return torch.tensor([3.0, 2.9, 0.0, -9.0])

    assert drive(table, SamplingParams(max_new_tokens=2, num_beams=2)).ids == (0, 0)
    params = SamplingParams(max_new_tokens=2, num_beams=2, repetition_penalty=1.5)
    assert sorted(drive(table, params, torch.tensor([3])).ids) == [0, 1]
    assert sorted(drive(table, params, torch.tensor([0])).ids) == [0, 1]
    found = drive(table, replace(params, repetition_penalty=9.0), torch.tensor([0, 1]))
    assert 2 in found.ids
    assert max(found.logprobs) <= 0
    assert found.logprobs[0] == pytest.approx(float(table(()).log_softmax(0)[found.ids[0]]))  # the model's own


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([1.0, 1.7]),
    st.sampled_from([(), (1,), (0, 3, 5)]),
    st.integers(0, 50),
)
def test_as_the_temperature_falls_drawing_becomes_the_search(seed, beams, penalty, repetition, stops, draw):
    table = random_table(seed, 9)
    params = SamplingParams(
        max_new_tokens=5, num_beams=beams, length_penalty=penalty, repetition_penalty=repetition, stop_ids=stops
    )
    seen = torch.tensor([2, 4]) if repetition != 1 else None
    expected = drive(table, params, seen)
    found = drive(table, replace(params, temperature=1e-6, seed=draw), seen)
    assert found.ids == expected.ids
    assert found.logprobs == expected.logprobs


def test_one_step_is_drawn_by_the_probabilities_that_temperature_and_filters_leave():
    """Two beams draw four of five tokens, the best of which wins: its chance is that of being drawn at all."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5])
    params = SamplingParams(max_new_tokens=1, num_beams=2, temperature=1.3)
    chances = (logits / 1.3).softmax(0)
    wanted = torch.zeros(5)
    for first, second in itertools.permutations(range(5), 2):  # only the first two drawn count as answers
        wanted[min(first, second)] += chances[first] * chances[second] / (1 - chances[first])
    counts, tries = torch.zeros(5), 4000
    for seed in range(tries):
        counts[drive(lambda ids: logits, replace(params, seed=seed)).ids[0]] += 1
    assert ((counts / tries - wanted).abs() < 4 * (wanted * (1 - wanted) / tries).sqrt() + 1e-3).all()


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 0.99}])
def test_a_filter_leaves_one_token_more_than_there_are_stop_tokens(filters):
    """So that a beam can go on where all of them are drawn."""
    logits = torch.arange(9.0)
    drawn = set()
    for seed in range(60):
        params = SamplingParams(max_new_tokens=1, num_beams=2, temperature=9.0, stop_ids=(8, 7), seed=seed, **filters)
        search = BeamSearch(params, None, torch.Generator().manual_seed(seed))
        search.advance(logits[None])
        drawn |= {answer.ids[0] for answer in search.answers}
    assert drawn == {6, 7, 8}


def test_one_beam_is_greedy():
    for seed in range(20):
        table = random_table(seed, 30)
        params = SamplingParams(max_new_tokens=6, stop_ids=(1, 2, 3))
        ids = []
        while not ids or (ids[-1] not in params.stop_ids and len(ids) < 6):
            ids.append(int(table(tuple(ids)).argmax()))
        assert drive(table, params).ids == tuple(ids)


@pytest.mark.parametrize("made", [text, picture])
@pytest.mark.parametrize("chunk", [4, 512])
def test_the_engine_searches_as_a_model_without_a_cache(made, chunk):
    model = tiny_model(v2pe=True)
    request = made(num_beams=3, stop_ids=(7, 8, 9), length_penalty=0.5)
    pixels = None
    if request.pixels is not None:
        from vedere.vision.pixels import normalise

        pixels = normalise(request.pixels, "imagenet")

    def table(ids):
        whole = torch.cat([request.ids, torch.tensor(ids, dtype=torch.long)])
        positions = torch.arange(len(request.ids)) if request.positions is None else request.positions
        positions = torch.cat([positions, positions[-1] + 1 + torch.arange(len(ids))])
        types = torch.zeros(len(whole), dtype=torch.uint8)
        if request.span_types is not None:
            types[: len(request.ids)] = request.span_types
        with torch.no_grad():
            hidden = model(whole, positions, [0, len(whole)], types, pixels)
            return model.decoder.logits(hidden[-1])

    expected = drive(table, request.sampling)
    (found,) = answers(Engine(model, chunk=chunk), request)
    assert found.ids == expected.ids
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_search_among_other_requests_changes_none(tmp_path):
    model = tiny_model()
    asked = [text(5, 1), text(12, 2, num_beams=4), picture(), picture(num_beams=2), text(7, 3, temperature=1.0, seed=4)]
    asked.append(text(6, 4, num_beams=3, temperature=1.2, top_p=0.9, seed=9))
    together = answers(Engine(model, max_batch=2, chunk=6), *asked)
    for number, request in enumerate(asked):
        (alone,) = answers(Engine(model), request)
        assert together[number].ids == alone.ids
        assert together[number].logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    lazily = sorted(
        (event for event in Engine(model).generate(iter(asked)) if isinstance(event, Finished)), key=lambda e: e.request
    )
    assert [one.ids for one in lazily] == [one.ids for one in together]


def test_events_reasons_and_limits():
    model = tiny_model()
    engine = Engine(model)
    *tokens, last = engine.generate([text(num_beams=3)])
    assert all(isinstance(event, Token) for event in tokens)
    assert (tuple(event.id for event in tokens), len(tokens), last.reason) == (last.ids, NEW, "length")
    assert last.timings.tokens == (0.0,) * (NEW - 1)
    (stopped,) = answers(engine, text(num_beams=3, stop_ids=tuple(range(VOCABULARY))))
    assert (len(stopped.ids), stopped.reason) == (1, "stop")
    assert stopped.ids[0] == answers(engine, text(max_new_tokens=1))[0].ids[0]
    (longer,) = answers(engine, text(num_beams=3, max_new_tokens=90))  # the cache grows on the way
    assert len(longer.ids) == 90


def test_a_better_sum_than_greedy_is_found():
    model = tiny_model()
    better = 0
    for content in range(8):
        (greedy,), (beams,) = (answers(Engine(model), text(6, content, num_beams=n)) for n in (1, 5))
        assert sum(beams.logprobs) >= sum(greedy.logprobs) - 1e-4 or beams.ids[0] != greedy.ids[0]
        better += sum(beams.logprobs) > sum(greedy.logprobs) + 1e-4
    assert better


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_slots_change_places_as_a_list_does(order, lengths):
    shape = {"hidden_size": 8, "ffn_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 8, "vocab_size": 8}
    cache = Cache(DecoderConfig(**shape), slots=4, capacity=16)
    for slot, length in enumerate(lengths):
        for stored in (*cache.keys, *cache.values):
            stored[slot, :, :length] = slot + 1
        cache.lengths[slot] = length
    cache.reorder(order)
    assert cache.lengths == [lengths[source] for source in order] + [0] * (4 - len(order))
    for stored in (*cache.keys, *cache.values):
        for slot, source in enumerate(order):
            assert bool((stored[slot, :, : lengths[source]] == source + 1).all())
        for slot, length in enumerate(cache.lengths):
            assert not bool(stored[slot, :, length:].any())  # 0 beyond the end


def test_what_goes_with_beams_and_what_does_not(tmp_path):
    with pytest.raises(ConfigError, match=r"num_beams 0; expected|num_beams is 0; expected 1 \(no search\) or more"):
        SamplingParams(num_beams=0)
    with pytest.raises(ConfigError, match=r"length_penalty is nan; expected a finite number"):
        SamplingParams(length_penalty=float("nan"))
    session = load(tiny_models.tiny_directory(tmp_path), device="cpu")
    with pytest.raises(
        ConfigError, match=r"num_beams 2 with stream=True: which answer .* is known at its end; set stream to"
    ):
        session.chat("Hello", stream=True, num_beams=2)
    drawn = [
        session.chat("Hello", num_beams=3, temperature=1.5, seed=seed, max_new_tokens=6) for seed in (5, 5, 6, 7, 8)
    ]
    assert drawn[0].logprobs == drawn[1].logprobs
    assert len({reply.text for reply in drawn}) > 1
    reply = session.chat("Hello", num_beams=3, length_penalty=0.5, max_new_tokens=5)
    (same,) = session.chat_many([Question(text="Hello", num_beams=3, length_penalty=0.5, max_new_tokens=5)])
    assert (reply.text, reply.logprobs) == (same.text, same.logprobs)
    follow = session.chat("And?", history=[reply], num_beams=2, max_new_tokens=3)
    assert follow.prompt_tokens > reply.prompt_tokens


def test_the_prompt_may_be_left_out_of_the_penalty():
    model = tiny_model()
    for beams in (1, 3):
        ids = answers(Engine(model), text(max_new_tokens=1, num_beams=beams))[0].ids
        asked = replace(text(), ids=torch.tensor([*text().ids.tolist()[:-1], ids[0], text().ids.tolist()[-1]]))
        plain = answers(Engine(model), replace(asked, sampling=SamplingParams(max_new_tokens=1, num_beams=beams)))[0]
        off = SamplingParams(max_new_tokens=1, num_beams=beams, repetition_penalty=50.0, penalise_prompt=False)
        on = replace(off, penalise_prompt=True)
        assert answers(Engine(model), replace(asked, sampling=off))[0].ids == plain.ids
        found = answers(Engine(model), replace(asked, sampling=on))[0].ids[0]
        assert found not in asked.ids.tolist()


def test_damaged_weights_are_said():
    model = tiny_model()
    with torch.no_grad():
        model.decoder.norm.weight[0] = float("nan")
    with pytest.raises(VedereError, match="request 0: the logits are not finite at new token 1"):
        answers(Engine(model), text(num_beams=2))


def tiny_peer(folder):
    """A tiny random Llama of the peer, saved."""
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=60,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    peer = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    peer.save_pretrained(folder)
    return peer


@pytest.mark.peer
@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
def test_answers_are_those_of_the_live_peer(tmp_path, beams, length_penalty):
    """A tiny Llama; prompts and stop tokens of many kinds, with and without a penalty of repetition."""
    peer = tiny_peer(tmp_path)
    engine = Engine(load_model(tmp_path))
    ended = 0
    for content, stops, penalty in itertools.product(range(4), [(2,), (3, 4, 5), tuple(range(6, 16))], [1.0, 1.3, 5.0]):
        ids = torch.randint(0, 60, (5 + content,), generator=torch.Generator().manual_seed(content))
        options = {
            "num_beams": beams,
            "length_penalty": length_penalty,
            "repetition_penalty": penalty,
            "max_new_tokens": 12,
        }
        with torch.no_grad():
            found = peer.generate(
                ids[None],
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                eos_token_id=list(stops),
                pad_token_id=0,
                early_stopping=False,
                **options,
            )
        expected = found[0, len(ids) :].tolist()
        (mine,) = answers(engine, Request(ids=ids, sampling=SamplingParams(stop_ids=stops, **options)))
        assert list(mine.ids) == expected, (content, stops, penalty)
        ended += mine.reason == "stop"
    assert 3 < ended < 36


@pytest.mark.peer
@pytest.mark.parametrize("options", [{}, {"top_k": 7}, {"top_p": 0.6, "repetition_penalty": 1.3}, {"min_p": 0.2}])
def test_drawn_answers_are_those_of_the_live_peer(tmp_path, options):
    """The peer calls ``torch.multinomial``, whose noise is drawn as ours is; so the same seed gives the same answer."""
    import transformers

    peer = tiny_peer(tmp_path)
    engine, ended = Engine(load_model(tmp_path)), 0
    settings = {"num_beams": 3, "temperature": 1.4, "max_new_tokens": 9, "length_penalty": 0.5} | options
    off = {"top_k": 0, "top_p": 1.0} | options
    for seed, stops in itertools.product(range(8), [(2,), tuple(range(6, 16))]):
        ids = torch.randint(0, 60, (6,), generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        with torch.no_grad():
            found = peer.generate(
                ids[None],
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=True,
                eos_token_id=list(stops),
                pad_token_id=0,
                early_stopping=False,
                generation_config=transformers.GenerationConfig(**(settings | off)),
            )
        (mine,) = answers(engine, Request(ids=ids, sampling=SamplingParams(stop_ids=stops, seed=seed, **settings)))
        assert list(mine.ids) == found[0, len(ids) :].tolist(), (seed, stops)
        ended += mine.reason == "stop"
    assert 0 < ended < 16
