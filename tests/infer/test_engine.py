import math

import pytest
import torch

from tiny_models import TILE, VOCABULARY, tiny_model
from vedere.errors import ConfigError, ContextError, PromptError, VedereError
from vedere.infer.engine import Engine, Finished, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.positions import document_positions

GREEDY = SamplingParams(max_new_tokens=6)


def _text(length: int, content: int = 0, /, **sampling) -> Request:
    ids = torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(content))
    return Request(ids=ids, sampling=SamplingParams(**({"max_new_tokens": 6} | sampling)))


def _picture(
    content: int = 0, /, tiles: int = 2, before: int = 3, after: int = 4, delta: float = 1.0, **sampling
) -> Request:
    """Text, an image block of ``tiles`` x 4 positions, text."""
    generator = torch.Generator().manual_seed(content)
    visual = 4 * tiles
    length = before + visual + after
    types = torch.zeros(length, dtype=torch.uint8)
    types[before : before + visual] = 1
    return Request(
        ids=torch.randint(0, VOCABULARY, (length,), generator=generator),
        span_types=types,
        positions=document_positions(length, [(before, visual)], [delta]),
        pixels=torch.randint(0, 256, (tiles, 3, TILE, TILE), generator=generator, dtype=torch.uint8),
        sampling=SamplingParams(**({"max_new_tokens": 6} | sampling)),
    )


def _answers(engine: Engine, requests) -> list[Finished]:
    done = [event for event in engine.generate(requests) if isinstance(event, Finished)]
    return sorted(done, key=lambda event: event.request)


def _uncached(model, request: Request, steps: int) -> tuple[list[int], list[float]]:
    """Greedy decoding by running the whole sequence again for every token."""
    from vedere.vision.pixels import normalise

    ids, types, positions = request.ids, request.span_types, request.positions
    if types is None:
        types = torch.zeros(len(ids), dtype=torch.uint8)
    if positions is None:
        positions = torch.arange(len(ids))
    pixels = None if request.pixels is None else normalise(request.pixels, "imagenet")
    chosen, logprobs = [], []
    with torch.no_grad():
        for _ in range(steps):
            hidden = model(ids, positions, [0, len(ids)], types, pixels)
            scores = model.decoder.logits(hidden[-1]).log_softmax(-1)
            chosen.append(int(scores.argmax()))
            logprobs.append(float(scores.max()))
            ids = torch.cat([ids, ids.new_tensor([chosen[-1]])])
            types = torch.cat([types, types.new_zeros(1)])
            positions = torch.cat([positions, positions[-1:] + 1])
    return chosen, logprobs


@pytest.mark.parametrize("delta", [1.0, 0.25, 3 / 256])
def test_cached_decoding_equals_full_forward(delta):
    """Pictures, fractional positions included: the n-th new token stands n after the last of the prompt."""
    model = tiny_model(v2pe=delta != 1)
    for request in (_picture(1, delta=delta), _picture(2, before=1, after=1, delta=delta), _text(5)):
        want_ids, want_logprobs = _uncached(model, request, 6)
        (answer,) = _answers(Engine(model), [request])
        assert list(answer.ids) == want_ids
        assert answer.logprobs == pytest.approx(want_logprobs, abs=1e-5)


def test_fractional_positions_matter():
    """The law above would also hold if positions were ignored: they are not."""
    model = tiny_model(v2pe=True)
    near, far = (_answers(Engine(model), [_picture(1, delta=delta)])[0] for delta in (1 / 256, 1.0))
    assert near.logprobs != pytest.approx(far.logprobs, abs=1e-4)


@pytest.mark.parametrize("chunk", range(1, 16))
def test_split_prefill_equals_whole(chunk):
    """Every chunk size, so cuts at every place, inside the image block (positions 3 to 10) too."""
    model, request = tiny_model(), _picture(3)
    (whole,) = _answers(Engine(model), [request])
    (split,) = _answers(Engine(model, chunk=chunk), [request])
    assert split.ids == whole.ids
    assert split.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


def test_routing_matters_in_a_later_chunk():
    """Were the second half of the picture routed as text (the original's bug), the answer would differ."""
    model, request = tiny_model(), _picture(3)
    (right,) = _answers(Engine(model, chunk=7), [request])
    layer = model.decoder.layers[0].ffn
    text, visual = layer.text, layer.visual
    layer.visual = text
    (wrong,) = _answers(Engine(model, chunk=7), [request])
    layer.visual = visual
    assert right.logprobs != pytest.approx(wrong.logprobs, abs=1e-4)


