"""One more token for a few answers, with every layer as one compiled call (`vedere.models.compiled_token`).

For decoders whose maps stand as rows (`vedere.models.row_forms`) and that are made of nothing else: no mixtures of experts, no
low-rank additions. Everything else, and more answers at once, goes by `TokenStep`.

Hidden states and all that lies between the maps are float32 here, where the general pass rounds to bfloat16 after every
operation, so the result is nearer to the weights' own than that of the general pass.

Axes: S slots, D width, d head width, H heads, K key-value heads, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vedere.infer.cache import Cache, Window
from vedere.infer.token_step import TokenStep
from vedere.models.decoder import Decoder, DecoderConfig, DecoderLayer
from vedere.models.layers import SwiGLU
from vedere.models.quantized import QuantLinear, Weights, pack_weights
from vedere.models.row_forms import FEW, ONE_AT_A_TIME, Rows, scratch, use_threads

Step = Callable[[Tensor, Tensor, Window, Sequence[float] | None], Tensor]


def token_step(decoder: Decoder) -> Step:
    """The fastest step that a decoder allows, as its weights are now."""
    general = TokenStep(decoder)
    maps = [_maps(cast(DecoderLayer, layer)) for layer in decoder.layers]
    if all(each is not None for each in maps):
        return FusedStep(decoder, general, cast(list[list[QuantLinear]], maps))
    return general


def compile_step(form: Weights, say: Callable[[str], None]) -> None:
    """Compiles the layer for a form, so that the first token need not wait; says so if numba has not kept the code.

    Args:
        form: Of the weights.
        say: Receives a line before compiling, which takes some seconds.
    """
    from numba.core import event

    class Announce(event.Listener):  # type: ignore[misc]
        def on_start(self, event: object) -> None:
            if not said:
                said.append("compiling the CPU's code for this form of weights, once")
                say(said[0])

        def on_end(self, event: object) -> None:
            pass

    said: list[str] = []
    config = DecoderConfig(hidden_size=32, ffn_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, vocab_size=8)
    with torch.device("meta"):  # no random number is drawn
        model = Decoder(config).to(torch.bfloat16).eval()
    model = model.to_empty(device="cpu")
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    pack_weights(model, form)
    with event.install_listener("numba:compile", Announce()), torch.inference_mode():
        window = Cache(config, dtype=torch.bfloat16, capacity=1).window(0, [1])
        hidden = token_step(model)(torch.tensor([1]), torch.tensor([0]), window, None)
        for rows in (1, FEW + 1):
            model.logits(hidden.expand(rows, -1))


def _maps(layer: DecoderLayer) -> list[QuantLinear] | None:
    """The four maps of text tokens, if all stand as rows and nothing is added to them."""
    attention, ffn = layer.attention.text, layer.ffn.text
    if not isinstance(ffn, SwiGLU):
        return None
    maps: list[nn.Module] = [attention.qkv, attention.out, ffn.gate_up, ffn.down]
    fit = all(isinstance(each, QuantLinear) and isinstance(each.kept, Rows) and each.low is None for each in maps)
    return cast(list[QuantLinear], maps) if fit else None


class FusedStep:
    """The step of one model, as it is now.

    Args:
        decoder: Any decoder.
        general: Its step for more than `FEW` answers.
        maps: Query-key-value, output, gate-up and down map of every layer.
    """

    def __init__(self, decoder: Decoder, general: TokenStep, maps: list[list[QuantLinear]]) -> None:
        self.decoder, self.general = decoder, general
        self.weights = [tuple(_arrays(each) for each in layer) for layer in maps]
        self.norms = [_norms(cast(DecoderLayer, layer), decoder) for layer in decoder.layers]
        self.final = _floats(decoder.norm.weight)
        self._work: dict[tuple[int, int], Any] = {}
        self._seen: dict[int, tuple[Tensor, Any]] = {}

    def __call__(
        self, ids_S: Tensor, positions_S: Tensor, window: Window, lengths: Sequence[float] | None = None
    ) -> Tensor:
        """Hidden states ``[S, D]`` after the final norm; arguments as of `TokenStep`."""
        decoder, rows = self.decoder, len(ids_S)
        if rows > FEW:
            return self.general(ids_S, positions_S, window, lengths)
        from vedere.models import compiled_token as compiled

        embedded: Tensor = decoder.embed(ids_S)
        cos, sin = decoder.rotary(positions_S, range(rows + 1), embedded.dtype, lengths)
        rotary = cos.float().numpy(), sin.float().numpy()
        x = embedded.to(torch.float32, copy=True).numpy()
        pasts, cache = np.array(window.past()), window.cache
        with ONE_AT_A_TIME:
            parts = use_threads()
            work = self._scratch(rows, parts)
            for index, (weights, norms) in enumerate(zip(self.weights, self.norms, strict=True)):
                cached = self._bits(2 * index, cache.keys[index]), self._bits(2 * index + 1, cache.values[index])
                compiled.layer(x, weights, norms, rotary, (*cached, window.start), pasts, work, parts)
        normed = torch.nn.functional.rms_norm(torch.from_numpy(x), (x.shape[1],), None, decoder.norm.eps)
        return normed.mul_(self.final).to(embedded.dtype)

    def _bits(self, place: int, stored: Tensor) -> Any:
        """Keys or values as an array; made anew where the cache has grown."""
        found = self._seen.get(place)
        if found is None or found[0] is not stored:
            found = self._seen[place] = stored, stored.view(torch.int16).numpy().view(np.uint16)
        return found[1]

    def _scratch(self, rows: int, parts: int) -> Any:
        if (rows, parts) not in self._work:
            config = self.decoder.config
            heads, width, ffn = config.heads, config.head_dim, self.weights[0][2][0][0].shape[0] // 2
            sizes = [
                (rows, config.hidden_size),
                (rows, (heads + 2 * config.kv_heads) * width),
                (heads, width),
                (rows, heads * width),
                (rows, 2 * ffn),
                (rows, ffn),
                (parts, heads, width),
                (parts, heads, 2),
            ]
            widest = max(config.hidden_size, heads * width, ffn)
            self._work[rows, parts] = (*(np.empty(size, np.float32) for size in sizes), scratch(rows, widest))
        return self._work[rows, parts]


def _floats(weight: Tensor) -> Tensor:
    return weight.detach().float()


def _arrays(linear: QuantLinear) -> tuple[Any, ...]:
    """A map's weight and bias for the compiled layer."""
    bias = np.empty(0, np.float32) if linear.bias is None else _floats(linear.bias).numpy()
    return cast(Rows, linear.kept).arrays, bias


def _norms(layer: DecoderLayer, decoder: Decoder) -> tuple[Any, ...]:
    attention, config = layer.attention.text, decoder.config
    heads, eps = np.empty((0, config.head_dim), np.float32), 0.0
    if attention.qk_norm:
        query, key = (
            _floats(norm.weight).expand(count, -1)
            for norm, count in ((attention.q_norm, config.heads), (attention.k_norm, config.kv_heads))
        )
        heads, eps = torch.cat([query, key]).numpy(), attention.q_norm.eps
    weights = (_floats(norm.weight).numpy() for norm in (layer.attention_norm, layer.ffn_norm))
    return *weights, heads, np.float32(layer.attention_norm.eps), np.float32(eps)
