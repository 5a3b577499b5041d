"""Every composition prompt of the published checkpoints, byte for byte (arXiv 2309.15112, sec. 3.3; 2401.16420).

The prompts are Chinese because the checkpoints were tuned on them, and they mix full-width and ASCII punctuation; a title
may ask for another language. `FIRST` is internlm-xcomposer-7b, `SECOND` internlm-xcomposer2-7b, which also has the four
operations on paragraphs. A prompt is a row of texts and pictures that ends inside the answer, where the model goes on.

The first version's selection prompt goes through a normaliser in the original that writes a second blank before the question
and its end-of-question token twice; so it stands here. The published code cuts a prompt at 1680 positions from the end, which
loses the question of a long article; the pipeline drops the oldest context instead (`vedere.compose.steps.Select`). What
repairs an answer outside the options is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vedere.compose.article import Article, Picture
from vedere.errors import ConfigError, PromptError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST_TITLE = 1000  # characters


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is decoded.

    Attributes:
        new_tokens: Most tokens of the answer.
        beams: Beams of a search; 1: none.
        sample: Draw instead of taking the best.
        repetition_penalty: 1: none.
        top_p: Mass that is drawn from.
        top_k: Tokens that are drawn from; 0: all.
        penalise_prompt: The penalty counts the prompt's tokens as well: the published code does where it asks with ids.
    """

    new_tokens: int
    beams: int = 1
    sample: bool = False
    repetition_penalty: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    penalise_prompt: bool = False


def _drawn(new_tokens: int, *, penalise_prompt: bool = False) -> Decoding:
    """How the second version decodes every answer."""
    return Decoding(
        new_tokens=new_tokens,
        sample=True,
        repetition_penalty=1.005,
        top_p=0.8,
        top_k=40,
        penalise_prompt=penalise_prompt,
    )


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model is asked.

    Attributes:
        step: Which step asks.
        parts: Texts and pictures, in order; the beginning-of-text token comes in front.
        decoding: As the published code decodes it.
        mark: How `text` writes a picture.
        question: The same without the frame of a turn, for a model that frames turns itself.
        start: How the answer has to begin, for such a model; "": as it likes.
    """

    step: str
    parts: tuple[str | Picture, ...]
    decoding: Decoding
    mark: str = "<ImageHere>"
    question: tuple[str | Picture, ...] = ()
    start: str = ""

    @property
    def text(self) -> str:
        """The prompt with a mark for every picture."""
        return "".join(part if isinstance(part, str) else self.mark for part in self.parts)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Its pictures in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What the user asks for.

    Attributes:
        title: Title.
        outline: What the article should say.
        requirements: Any other instruction: style, length, readers.
        material: Reference text.
        pictures: The user's own pictures; the second version sees them while it writes.
    """

    title: str
    outline: str = ""
    requirements: str = ""
    material: str = ""
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        """Checks the title.

        Raises:
            PromptError: none, or one that is a text of its own.
        """
        if not self.title.strip():
            raise PromptError("the article has no title; give one, or a first line that says what it is about")
        if len(self.title) > LONGEST_TITLE:
            raise PromptError(
                f"a title of {len(self.title)} characters; expected at most {LONGEST_TITLE}: put the text into outline or "
                "material"
            )

    @property
    def instruction(self) -> str:
        """Title, outline, requirements and material as one text; what is missing leaves no line."""
        parts = (self.title, self.outline, self.requirements, self.material)
        return "\n".join(part.strip() for part in parts if part.strip())