@pytest.mark.parametrize("max_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("chunk", [4, 512])
def test_batched_equals_single(max_batch, chunk):
    """Ragged prompts, different lengths of answers, more requests than slots: slots are refilled and moved."""
    model = tiny_model()
    requests = [
        _text(9, 1, max_new_tokens=12),
        _picture(2, max_new_tokens=3),
        _text(1, 3, max_new_tokens=1),
        _picture(4, tiles=1, max_new_tokens=9),
        _text(17, 5, temperature=1.2, seed=11, max_new_tokens=8),
        _text(30, 6, max_new_tokens=2),
        _picture(7, tiles=3, repetition_penalty=1.5, max_new_tokens=7),
        _text(4, 8, temperature=0.8, top_p=0.9, top_k=40, seed=5, max_new_tokens=10),
    ]
    alone = [_answers(Engine(model), [request])[0] for request in requests]
    together = _answers(Engine(model, max_batch=max_batch, chunk=chunk), requests)
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.prompt_tokens == other.prompt_tokens
        assert one.seed == other.seed or one.request not in (4, 7)


def test_an_engine_can_be_used_again_and_closed_early():
    engine, request = Engine(tiny_model(), chunk=3), _picture(5)
    (first,) = _answers(engine, [request])
    running = engine.generate([_text(20, 1, max_new_tokens=50), _picture(6)])
    for _ in range(4):
        next(running)
    running.close()
    (again,) = _answers(engine, [request])
    assert again.ids == first.ids
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-6)


def test_two_generations_side_by_side_do_not_share_a_cache():
    engine = Engine(tiny_model())
    alone = [_answers(engine, [_text(5, k)])[0].ids for k in (1, 2)]
    one, other = engine.generate([_text(5, 1)]), engine.generate([_text(5, 2)])
    events = [event for pair in zip(one, other, strict=True) for event in pair]
    assert [event.ids for event in events if isinstance(event, Finished)] == alone


def test_order_of_events():
    requests = [_text(5, 1, max_new_tokens=3), _picture(2, max_new_tokens=5), _text(4, 3, max_new_tokens=2)]
    seen: dict[int, list] = {0: [], 1: [], 2: []}
    for event in Engine(tiny_model(), max_batch=2).generate(requests):
        assert isinstance(event, (Token, Finished))
        seen[event.request].append(event)
    for request, events in seen.items():
        *tokens, last = events
        assert all(isinstance(event, Token) for event in tokens)
        assert isinstance(last, Finished)
        assert tuple(token.id for token in tokens) == last.ids
        assert tuple(token.logprob for token in tokens) == last.logprobs
        assert len(last.ids) == requests[request].sampling.max_new_tokens
        assert last.reason == "length"


def test_requests_of_a_stream_are_taken_when_there_is_room():
    taken = []

    def stream():
        for number in range(4):
            taken.append(number)
            yield _text(4, number, max_new_tokens=2)

    events = Engine(tiny_model(), max_batch=2).generate(stream())
    next(events)
    assert taken == [0, 1]
    assert sum(isinstance(event, Finished) for event in events) == 4
    assert list(Engine(tiny_model()).generate([])) == []


def test_stop_ends_with_the_stop_token():
    model = tiny_model()
    (free,) = _answers(Engine(model), [_text(6, 2, max_new_tokens=8)])
    at = next(k for k in range(1, 8) if free.ids[k] not in free.ids[:k])
    (stopped,) = _answers(Engine(model), [_text(6, 2, max_new_tokens=8, stop_ids=(VOCABULARY - 1, free.ids[at]))])
    assert stopped.reason == "stop"
    assert stopped.ids == free.ids[: at + 1]
    (longest,) = _answers(Engine(model), [_text(6, 2, max_new_tokens=at + 1, stop_ids=(free.ids[at],))])
    assert longest.reason == "stop"  # the stop token as the last allowed one is a stop


def test_seeds():
    engine = Engine(tiny_model())

    def answer(seed):
        return _answers(engine, [_text(6, 2, temperature=1.5, seed=seed, max_new_tokens=12)])[0]

    assert answer(1).ids == answer(1).ids
    assert answer(1).ids != answer(2).ids
    drawn = answer(None)
    assert answer(drawn.seed).ids == drawn.ids  # what was not given is named, so that it can be repeated


def test_greedy_is_deterministic_and_logprobs_are_the_models():
    engine = Engine(tiny_model())
    greedy = _answers(engine, [_text(6, 2)])[0]
    assert _answers(engine, [_text(6, 2)])[0].logprobs == greedy.logprobs
    (cold,) = _answers(engine, [_text(6, 2, temperature=0.01, top_k=1, seed=0)])
    assert cold.ids == greedy.ids
    assert cold.logprobs == pytest.approx(greedy.logprobs, abs=1e-6)  # not those of the sharpened distribution


def test_text_touches_no_visual_weight():
    model = tiny_model()
    (want,) = _answers(Engine(model), [_text(9)])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".visual." in name or not name.startswith("decoder."):
                parameter.fill_(math.nan)
    (got,) = _answers(Engine(model), [_text(9)])
    assert (got.ids, got.logprobs) == (want.ids, want.logprobs)
    with pytest.raises(VedereError, match=r"request 0: the logits are not finite at new token 1"):
        _answers(Engine(model), [_picture()])


