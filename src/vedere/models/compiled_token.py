"""A decoded token, compiled for the CPU at hand: products of few rows with weights that stand as rows, and a decoder layer.

A decoded token reads every weight once, so it can take no less than memory takes to read them. Two things keep general
kernels from that. A processor fetches ahead along few streams, and a product that goes through its weight row by row is one
stream; here every thread goes through four far parts of the weight at once, a row of each, which reads memory as fast as a sum
of the numbers does. And between the maps a layer has some twenty small operations, each of which costs more to call than to
compute; here a layer is one call. Sums and activations are float32; only keys and values are rounded, for the cache.

Weights ``[O, I]`` in one of three forms, each a triple of arrays (numbers, scales, offsets; what a form lacks is empty):

* bfloat16: two inputs a word, ``uint32 [O, I / 2]``, as any checkpoint has them;
* int8: ``int8 [O, I]`` and a scale for each output, ``float32 [O, 1]``;
* int4: ``uint8 [O, I / 2]``, in groups of 32 inputs, 16 bytes each, of which the low halves are the first 16 inputs; a scale
  for each group, ``float32 [O, G]``, and the value of 0 as bfloat16, ``uint32 [O, G' / 2]``, groups padded to whole vectors.

Integers are multiplied as integers, by inputs rounded to 15 bits (fewer where sums would not fit): finer than bfloat16.

This module imports numba (extra ``cpu``), and is only imported where that is there and asked for. All of it stands in one file,
because numba keeps compiled code as long as the file of the function that was called is unchanged.

Axes: O outputs, I inputs, G groups, S rows (an answer each), D width, H query heads, K key-value heads, d head width,
F feed-forward width, P threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

STREAMS = 4  # parts of a weight that a thread reads at once
_WORDS = 16  # of 32 bits: what a step of the bfloat16 product takes
_BYTES = 32  # the same of int8
_MANY = 1024  # words from which a thread reads twice as many parts of bfloat16: inputs come from a slower cache then
_GROUP = 32  # inputs that share a scale in int4
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}  # sums in any order; NaN and infinity stay what they are
_OPTIONS: dict[str, Any] = {"fastmath": _FAST, "boundscheck": False, "error_model": "numpy"}

_vector = ir.VectorType
_FLOAT, _BYTE, _SHORT, _INT, _LONG = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))


def _kept(parallel: bool = False) -> Callable[[Any], Any]:
    """`njit`, whose code is kept for later processes where there is a place for it."""

    def compile_later(function: Any) -> Any:
        try:
            return njit(cache=True, parallel=parallel, **_OPTIONS)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            return njit(parallel=parallel, **_OPTIONS)(function)

    return compile_later


# --- Products of one row of inputs with four rows of a weight, as vectors of LLVM: every CPU has its own code from them ---


def _all(kind: Any, count: int, value: int) -> Any:
    return ir.Constant(_vector(kind, count), [value] * count)


def _load(builder: Any, base: Any, place: Any, kind: Any) -> Any:
    """A vector that begins at any element."""
    loaded = builder.load(builder.bitcast(builder.gep(base, [place]), kind.as_pointer()))
    loaded.align = 1
    return loaded


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = a.type
    return builder.call(_function(builder, f"llvm.fmuladd.v{kind.count}f32", kind, kind, kind, kind), [a, b, c])


def _total(builder: Any, vector: Any) -> Any:
    reduce = _function(builder, f"llvm.vector.reduce.fadd.v{vector.type.count}f32", _FLOAT, _FLOAT, vector.type)
    return builder.call(reduce, [_FLOAT(0.0), vector], fastmath=("reassoc",))


def _pairs(builder: Any, products: Any) -> Any:
    """Sums of neighbours: with the products before, one instruction where the CPU has it."""
    half, nothing = products.type.count // 2, ir.Constant(products.type, ir.Undefined)
    places = [ir.Constant(_vector(_INT, half), list(range(first, 2 * half, 2))) for first in (0, 1)]
    return builder.add(*(builder.shuffle_vector(products, nothing, place) for place in places))


def _loop(builder: Any, end: Any, step: int, sums: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """``body(place, sums)`` for place 0, step, 2 step, ... below ``end``, at least once."""
    before, inside, after = builder.block, builder.append_basic_block("dots"), builder.append_basic_block("dots.end")
    builder.branch(inside)
    builder.position_at_end(inside)
    place, carried = builder.phi(_LONG), [builder.phi(each.type) for each in sums]
    result = body(place, carried)
    following = builder.add(place, _LONG(step))
    for phi, first, later in zip([place, *carried], [_LONG(0), *sums], [following, *result], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, inside)
    builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
    builder.position_at_end(after)
    return result


def _rows(builder: Any, base: Any, first: Any, apart: Any, length: Any, streams: int = STREAMS) -> list[Any]:
    """Where the rows first, first + apart, first + 2 apart ... of a matrix begin."""
    numbers = [builder.add(first, builder.mul(apart, _LONG(stream))) for stream in range(streams)]
    return [builder.gep(base, [builder.mul(number, length)]) for number in numbers]


def _pointers(context: Any, builder: Any, signature: Any, arguments: Any, *which: int) -> list[Any]:
    return [context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in which]


def _dots16_of(streams: int) -> Any:
    """bfloat16: the inputs of even and of odd number in float32; a word's halves become float32 by a shift and a mask."""
    result = types.UniTuple(types.float32, streams)

    @intrinsic
    def dots16(typing: Any, weight: Any, first: Any, apart: Any, low: Any, high: Any, words: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            base, even, odd = _pointers(context, builder, signature, arguments, 0, 3, 4)
            kind, raw = _vector(_FLOAT, _WORDS), _vector(_INT, _WORDS)
            rows = _rows(builder, base, arguments[1], arguments[2], arguments[5], streams)

            def body(place: Any, sums: list[Any]) -> list[Any]:
                x, y = _load(builder, even, place, kind), _load(builder, odd, place, kind)
                out = []
                for row, total in zip(rows, sums, strict=True):
                    word = _load(builder, row, place, raw)
                    a = builder.bitcast(builder.shl(word, _all(_INT, _WORDS, 16)), kind)
                    b = builder.bitcast(builder.and_(word, _all(_INT, _WORDS, 0xFFFF0000)), kind)
                    out.append(_multiply_add(builder, b, y, _multiply_add(builder, a, x, total)))
                return out

            sums = _loop(builder, arguments[5], _WORDS, [ir.Constant(kind, None)] * streams, body)
            return context.make_tuple(builder, signature.return_type, [_total(builder, each) for each in sums])

        return result(weight, types.intp, types.intp, low, high, types.intp), generate

    return dots16


_dots16, _dots16_twice = _dots16_of(STREAMS), _dots16_of(2 * STREAMS)


@intrinsic
def _dots8(typing: Any, weight: Any, first: Any, apart: Any, inputs: Any, length: Any) -> Any:
    """int8 times int16, summed in int32."""
    result = types.UniTuple(types.float32, STREAMS)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base, given = _pointers(context, builder, signature, arguments, 0, 3)
        wide, half = _vector(_INT, _BYTES), _vector(_INT, _BYTES // 2)
        rows = _rows(builder, base, arguments[1], arguments[2], arguments[4])

        def body(place: Any, sums: list[Any]) -> list[Any]:
            x = builder.sext(_load(builder, given, place, _vector(_SHORT, _BYTES)), wide)
            out = []
            for row, total in zip(rows, sums, strict=True):
                w = builder.sext(_load(builder, row, place, _vector(_BYTE, _BYTES)), _vector(_SHORT, _BYTES))
                out.append(builder.add(total, _pairs(builder, builder.mul(builder.sext(w, wide), x))))
            return out

        sums = _loop(builder, arguments[4], _BYTES, [ir.Constant(half, None)] * STREAMS, body)
        totals = [_total(builder, builder.sitofp(each, _vector(_FLOAT, _BYTES // 2))) for each in sums]
        return context.make_tuple(builder, signature.return_type, totals)

    return result(weight, types.intp, types.intp, inputs, types.intp), generate


@intrinsic
def _dots4(typing: Any, weight: Any, scales: Any, first: Any, apart: Any, inputs: Any, groups: Any) -> Any:
    """Steps of int4 times int16, a group's sum times its scale."""
    result = types.UniTuple(types.float32, STREAMS)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base, table, given = _pointers(context, builder, signature, arguments, 0, 1, 4)
        half, kind = _GROUP // 2, _vector(_FLOAT, _GROUP // 4)
        first, apart, groups = arguments[2], arguments[3], arguments[5]
        rows = _rows(builder, base, first, apart, builder.mul(groups, _LONG(half)))
        factors = _rows(builder, table, first, apart, groups)
        wide, nothing = _vector(_INT, half), ir.Constant(kind, ir.Undefined)

        def body(group: Any, sums: list[Any]) -> list[Any]:
            begin = builder.mul(group, _LONG(_GROUP))
            places = begin, builder.add(begin, _LONG(half))
            x = [builder.sext(_load(builder, given, place, _vector(_SHORT, half)), wide) for place in places]
            out = []
            for row, factor, total in zip(rows, factors, sums, strict=True):
                pair = _load(builder, row, builder.mul(group, _LONG(half)), _vector(_BYTE, half))
                halves = builder.and_(pair, _all(_BYTE, half, 15)), builder.lshr(pair, _all(_BYTE, half, 4))
                steps = [builder.zext(builder.zext(each, _vector(_SHORT, half)), wide) for each in halves]
                added = builder.add(*(_pairs(builder, builder.mul(a, b)) for a, b in zip(steps, x, strict=True)))
                scales = builder.insert_element(nothing, builder.load(builder.gep(factor, [group])), _INT(0))
                scales = builder.shuffle_vector(scales, nothing, ir.Constant(_vector(_INT, kind.count), None))
                out.append(_multiply_add(builder, builder.sitofp(added, kind), scales, total))
            return out

        sums = _loop(builder, groups, 1, [ir.Constant(kind, None)] * STREAMS, body)
        return context.make_tuple(builder, signature.return_type, [_total(builder, each) for each in sums])

    return result(weight, scales, types.intp, types.intp, inputs, types.intp), generate


# --- The three forms behind two functions: what a row of inputs is prepared to, and the products of a share of the outputs ---


@njit(inline="always")
def _wide(half: Any) -> Any:
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


@njit(inline="always")
def _narrow(value: Any) -> Any:
    """The nearest bfloat16, to even at ties; NaN stays NaN."""
    bits = np.float32(value).view(np.uint32)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        rounded = bits | np.uint32(0x400000)
    return np.uint16(rounded >> np.uint32(16))


@njit(**_OPTIONS)
def _rounded(x: Any, most: Any, whole: Any) -> Any:
    """Inputs as whole numbers up to ``most``; returns what 1 stands for, NaN if some input is not finite."""
    top, finite = np.float32(1e-30), np.float32(0)
    for j in range(len(x)):
        top = max(top, abs(x[j]))
        finite += x[j] * np.float32(0)
    if finite != 0:
        return np.float32(np.nan)
    factor = np.float32(most) / top
    for j in range(len(x)):
        whole[j] = np.int16(np.rint(x[j] * factor))
    return top / np.float32(most)


def _prepare(*_: Any) -> Any: ...
def _dots(*_: Any) -> Any: ...
def _share(*_: Any) -> Any: ...


@overload(_prepare, jit_options=_OPTIONS, strict=False)
def _prepare_of(weight: Any, x: Any, even: Any, odd: Any, whole: Any) -> Any:
    """Brings a row of inputs into what the weight's form is multiplied with; returns what a whole number stands for."""
    form = weight[0].dtype

    def words(weight, x, even, odd, whole):  # type: ignore[no-untyped-def]
        for j in range(len(x) // 2):
            even[j], odd[j] = x[2 * j], x[2 * j + 1]
        return np.float32(1)

    def integers(weight, x, even, odd, whole):  # type: ignore[no-untyped-def]
        return _rounded(x, min(32767, (2**31 - 1) * 16 // (127 * len(x))), whole)  # a lane sums every 16th product

    def groups(weight, x, even, odd, whole):  # type: ignore[no-untyped-def]
        unit = _rounded(x, 32767, whole)
        for group in range(2 * weight[2].shape[1]):
            total = np.float32(0)
            for j in range(group * _GROUP, min(len(x), (group + 1) * _GROUP)):
                total += np.float32(whole[j])
            (odd if group % 2 else even)[group // 2] = total
        return unit

    return words if form == types.uint32 else integers if form == types.int8 else groups


@overload(_dots, jit_options=_OPTIONS, strict=False)
def _dots_of(weight: Any, row: Any, apart: Any, even: Any, odd: Any, whole: Any, unit: Any) -> Any:
    """Products with the rows ``row``, ``row + apart``, ``row + 2 apart`` and ``row + 3 apart``."""
    form = weight[0].dtype

    def words(weight, row, apart, even, odd, whole, unit):  # type: ignore[no-untyped-def]
        return _dots16(weight[0], row, apart, even, odd, weight[0].shape[1])

    def integers(weight, row, apart, even, odd, whole, unit):  # type: ignore[no-untyped-def]
        a, b, c, d = _dots8(weight[0], row, apart, whole, weight[0].shape[1])
        scale, end = weight[1], row + 3 * apart
        p, q, r, s = scale[row, 0], scale[row + apart, 0], scale[row + 2 * apart, 0], scale[end, 0]
        return a * p * unit, b * q * unit, c * r * unit, d * s * unit

    def groups(weight, row, apart, even, odd, whole, unit):  # type: ignore[no-untyped-def]
        a, b, c, d = _dots4(weight[0], weight[1], row, apart, whole, weight[1].shape[1])
        p, q, r, s = _dots16(weight[2], row, apart, even, odd, weight[2].shape[1])
        return (a + p) * unit, (b + q) * unit, (c + r) * unit, (d + s) * unit

    return words if form == types.uint32 else integers if form == types.int8 else groups


@njit(**_OPTIONS)
def _by_four(weight: Any, begin: int, end: int, out: Any, even: Any, odd: Any, whole: Any, units: Any) -> None:
    apart = (end - begin) // STREAMS
    for row in range(begin, begin + apart):
        for s in range(len(out)):
            sums = _dots(weight, row, apart, even[s], odd[s], whole[s], units[s])
            for stream in range(STREAMS):
                out[s, row + stream * apart] = sums[stream]
    for row in range(begin + STREAMS * apart, end):
        for s in range(len(out)):
            out[s, row] = _dots(weight, row, 0, even[s], odd[s], whole[s], units[s])[0]


@overload(_share, jit_options=_OPTIONS, strict=False)
def _share_of(weight: Any, begin: Any, end: Any, out: Any, even: Any, odd: Any, whole: Any, units: Any) -> Any:
    """Outputs ``begin .. end`` of all rows of inputs."""

    def plain(weight, begin, end, out, even, odd, whole, units):  # type: ignore[no-untyped-def]
        _by_four(weight, begin, end, out, even, odd, whole, units)

    def words(weight, begin, end, out, even, odd, whole, units):  # type: ignore[no-untyped-def]
        if weight[0].shape[1] >= _MANY:
            apart = (end - begin) // (2 * STREAMS)
            for row in range(begin, begin + apart):
                for s in range(len(out)):
                    sums = _dots16_twice(weight[0], row, apart, even[s], odd[s], weight[0].shape[1])
                    for stream in range(2 * STREAMS):
                        out[s, row + stream * apart] = sums[stream]
            begin += 2 * STREAMS * apart
        _by_four(weight, begin, end, out, even, odd, whole, units)

    return words if weight[0].dtype == types.uint32 else plain


@_kept(parallel=True)
def multiply(weight: Any, x: Any, out: Any, prepared: Any, parts: int) -> None:
    """``x [S, I]`` in float32 to ``out [S, O]``; ``prepared`` is what `scratch` of `vedere.models.row_forms` makes."""
    even, odd, whole, units = prepared
    for s in range(len(x)):
        units[s] = _prepare(weight, x[s], even[s], odd[s], whole[s])
    for part in prange(parts):
        begin, end = len(weight[0]) * part // parts, len(weight[0]) * (part + 1) // parts
        _share(weight, begin, end, out, even, odd, whole, units)


@_kept(parallel=True)
def expand4(weight: Any, out: Any, parts: int) -> None:
    """An int4 weight as bfloat16, ``uint16 [O, I]``."""
    numbers, scales, offsets = weight
    half = _GROUP // 2
    for part in prange(parts):
        for row in range(len(scales) * part // parts, len(scales) * (part + 1) // parts):
            for group in range(scales.shape[1]):
                scale, zero = scales[row, group], _wide(offsets[row].view(np.uint16)[group])
                for j in range(half):
                    pair = numbers[row, group * half + j]
                    out[row, group * _GROUP + j] = _narrow(zero + scale * np.float32(pair & 15))
                    out[row, group * _GROUP + half + j] = _narrow(zero + scale * np.float32(pair >> 4))


# --- A layer ---


@njit(**_OPTIONS)
def _norm(x: Any, weight: Any, eps: Any, out: Any) -> None:
    total = np.float32(0)
    for j in range(len(x)):
        total += x[j] * x[j]
    scale = np.float32(1) / np.sqrt(total / np.float32(len(x)) + eps)
    for j in range(len(x)):
        out[j] = x[j] * scale * weight[j]


@njit(inline="always")
def _exp(x: Any) -> Any:
    """e^x for x up to 0, to a few units in the last place, in operations that run as vectors."""
    x = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = np.floor(x + np.float32(0.5))
    part = (x - whole) * np.float32(0.6931471805599453)
    series = np.float32(1 / 720)
    for factor in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        series = series * part + np.float32(factor)
    return series * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(**_OPTIONS)
def _merge(sums: Any, tops: Any, out: Any) -> None:
    """Attention over all parts of the tokens out of that over each."""
    parts, heads, width = sums.shape
    for h in range(heads):
        top, total, mixed = tops[:, h, 0].max(), np.float32(0), out[h * width : (h + 1) * width]
        mixed[:] = 0
        for part in range(parts):
            share = np.exp(tops[part, h, 0] - top)
            total += share * tops[part, h, 1]
            mixed += share * sums[part, h]
        mixed /= total


@_kept(parallel=True)
def _attend(queries: Any, keys: Any, values: Any, slot: int, length: int, out: Any, sums: Any, tops: Any) -> None:
    """One row's attention: every thread takes a part of the tokens, with a maximum and a total of its own."""
    heads, width = queries.shape
    parts, kv_heads = len(sums), keys.shape[1]
    group = heads // kv_heads
    for part in prange(parts):
        begin, end = length * part // parts, length * (part + 1) // parts
        scores, row = np.empty((group, end - begin), np.float32), np.empty(width, np.float32)
        for k in range(kv_heads):
            for t in range(begin, end):
                for j in range(width):
                    row[j] = _wide(keys[slot, k, t, j])
                for g in range(group):
                    product = np.float32(0)
                    for j in range(width):
                        product += row[j] * queries[k * group + g, j]
                    scores[g, t - begin] = product
            for g in range(group):
                top, total = np.float32(-3e38), np.float32(0)
                for t in range(end - begin):
                    top = max(top, scores[g, t])
                for t in range(end - begin):
                    scores[g, t] = _exp(scores[g, t] - top)
                    total += scores[g, t]
                tops[part, k * group + g, 0], tops[part, k * group + g, 1] = top, total
                for j in range(width):
                    sums[part, k * group + g, j] = 0
            for t in range(begin, end):
                for j in range(width):
                    row[j] = _wide(values[slot, k, t, j])
                for g in range(group):
                    share = scores[g, t - begin]
                    for j in range(width):
                        sums[part, k * group + g, j] += share * row[j]
    _merge(sums, tops, out)


@njit(**_OPTIONS)
def _map(weight: Any, x: Any, out: Any, prepared: Any, parts: int) -> None:
    rows, bias = weight
    multiply(rows, x, out, prepared, parts)
    if len(bias):
        for s in range(len(out)):
            out[s] += bias


@_kept()
def layer(x: Any, weights: Any, norms: Any, rotary: Any, cached: Any, pasts: Any, work: Any, parts: int) -> None:
    """A decoder layer over one new token of every answer.

    Args:
        x: Hidden states ``[S, D]``, float32; changed in place.
        weights: Query-key-value, output, gate-up and down map, each a weight's arrays and a bias ``[O]`` or ``[0]``.
        norms: Weights ``[D]`` before attention and before the feed-forward part, of the heads ``[H + K, d]`` (or no rows), then
            the epsilons of both kinds.
        rotary: Cosines and sines ``[S, d]``.
        cached: Keys and values ``[slots, K, capacity, d]`` as bits of bfloat16, and the first row's slot.
        pasts: Tokens cached in each slot; the new one is stored behind them.
        work: Scratch: ``[S, D]``, ``[S, (H + 2 K) d]``, ``[H, d]``, ``[S, H d]``, ``[S, 2 F]``, ``[S, F]``, ``[P, H, d]``,
            ``[P, H, 2]``, and what `multiply` takes.
        parts: Threads P.
    """
    qkv_map, out_map, gate_up_map, down_map = weights
    attention_norm, ffn_norm, heads_norm, eps, heads_eps = norms
    cos, sin = rotary
    keys, values, first = cached
    normed, qkv, queries, mixed, inner, gated, sums, tops, prepared = work
    heads, width = queries.shape
    kv_heads, half = keys.shape[1], width // 2
    scale = np.float32(width) ** np.float32(-0.5)
    rows = len(x)
    for s in range(rows):
        _norm(x[s], attention_norm, eps, normed[s])
    _map(qkv_map, normed[:rows], qkv[:rows], prepared, parts)
    for s in range(rows):
        slot, past = first + s, pasts[s]
        for h in range(heads + kv_heads):
            head = qkv[s, h * width : (h + 1) * width]
            if len(heads_norm):
                _norm(head, heads_norm[h], heads_eps, head)
            for j in range(half):
                a = head[j] * cos[s, j] - head[half + j] * sin[s, j]
                b = head[half + j] * cos[s, half + j] + head[j] * sin[s, half + j]
                if h < heads:
                    queries[h, j], queries[h, half + j] = a * scale, b * scale
                else:
                    keys[slot, h - heads, past, j], keys[slot, h - heads, past, half + j] = _narrow(a), _narrow(b)
        for k in range(kv_heads):
            for j in range(width):
                values[slot, k, past, j] = _narrow(qkv[s, (heads + kv_heads + k) * width + j])
        _attend(queries, keys, values, slot, past + 1, mixed[s], sums, tops)
    _map(out_map, mixed[:rows], normed[:rows], prepared, parts)
    for s in range(rows):
        x[s] += normed[s]
        _norm(x[s], ffn_norm, eps, normed[s])
    _map(gate_up_map, normed[:rows], inner[:rows], prepared, parts)
    for s in range(rows):
        for j in range(gated.shape[1]):
            gate, up = inner[s, j], inner[s, gated.shape[1] + j]
            small = _exp(-abs(gate))  # of the sigmoid: 1 / (1 + small), or small / (1 + small) below 0
            gated[s, j] = gate * up * (np.float32(1) if gate > 0 else small) / (np.float32(1) + small)
    _map(down_map, gated[:rows], normed[:rows], prepared, parts)
    for s in range(rows):
        x[s] += normed[s]
