"""Answers out of free text, for data building, training, alignment and evaluation: one place for all of them.

`general` holds vedere's own rules, `choices` the rules of the official scripts and harnesses, word for word in effect.
"""

from vedere.answers.choices import (
    first_choice,
    internvl_choice,
    kit_choice,
    kit_yes_no,
    mmmu_choice,
    mmmu_pro_choice,
)
from vedere.answers.general import (
    ANSWER_RULES_VERSION,
    NUMBER_WORDS,
    exact_match,
    first_number,
    normalise,
    option_letter,
    yes_no,
)

__all__ = [
    "ANSWER_RULES_VERSION",
    "NUMBER_WORDS",
    "exact_match",
    "first_choice",
    "first_number",
    "internvl_choice",
    "kit_choice",
    "kit_yes_no",
    "mmmu_choice",
    "mmmu_pro_choice",
    "normalise",
    "option_letter",
    "yes_no",
]