def test_decoding_after_a_picture_touches_no_visual_weight():
    model = tiny_model()
    (want,) = _answers(Engine(model), [_picture()])
    events = Engine(model).generate([_picture()])
    first = next(events)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".visual." in name or not name.startswith("decoder."):
                parameter.fill_(math.nan)
    finished = [event for event in events if isinstance(event, Finished)]
    assert first == Token(0, want.ids[0], want.logprobs[0])
    assert finished[0].ids == want.ids


def test_a_broken_neighbour_leaves_nothing_behind():
    """NaN of one request must not reach the next one in its slot."""
    model = tiny_model()
    engine = Engine(model, max_batch=1)
    (want,) = _answers(engine, [_text(3, 1)])
    poisoned = _picture()
    poisoned = Request(
        ids=poisoned.ids,
        span_types=poisoned.span_types,
        pixels=torch.full((2, 3, TILE, TILE), math.nan),
        sampling=GREEDY,
    )
    with pytest.raises(VedereError, match="not finite"):
        _answers(engine, [poisoned])
    assert _answers(engine, [_text(3, 1)])[0].logprobs == want.logprobs


def test_a_bare_decoder_answers_text():
    model = tiny_model()
    assert _answers(Engine(model.decoder), [_text(8)])[0].logprobs == _answers(Engine(model), [_text(8)])[0].logprobs
    with pytest.raises(PromptError, match="request 0 has pictures, but the model is a bare language model"):
        Engine(model.decoder).generate([_picture()])


def test_float_tiles_are_normalised_already():
    from vedere.vision.pixels import normalise

    raw = _picture(1)
    ready = Request(
        ids=raw.ids, span_types=raw.span_types, pixels=normalise(raw.pixels, "imagenet"), sampling=raw.sampling
    )
    engine = Engine(tiny_model())
    assert _answers(engine, [raw])[0].ids == _answers(engine, [ready])[0].ids


def test_context_overflow_is_said_before_the_run():
    engine = Engine(tiny_model(), max_positions=20)
    events = engine.generate
    with pytest.raises(
        ContextError,
        match=r"request 1: the prompt takes 15 tokens up to position 14 and 6 new tokens were asked for: 21 positions, but "
        r"the model has 20; lower max_new_tokens to 5",
    ):
        events([_text(14), _text(15)])
    with pytest.raises(
        ContextError, match=r"the prompt takes 30 tokens .*; shorten the prompt \(fewer tiles or frames"
    ):
        events([_text(30)])
    assert len(_answers(engine, [_text(14)])[0].ids) == 6


def test_v2pe_counts_positions_not_tokens():
    request = _picture(1, tiles=4, delta=1 / 16)  # 23 tokens, the last at position 3 + 1 + 4 - 1 + ... < 20
    engine = Engine(tiny_model(v2pe=True), max_positions=20)
    assert len(request.ids) + 6 > 20
    assert len(_answers(engine, [request])[0].ids) == 6


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(ids=[]), "request 0 has an empty prompt"),
        (Request(ids=[1, VOCABULARY]), "token ids from 1 to 300, but the model's vocabulary has 300 rows"),
        (Request(ids=[-1]), "token ids from -1"),
        (Request(ids=[1, 2], span_types=[0]), "1 span types for 2 tokens"),
        (Request(ids=[1, 2], positions=torch.arange(3)), "3 positions for 2 tokens"),
        (Request(ids=[1, 2], span_types=[0, 1]), "1 visual positions for 0 tiles of 4 tokens"),
        (
            Request(ids=[1] * 5, span_types=[1] * 5, pixels=torch.zeros(1, 3, TILE, TILE)),
            "5 visual positions for 1 tiles of 4 tokens; give the tiles of exactly the pictures",
        ),
        (Request(ids=[1], pixels=torch.zeros(1, 3, TILE, TILE)), "0 visual positions for 1 tiles"),
    ],
)
def test_what_does_not_fit_is_refused(request_, message):
    with pytest.raises(PromptError, match=message):
        Engine(tiny_model()).generate([request_])


def test_limits():
    with pytest.raises(ConfigError, match="at most the model's 512 positions"):
        Engine(tiny_model(), max_positions=513)
    with pytest.raises(ConfigError, match="chunk 0"):
        Engine(tiny_model(), chunk=0)


def test_timings_add_up():
    (answer,) = _answers(Engine(tiny_model()), [_text(5, max_new_tokens=4)])
    times = answer.timings
    assert len(times.tokens) == 3
    assert times.waited >= 0
    assert 0 < times.waited + times.prefill <= times.first_token <= times.total
    assert times.tokens_per_second == pytest.approx(3 / sum(times.tokens))


def test_the_training_mode_and_gradients_of_the_model_are_left_alone():
    model = tiny_model().train()
    _answers(Engine(model), [_text(5)])
    assert model.training
    model.decoder(torch.randn(3, 32), torch.arange(3), [0, 3]).sum().backward()
