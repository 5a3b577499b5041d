"""The two sentence encoders with their real weights, fetched once: meanings, languages, and figures of their own."""

from __future__ import annotations

import numpy as np
import pytest

from vedere.compose.encoders import Encoder, open_encoder

ENGLISH = ["a large bear sitting on grass", "a plate of food on a table", "a woman skiing down a mountain"]
CHINESE = ["一只大熊坐在草地上", "桌上的一盘食物", "一个女人从山上滑雪下来"]
GERMAN = ["Ein großer Bär sitzt im Gras", "ein Teller mit Essen auf einem Tisch", "eine Frau fährt Ski den Berg hinab"]


@pytest.fixture(scope="module")
def multilingual() -> Encoder:
    return open_encoder("multilingual")


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE, GERMAN])
def test_sentences_of_any_language_find_their_english_form(multilingual: Encoder, texts: list[str]) -> None:
    cosines = multilingual.texts(texts) @ multilingual.texts(ENGLISH).T
    assert np.array_equal(cosines.argmax(axis=1), range(3))
    assert cosines.diagonal().min() > multilingual.similarity > (cosines - 2 * np.eye(3)).max()


def test_the_english_encoder(multilingual: Encoder) -> None:
    minilm = open_encoder("minilm")
    cosines = minilm.texts(["a brown bear on a lawn", "dinner", "winter sports"]) @ minilm.texts(ENGLISH).T
    assert np.array_equal(cosines.argmax(axis=1), range(3))
    assert (minilm.dimension, multilingual.dimension) == (384, 512)
    pair = minilm.texts(["This is an example sentence", "Each sentence is converted"])
    recorded = [
        0.067657,
        0.063496,
        0.048713,
        0.079305,
        0.037448,
        0.002653,
    ]  # by transformers' BertModel and mean pooling
    assert pair[0, :6].tolist() == pytest.approx(recorded, abs=1e-5)
    assert float(pair[0] @ pair[1]) == pytest.approx(0.404559, abs=1e-5)


def test_the_multilingual_encoder_is_near_to_the_published_graph(multilingual: Encoder) -> None:
    """Cosines that the published graph in 8 bits gives; the embeddings here have 6."""
    texts = ["A large bear sitting on grass", "a woman skiing down a hill", "一只棕熊坐在草地上"]
    bear, ski, chinese = multilingual.texts(texts)
    assert float(bear @ chinese) == pytest.approx(0.75, abs=0.03)
    assert float(bear @ ski) == pytest.approx(0.31, abs=0.03)
    assert float(ski @ chinese) == pytest.approx(0.29, abs=0.03)


def test_vectors_have_length_one_whatever_the_text(multilingual: Encoder) -> None:
    found = multilingual.texts(["", " ", "x" * 5000, "🐻", "a\x00b", "\n"])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
