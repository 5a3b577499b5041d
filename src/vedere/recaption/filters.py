"""Which captions are clean enough to train on: named pure functions of a text.

EViP's semantic stage (Mono-InternVL, arXiv 2410.08202, sec. 3.3) learns from captions that a model wrote instead of the noisy
labels of S1.1. What a model writes is noisy in other ways: it refuses, loops, is cut off, answers in another language, or says
what would be true of any picture. The paper does not publish its filters; these are ours. `verdict` names the first one that
an answer fails, in the order of `FILTERS`; `too_often` looks at all captions of a set.

Boundaries: the language is judged by script, so French passes as English; "says nothing" and "refusal" know phrases of English
and Chinese only.

Cost: some 50 us an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from vedere.answers import normalise
from vedere.config import check_ranges
from vedere.errors import ConfigError

Language = Literal["en", "zh", "any"]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Limits of the filters.

    Attributes:
        least_words: Fewest words of a caption; a Chinese character counts as one.
        most_words: Most words.
        repeated: Largest share of its runs of three words that a caption may have said before.
        language: Script that the letters should have: Latin (``en``), Han (``zh``), or any.
        share: Least share of the letters in that script.
        equal: Most pictures of a set that may have the same caption; later ones are dropped.
    """

    least_words: int = 2
    most_words: int = 120
    repeated: float = 0.3
    language: Language = "en"
    share: float = 0.8
    equal: int = 3

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a number out of range.
        """
        check_ranges(self, least_words=1, most_words=self.least_words, repeated=0, share=0, equal=1)
        if max(self.repeated, self.share) > 1:
            raise ConfigError(f"repeated {self.repeated}, share {self.share}; expected shares between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a filter looks at.

    Attributes:
        text: The answer, cleaned.
        complete: The model ended by itself and not at the limit of tokens.
        blind: What the model says, cleaned, to the same question about a plain grey picture; "" if it was not asked.
    """

    text: str
    complete: bool = True
    blind: str = ""


_LEAD = re.compile(r"^(?:(?:caption|description|answer|标题|描述|答案)\s*[:：]\s*)+", re.IGNORECASE)
_QUOTES = ('""', "''", "“”", "‘’", "「」", "``")
_WORD = re.compile(
    r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+(?:['’-][^\W_]+)*"
)

_REFUSALS = re.compile(
    r"""^\W*(?:i['’]?\s?a?m\s+(?:really\s+|very\s+|so\s+)?(?:sorry|unable|afraid)|sorry\b|(?:my\s+)?apolog|unfortunately\b
    |as\s+an?\s+(?:ai|artificial|language\s+model|large\s+language)
    |i\s+(?:can['’]?\s?not|can['’]?t|could\s+not|couldn['’]?t|won['’]?t|will\s+not|do\s+not|don['’]?t|am\s+not\s+able)\b
    |(?:no|there\s+is\s+no|there['’]s\s+no)\s+(?:image|picture|photo)\w*\s+(?:\w+\s+){0,2}(?:provided|attached|given|uploaded|visible)
    |please\s+(?:provide|upload|attach|share)
    |(?:很?抱歉|对不起|无法|我无法|我不能|作为一个?(?:人工智能|语言模型|ai)|请提供|请上传))""",
    re.IGNORECASE | re.VERBOSE,
)
_INABILITY = re.compile(
    r"\b(?:can(?:not|['’]t| not)|unable to|not able to)\s+(?:actually\s+|directly\s+)?"
    r"(?:see|view|access|analy[sz]e|describe|identify|assist|help)\b",
    re.IGNORECASE,
)

# Words that are true of any picture; a caption made of these alone says nothing.
_EMPTY_WORDS = frozenset(
    """a an the this that these those it its there here i you we one some of in on at to with and or for by from as is are
    was be being been has have can could may might see seen sees look looks looking like show shows shown showing display
    displays displayed displaying depict depicts depicted depicting contain contains containing feature features featuring
    describe describes present presents appear appears visible picture pictures image images photo photos photograph
    photographs view scene something thing things object objects item items stuff various different several
    many what which caption description untitled unknown not sure no""".split()  # noqa: SIM905
)  # fmt: skip
_EMPTY_CHINESE = frozenset("这那是的一张幅个有些在中里上图片画照像展示显示了着某东西物体描述我看到")


def clean(text: str) -> str:
    """The caption without what is no part of it: line breaks, surrounding quotation marks, a leading "Caption:". Idempotent."""
    before = None
    while text != before:
        before, text = text, _LEAD.sub("", " ".join(text.split()))
        if len(text) > 1 and text[0] + text[-1] in _QUOTES and text[0] not in text[1:-1]:
            text = text[1:-1]
    return text


def words(text: str) -> list[str]:
    """Words in lower case; each Chinese character is one."""
    return [word.lower() for word in _WORD.findall(text)]


def length(caption: Caption, config: FilterConfig) -> bool:
    """Too few or too many words."""
    return not config.least_words <= len(words(caption.text)) <= config.most_words


def repetition(caption: Caption, config: FilterConfig) -> bool:
    """The same again: one word four times in a row, or too many of its runs of three words said before."""
    found = words(caption.text)
    if any(len(set(found[place : place + 4])) == 1 for place in range(len(found) - 3)):
        return True
    runs = [tuple(found[place : place + 3]) for place in range(len(found) - 2)]
    return len(runs) >= 4 and 1 - len(set(runs)) / len(runs) > config.repeated


def refusal(caption: Caption, config: FilterConfig) -> bool:
    """The model declines, apologises, or says that it cannot see."""
    return bool(_REFUSALS.search(caption.text) or _INABILITY.search(caption.text))


def language(caption: Caption, config: FilterConfig) -> bool:
    """Too few letters of the wanted script; a caption without letters has none of it."""
    if config.language == "any":
        return False
    letters = [character for character in caption.text if character.isalpha()]
    script = "LATIN" if config.language == "en" else "CJK"
    right = sum(unicodedata.name(character, "").startswith(script) for character in letters)
    return not letters or right / len(letters) < config.share


def cut_off(caption: Caption, config: FilterConfig) -> bool:
    """The limit of tokens ended it."""
    return not caption.complete


def says_nothing(caption: Caption, config: FilterConfig) -> bool:
    """True of any picture: only words such as "this is an image of", or what the model says about a plain grey one."""
    if caption.blind and normalise(caption.text) == normalise(caption.blind):
        return True
    return all(word in _EMPTY_WORDS or word in _EMPTY_CHINESE for word in words(caption.text))


Filter = Callable[[Caption, FilterConfig], bool]

FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "cut off": cut_off,
        "refusal": refusal,
        "says nothing": says_nothing,
        "repetition": repetition,
        "language": language,
        "length": length,
    }
)
"""Each says whether a caption must go; what they are called is the reason that is written down."""
DUPLICATE = "duplicate"
"""The reason of captions that too many pictures of the set have."""


def verdict(caption: Caption, config: FilterConfig) -> str:
    """The name of the first filter that the caption fails; "" if it passes all."""
    return next((name for name, fails in FILTERS.items() if fails(caption, config)), "")


def too_often(texts: Sequence[str], equal: int) -> list[bool]:
    """For each caption whether ``equal`` earlier ones have the same normal form (`vedere.answers.normalise`)."""
    seen: Counter[str] = Counter()
    found = []
    for text in texts:
        key = normalise(text) or text
        found.append(seen[key] >= equal)
        seen[key] += 1
    return found