@dataclass(frozen=True, kw_only=True)
class Style:
    """The prompts of one checkpoint.

    Attributes:
        name: Its name.
        mark: How a picture is written in the demo's text.
        room: Positions that a prompt may take.
        per_picture: Positions of a picture.
        query_limit: Characters of a caption that are searched for.
        second: Prompts of the second version.
    """

    name: str
    mark: str
    room: int
    per_picture: int
    query_limit: int
    second: bool

    def _ask(
        self, step: str, question: Sequence[str | Picture], start: str, decoding: Decoding, again: str = ""
    ) -> Prompt:
        if self.second:
            head, tail = "[UNUSED_TOKEN_146]user\n", "[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n"
        else:
            head, tail = " <|User|>:", "<TOKENS_UNUSED_0> <|Bot|>:"
            if step == "select":
                head, tail = f" {head}", f"<TOKENS_UNUSED_0> {tail}"
        return Prompt(
            step=step,
            parts=merged([head, *question, again, tail, start]),
            decoding=decoding,
            mark=self.mark,
            question=merged([*question, again]),
            start=start,
        )

    def write(self, brief: Brief, so_far: str = "") -> Prompt:
        """Writes the article, or goes on after the text that is there."""
        if self.second:
            asked: list[str | Picture] = [part for picture in brief.pictures for part in (picture, " ")]
            question = [*asked[:-1], brief.instruction]  # the marks alone are stripped
            return self._ask("write", question, so_far, _drawn(4096))
        question = [f"根据给定标题写一个图文并茂，不重复的文章：{brief.instruction}\n"]
        return self._ask("write", question, so_far, Decoding(new_tokens=1000, beams=5, repetition_penalty=5.0))

    def spot(self, article: Article, number: int | None = None, pictures: Sequence[Picture] = ()) -> Prompt:
        """After which paragraphs pictures belong; ``number`` None lets the model decide."""
        full, n = numbered(article, len(article.paragraphs)), "" if number is None else str(number)
        text = f'给定文章"{full}" 根据上述文章，选择适合插入图像的{n}行'
        if self.second:
            asked: list[str | Picture] = [part for picture in pictures for part in (picture, " ")]
            return self._ask("spot", [*asked, text], "适合插入图像的行是", _drawn(200, penalise_prompt=not pictures))
        return self._ask("spot", [f"{text} \n"], "适合插入图像的行是", Decoding(new_tokens=300, beams=5))

    def caption(self, article: Article, place: int, past: Sequence[tuple[int, str]], *, added: bool = False) -> Prompt:
        """What the picture behind a paragraph shows, after the captions that are there.

        Args:
            article: What is written.
            place: The paragraph.
            past: (paragraph, caption) of other pictures.
            added: A picture is added to a finished article: there the first version's demo asks with ids, too, so its penalty
                of 5 counts the prompt.
        """
        context = numbered(article, place + 2)  # one paragraph of look-ahead
        told = "".join(f'<Seg{where}>后插入图像对应的标题是"{caption}"， ' for where, caption in past)
        told = f"现在{told[:-2]}。" if told else ""
        text = f'给定文章"{context}" {told}给出适合在<Seg{place}>后插入的图像对应的标题。'
        if self.second:
            return self._ask("caption", [text], '标题是"', _drawn(200, penalise_prompt=True))
        decoding = Decoding(new_tokens=100, repetition_penalty=5.0, penalise_prompt=added)
        return self._ask("caption", [f" {text} \n"], ' 标题是"', decoding)

    def select(self, context: Sequence[str | Picture], candidates: Sequence[Picture], repair: bool = False) -> Prompt:
        """Multiple choice: the text up to the place with the pictures chosen before, then the candidates.

        Args:
            context: Texts that end with their line break, and between them the chosen pictures.
            candidates: What to choose from, lettered from A.
            repair: Say once more that a letter is expected (not a published prompt).
        """
        parts: list[str | Picture] = ["根据给定上下文和候选图像，选择合适的配图：", *context]
        parts.append("候选图像包括: " if self.second else "\n\n候选图像包括: ")
        for number, picture in enumerate(candidates):
            parts += ["\n" if self.second and number else "", f"{LETTERS[number]}.", picture]
            parts += [] if self.second else ["\n"]
        parts += [] if self.second else ["\n"]
        again = f"只回答一个字母：{'、'.join(LETTERS[: len(candidates)])}。" if repair else ""
        decoding = _drawn(10) if self.second else Decoding(new_tokens=10, beams=5)
        return self._ask("select", parts, "最合适的图是", decoding, again)

    def expand(self, text: str, material: str = "") -> Prompt:
        """A longer form of a paragraph."""
        return self._operation("expand", f"扩写以下段落：{text}\n基于以下素材：{material}")

    def rewrite(self, text: str, material: str = "") -> Prompt:
        """Another form of a paragraph."""
        return self._operation("rewrite", f"改写以下段落：{text}\n基于以下素材：{material}")

    def abbreviate(self, text: str) -> Prompt:
        """A shorter form of a paragraph."""
        return self._operation("abbreviate", f"缩写以下段落：{text}")

    def insert(self, before: str, after: str, outline: str) -> Prompt:
        """A paragraph between two others, of which one may be empty.

        Raises:
            PromptError: no outline.
        """
        if not outline.strip():
            raise PromptError("a paragraph to insert has no outline; say what it should be about")
        text = f"在以下两段中插入一段。\n第一段：{before}\n第二段：{after}\n插入段的大纲：{outline}"
        return self._operation("insert", text)

    def text_of(self, answer: str) -> str:
        """What an answer says: as `until_end`."""
        return until_end(answer)

    def spots_of(self, answer: str, paragraphs: int) -> tuple[int, ...]:
        """Places in an answer to `spot`: as `read_spots`."""
        return read_spots(answer, paragraphs)

    def caption_of(self, answer: str) -> str:
        """The caption in an answer to `caption`: as `read_caption`."""
        return read_caption(answer)

    def choice_of(self, answer: str, candidates: int) -> int | None:
        """The choice in an answer to `select`: as `read_choice`."""
        return read_choice(answer, candidates)

    def _operation(self, step: str, text: str) -> Prompt:
        if not self.second:
            raise ConfigError(
                f"'{self.name}' was not tuned to {step} paragraphs; use the second version's prompts (SECOND), or "
                "regenerate or edit the paragraph"
            )
        return self._ask(step, [text], "", _drawn(500))


