"""Routing by span type: what it must not change, and what it must not touch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vedere.models.decoder import Decoder
from vedere.models.experts import FeedForward, SpanRouter
from vedere.models.layers import SwiGLU

# A routed map is two matmuls of fewer rows instead of one: the sums may be ordered otherwise, nothing more.
TOLERANCE = {"rtol": 0, "atol": 1e-5}
TOKENS = 23


def ids_of(seed: int = 1, length: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(seed))


def run(decoder: Decoder, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
    return decoder(decoder.embed(ids), torch.arange(len(ids)), [0, 10, len(ids)], types)


@pytest.mark.parametrize("changes", [{"visual_ffn": True}, {"visual_ffn": True, "visual_attention": True}])
@settings(max_examples=15, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS))
def test_copied_experts_make_routing_invisible(make_mono, changes, mask) -> None:
    model = make_mono(**changes)
    model.copy_experts()
    types = torch.tensor(mask, dtype=torch.uint8)
    torch.testing.assert_close(
        run(model.decoder, ids_of(), types), run(model.decoder, ids_of(), torch.zeros(TOKENS)), **TOLERANCE
    )


def test_different_experts_are_seen(make_mono) -> None:
    model = make_mono()
    types = torch.zeros(TOKENS, dtype=torch.uint8)
    types[4:8] = 1
    difference = (run(model.decoder, ids_of(), types) - run(model.decoder, ids_of(), None)).detach().abs().amax(1)
    assert float(difference[:4].max()) < 1e-5  # causal: earlier tokens know nothing
    assert (difference[4:8] > 1e-2).all()
    assert (difference[8:10] > 1e-4).all()  # later tokens attend them
    assert float(difference[10:].max()) < 1e-5  # the next document does not


@pytest.mark.parametrize("visual_attention", [False, True])
def test_an_all_text_mask_is_the_bare_language_model_bit_for_bit(make_mono, make_decoder, visual_attention) -> None:
    decoder = make_mono(visual_attention=visual_attention).decoder
    bare = make_decoder()
    shared = {name: tensor for name, tensor in decoder.state_dict().items() if ".visual." not in name}
    bare.load_state_dict(shared, strict=True)
    for types in (None, torch.zeros(TOKENS, dtype=torch.uint8)):
        assert torch.equal(run(decoder, ids_of(), types), run(bare, ids_of(), None))


@pytest.mark.parametrize(("absent", "present"), [("visual", 0), ("text", 1)])
def test_an_absent_type_touches_no_parameter(make_mono, absent, present) -> None:
    decoder = make_mono(visual_attention=True).decoder
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if f".{absent}." in name:
                parameter.fill_(torch.nan)
    hidden = run(decoder, ids_of(), torch.full((TOKENS,), present, dtype=torch.uint8))
    assert hidden.isfinite().all()
    hidden.sum().backward()
    for name, parameter in decoder.named_parameters():
        if f".{absent}." in name:
            assert parameter.grad is None, name
        elif name != "head.weight":
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_every_media_kind_takes_the_visual_expert(make_mono) -> None:
    decoder = make_mono().decoder
    types = torch.zeros(TOKENS, dtype=torch.uint8)
    types[3:9] = 1
    kinds = types.clone()
    kinds[5], kinds[8] = 2, 3  # row end, separator
    assert torch.equal(run(decoder, ids_of(), kinds), run(decoder, ids_of(), types))


@settings(max_examples=15, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_gathered_experts_equal_the_dense_blend(mask, seed) -> None:
    """The original evaluates both experts on every token and blends them with a 0/1 mask."""
    torch.manual_seed(seed)
    experts = FeedForward(SwiGLU(16, 24), SwiGLU(16, 24))
    x, visual = torch.randn(len(mask), 16), torch.tensor(mask)
    router = SpanRouter(visual.to(torch.uint8), len(mask))

    def dense(expert: SwiGLU) -> torch.Tensor:
        gate, up = expert.gate_up.weight.chunk(2)
        return (F.silu(x @ gate.T) * (x @ up.T)) @ expert.down.weight.T

    m = visual[:, None].float()
    blend = (1 - m) * dense(experts.text) + m * dense(experts.visual)
    gathered = router.unsort(experts(router.sort(x), router))
    torch.testing.assert_close(gathered, blend, rtol=0, atol=1e-6)


def test_visual_attention_experts_with_copied_weights_change_nothing(make_mono) -> None:
    shared = make_mono()
    separate = make_mono(visual_attention=True)
    missing, surplus = separate.load_state_dict(shared.state_dict(), strict=False)
    assert not surplus
    assert missing
    assert all(".attention.visual." in name for name in missing)
    for layer in separate.decoder.layers:
        layer.attention.copy_text_to_visual()
    types = (torch.arange(TOKENS) % 5 < 2).to(torch.uint8)
    torch.testing.assert_close(
        run(separate.decoder, ids_of(), types), run(shared.decoder, ids_of(), types), **TOLERANCE
    )


@given(mask=st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_router_sorts_stably_and_back(mask) -> None:
    types = torch.tensor(mask, dtype=torch.uint8)
    router = SpanRouter(types, len(mask))
    rows = torch.arange(len(mask))
    routed = router.sort(rows)
    assert torch.equal(routed, torch.cat([rows[types == 0], rows[types == 1]]))
    assert torch.equal(router.unsort(routed), rows)


def test_span_types_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"span types of shape \(3,\) for 5 tokens; expected \[5\]"):
        SpanRouter(torch.zeros(3, dtype=torch.uint8), 5)


@pytest.mark.parametrize("visual_attention", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS),
    rows=st.lists(st.integers(0, TOKENS - 1), min_size=1, unique=True),
)
def test_chosen_rows_are_those_of_the_whole_pass(make_mono, visual_attention, mask, rows) -> None:
    """In the order in which they are asked for, and with the same gradients."""
    decoder = make_mono(visual_attention=visual_attention).decoder
    types = torch.tensor(mask, dtype=torch.uint8)
    weights = torch.randn(len(rows), decoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    found = []
    for chosen in (None, torch.tensor(rows)):
        embedded = decoder.embed(ids_of()).detach().requires_grad_()
        hidden = decoder(embedded, torch.arange(TOKENS), [0, 10, TOKENS], types, rows_M=chosen)
        kept = hidden[torch.tensor(rows)] if chosen is None else hidden
        (kept * weights).sum().backward()
        found.append((kept.detach(), embedded.grad))
    for whole, chosen in zip(*found, strict=True):
        torch.testing.assert_close(chosen, whole, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("learns", ["text", "visual", "both", "neither"])
def test_routed_maps_have_the_gradients_of_the_composite_form(bias, learns) -> None:
    """Every row through its own map, joined by autograd itself."""
    torch.manual_seed(3)
    experts = FeedForward(SwiGLU(16, 24, bias), SwiGLU(16, 24, bias))
    for name, parameter in experts.named_parameters():
        parameter.requires_grad_(learns in (name.split(".")[0], "both"))
    types = torch.randint(0, 2, (TOKENS,), dtype=torch.uint8)
    router = SpanRouter(types, TOKENS)
    weights = torch.randn(TOKENS, 16)
    found = []
    for composite in (True, False):
        x = torch.randn(TOKENS, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        rows = router.sort(x)
        if composite:
            out = torch.cat([experts.text(rows[: router.text]), experts.visual(rows[router.text :])])
        else:
            out = experts(rows, router)
        experts.zero_grad()
        (router.unsort(out) * weights).sum().backward()
        found.append([out.detach(), x.grad, *(p.grad for p in experts.parameters() if p.requires_grad)])
    assert len(found[0]) == 2 + sum(p.requires_grad for p in experts.parameters())
    for expected, given_ in zip(*found, strict=True):
        torch.testing.assert_close(given_, expected, rtol=1e-5, atol=1e-5)
