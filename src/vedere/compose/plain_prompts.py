"""The composition steps asked in plain words, for models that were not tuned to the published prompts.

The five questions are those of the paper (arXiv 2309.15112, sec. 3.3), in English or Chinese; the wording is ours. Any model
that follows instructions can answer them: a local one, or one behind an endpoint. What such a model writes around its answer
is passed over: headings (the title among them), list marks, quotation marks, a sentence around a letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vedere.compose.article import Article, Picture
from vedere.compose.prompts import LETTERS, Brief, Decoding, Prompt, Style, merged, numbered, until_end
from vedere.errors import ConfigError, PromptError

Language = Literal["en", "zh"]

_ENGLISH = {
    "title": "Title: ",
    "outline": "Outline: ",
    "requirements": "Requirements: ",
    "material": "Reference: ",
    "write": "Write an article for the following title, as plain paragraphs, one a line, without headings or lists.\n",
    "seen": "These pictures will illustrate it.\n",
    "on": "\nThe article begins like this; write how it goes on, without repeating it.\n",
    "spot": "{article}\nAfter which {number}of these paragraphs should a picture stand? Answer with marks such as <Seg0>.",
    "some": "",
    "count": "{} ",
    "caption": "{article}\n{past}A picture stands after <Seg{place}>. What does it show? Answer with one short caption.",
    "past": 'The picture after <Seg{place}> shows "{caption}".\n',
    "text": "This is an article up to the place of its next picture.\n",
    "choose": "\nCandidates:\n",
    "select": "Which candidate suits this place best? Answer with one letter.",
    "repair": " Answer with one letter only: {letters}.",
    "expand": "Expand this paragraph.\n{text}",
    "rewrite": "Rewrite this paragraph.\n{text}",
    "abbreviate": "Shorten this paragraph.\n{text}",
    "using": "\nUse this material: {material}",
    "insert": "Write one paragraph that stands between two others.\nFirst: {before}\nSecond: {after}\nIt is about: {outline}",
}
_CHINESE = {
    "title": "标题：",
    "outline": "大纲：",
    "requirements": "要求：",
    "material": "参考资料：",
    "write": "根据以下标题写一篇文章，每段一行，只写正文，不要小标题和列表。\n",
    "seen": "以下图片将作为配图。\n",
    "on": "\n文章的开头如下，请接着写，不要重复。\n",
    "spot": "{article}\n以上文章中，哪{number}段落之后适合插入图片？只回答段落标记，例如<Seg0>。",
    "some": "些",
    "count": "{}个",
    "caption": "{article}\n{past}<Seg{place}>之后有一张图片，图片的内容是什么？只回答一个简短的标题。",
    "past": "<Seg{place}>之后的图片是“{caption}”。\n",
    "text": "以下是一篇文章，到下一张图片的位置为止。\n",
    "choose": "\n候选图片：\n",
    "select": "哪张候选图片最适合这个位置？只回答一个字母。",
    "repair": "只回答一个字母：{letters}。",
    "expand": "扩写以下段落。\n{text}",
    "rewrite": "改写以下段落。\n{text}",
    "abbreviate": "缩写以下段落。\n{text}",
    "using": "\n参考以下素材：{material}",
    "insert": "在以下两段之间写一段。\n第一段：{before}\n第二段：{after}\n内容：{outline}",
}
_WORDS = {"en": _ENGLISH, "zh": _CHINESE}
_HEADING = re.compile(r"\s*(?:#{1,6}\s.*|\*\*[^*]*\*\*\s*|(?:Title|标题)\s*[:：].*)")
_LIST = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)、])\s+")
_SPOT = re.compile(r"(?<![\d.])\d{1,8}(?![\d.]*\d)")
_QUOTES = "\"'“”‘’「」『』*_ "
_LEAD = re.compile(r"^\s*(?:caption|answer|标题|答案|答)\s*[:：]\s*", re.IGNORECASE)
_FIRST = re.compile(r"[\W_]*([A-Z])(?![A-Za-z'’ ])")
_LETTER = re.compile(r"(?<![A-Za-z])(?!A (?!or |and |is |suits |fits )[a-z])[A-Z](?![A-Za-z'’])")
_LONGEST_CAPTION = 300


@dataclass(frozen=True, kw_only=True)
class PlainStyle(Style):
    """Questions in plain words.

    Attributes:
        language: Of the questions, and so of the answers.
        longest: Most tokens of an article.
    """

    language: Language = "en"
    longest: int = 1500

    def _plain(self, step: str, parts: Sequence[str | Picture], decoding: Decoding) -> Prompt:
        question = merged(parts)
        return Prompt(step=step, parts=question, decoding=decoding, mark=self.mark, question=question)

    def write(self, brief: Brief, so_far: str = "") -> Prompt:
        """As `Style.write`; what is there stands in the question."""
        words = _WORDS[self.language]
        given = ("title", "outline", "requirements", "material")
        lines = [f"{words[name]}{getattr(brief, name).strip()}" for name in given if getattr(brief, name).strip()]
        pictures = [part for picture in brief.pictures for part in (picture, "\n")]
        parts = [words["write"], *([words["seen"], *pictures] if pictures else []), "\n".join(lines)]
        tail = f"{words['on']}{so_far}" if so_far else ""
        return self._plain("write", [*parts, tail], Decoding(new_tokens=self.longest, repetition_penalty=1.05))

    def spot(self, article: Article, number: int | None = None, pictures: Sequence[Picture] = ()) -> Prompt:
        """As `Style.spot`."""
        words = _WORDS[self.language]
        full = numbered(article, len(article.paragraphs))
        text = words["spot"].format(
            article=full, number=words["some"] if number is None else words["count"].format(number)
        )
        seen = [part for picture in pictures for part in (picture, "\n")]
        return self._plain("spot", [*([words["seen"], *seen] if seen else []), text], Decoding(new_tokens=100))

    def caption(self, article: Article, place: int, past: Sequence[tuple[int, str]], *, added: bool = False) -> Prompt:
        """As `Style.caption`; added pictures are captioned like all others."""
        words = _WORDS[self.language]
        told = "".join(words["past"].format(place=where, caption=caption) for where, caption in past)
        text = words["caption"].format(article=numbered(article, place + 2), past=told, place=place)
        return self._plain("caption", [text], Decoding(new_tokens=60))

    def select(self, context: Sequence[str | Picture], candidates: Sequence[Picture], repair: bool = False) -> Prompt:
        """As `Style.select`."""
        words = _WORDS[self.language]
        parts: list[str | Picture] = [words["text"], *context, words["choose"]]
        for letter, picture in zip(LETTERS, candidates, strict=False):
            parts += [f"{letter}. ", picture, "\n"]
        again = words["repair"].format(letters=", ".join(LETTERS[: len(candidates)])) if repair else ""
        return self._plain("select", [*parts, words["select"], again], Decoding(new_tokens=10))

    def expand(self, text: str, material: str = "") -> Prompt:
        """As `Style.expand`."""
        return self._change("expand", text, material)

    def rewrite(self, text: str, material: str = "") -> Prompt:
        """As `Style.rewrite`."""
        return self._change("rewrite", text, material)

    def abbreviate(self, text: str) -> Prompt:
        """As `Style.abbreviate`."""
        return self._change("abbreviate", text, "")

    def insert(self, before: str, after: str, outline: str) -> Prompt:
        """As `Style.insert`.

        Raises:
            PromptError: no outline.
        """
        if not outline.strip():
            raise PromptError("a paragraph to insert has no outline; say what it should be about")
        text = _WORDS[self.language]["insert"].format(before=before, after=after, outline=outline)
        return self._plain("insert", [text], Decoding(new_tokens=500))

    def _change(self, step: str, text: str, material: str) -> Prompt:
        words = _WORDS[self.language]
        using = words["using"].format(material=material) if material.strip() else ""
        return self._plain(step, [words[step].format(text=text) + using], Decoding(new_tokens=500))

    def text_of(self, answer: str) -> str:
        """The lines of an answer without headings, marks of lists, and lines without a letter or digit."""
        lines = [line for line in until_end(answer).split("\n") if re.search(r"\w", line)]
        texts = [line for line in lines if not _HEADING.fullmatch(line)]
        return "\n".join(_LIST.sub("", line).strip() for line in texts)

    def spots_of(self, answer: str, paragraphs: int) -> tuple[int, ...]:
        """Marks such as <Seg0>, or else bare numbers."""
        found = super().spots_of(answer, paragraphs)
        if found or "<Seg" in answer:
            return found
        numbers = {int(number) for number in _SPOT.findall(until_end(answer))}
        return tuple(sorted(place for place in numbers if place < paragraphs))

    def caption_of(self, answer: str) -> str:
        """The first line without quotation marks."""
        lines = [line for line in until_end(answer).split("\n") if line.strip()]
        return _LEAD.sub("", lines[0]).strip(_QUOTES)[:_LONGEST_CAPTION] if lines else ""

    def choice_of(self, answer: str, candidates: int) -> int | None:
        """A letter that the answer begins with, or else the only one that stands in it; not the article of "A bridge"."""
        text = until_end(answer)
        first = _FIRST.match(text)
        named = {first[1]} if first else set(_LETTER.findall(text))
        place = LETTERS.index(named.pop()) if len(named) == 1 else candidates
        return place if place < candidates else None


def plain_style(language: str = "en", *, room: int = 8192, per_picture: int = 300) -> PlainStyle:
    """The style of a language.

    Args:
        language: ``en`` or ``zh``.
        room: Positions that a prompt may take.
        per_picture: Positions of a picture.

    Raises:
        ConfigError: another language.
    """
    if language not in ("en", "zh"):
        raise ConfigError(f"language '{language}'; plain questions are asked in en or zh")
    chosen: Language = "zh" if language == "zh" else "en"
    return PlainStyle(
        name=f"plain {chosen}",
        mark="<image>",
        room=room,
        per_picture=per_picture,
        query_limit=200,
        second=True,
        language=chosen,
    )