FIRST = Style(name="xcomposer", mark="<ImageHere>", room=1680, per_picture=66, query_limit=53, second=False)
SECOND = Style(name="xcomposer2", mark="<image>", room=4096, per_picture=256, query_limit=53, second=True)

_MARKS = ("<TOKENS_UNUSED_0>", "<TOKENS_UNUSED_1>", "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]", "</s>")
_ENDS = re.compile("|".join(map(re.escape, _MARKS)))
_STARTS = {size: tuple(mark[:size] for mark in _MARKS if size < len(mark)) for size in range(1, max(map(len, _MARKS)))}
_SEGMENT = re.compile(r"<Seg(\d+)>")


def merged(parts: Sequence[str | Picture]) -> tuple[str | Picture, ...]:
    """Neighbouring texts joined, empty ones dropped."""
    merged: list[str | Picture] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return tuple(merged)


def numbered(article: Article, end: int) -> str:
    """The first ``end`` paragraphs with their numbers, one a line."""
    return "".join(f"<Seg{place}> {paragraph.text}\n" for place, paragraph in enumerate(article.paragraphs[:end]))


def until_end(answer: str) -> str:
    """An answer up to its first end-of-turn token."""
    return _ENDS.split(answer, maxsplit=1)[0]


def whole_marks(answer: str) -> str:
    """An answer that is still being written without a last part that may become an end-of-turn token."""
    longest = min(len(answer), max(_STARTS))
    return next((answer[:-size] for size in range(longest, 0, -1) if answer.endswith(_STARTS[size])), answer)


def read_spots(answer: str, paragraphs: int) -> tuple[int, ...]:
    """Places in an answer to `Style.spot`, in reading order; repeated ones and such outside the article are dropped."""
    found = {int(number) for number in _SEGMENT.findall(until_end(answer)) if len(number) < 9}
    return tuple(sorted(place for place in found if place < paragraphs))


def read_caption(answer: str) -> str:
    """The caption in an answer to `Style.caption`: up to the closing quotation mark."""
    return until_end(answer).split('"', 1)[0].strip()


def read_choice(answer: str, candidates: int) -> int | None:
    """The index that an answer to `Style.select` names by its first letter; None where it names none of them."""
    letter = until_end(answer).strip()[:1]
    place = LETTERS.find(letter) if letter else -1
    return place if 0 <= place < candidates else None
