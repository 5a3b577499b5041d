"""A scripted model, a gallery in memory, and a small article for the tests of composition."""

import zlib

import numpy as np
from PIL import Image

from vedere.compose.article import Article, Paragraph, Picture


class Script:
    """Answers each kind of prompt from its list, the last answer again and again; keeps the prompts."""

    def __init__(self, **answers):
        self.answers = {step: list(given) if isinstance(given, list) else [given] for step, given in answers.items()}
        self.prompts = []

    def answer(self, prompt):
        self.prompts.append(prompt)
        given = self.answers[prompt.step]
        return given.pop(0) if len(given) > 1 else given[0]

    def asked(self, step):
        return [prompt for prompt in self.prompts if prompt.step == step]


class Memory:
    """A gallery that ranks by shared characters; keeps its queries."""

    def __init__(self, *pictures):
        self.pictures, self.queries = pictures, []

    def search(self, caption, count, exclude):
        self.queries.append((caption, frozenset(exclude)))
        left = [picture for picture in self.pictures if picture.id not in exclude]
        return sorted(left, key=lambda picture: -len(set(picture.caption) & set(caption)))[:count]


def picture(name, caption="", **more):
    return Picture(id=name, path=more.pop("path", f"{name}.png"), caption=caption, **more)


def article(*texts, title="杭州西湖"):
    return Article(title=title, paragraphs=tuple(Paragraph(text=text) for text in texts))


class WordsEncoder:
    """Texts as sums of random directions, one a word; ``asked`` keeps every text."""

    name, dimension, similarity, sees = "words", 64, 0.2, False

    def __init__(self):
        self.asked = []

    def texts(self, texts):
        self.asked += texts
        found = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.lower().replace(",", " ").split():
                row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dimension)
            row /= max(np.linalg.norm(row), 1e-9)
        return found

    def pictures(self, images):
        raise AssertionError("this encoder does not see")


class ColourEncoder:
    """Sees the mean colour of a picture, and knows three words."""

    name, dimension, similarity, sees = "colours", 3, 0.9, True

    def texts(self, texts):
        return np.array([[float(name in text) for name in ("red", "green", "blue")] for text in texts], np.float32)

    def pictures(self, images):
        means = np.array([np.asarray(image, np.float32).mean((0, 1)) for image in images]).reshape(-1, 3)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def noise(path, seed, size=(96, 64), **options):
    """A picture with much in it, as a file."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path
