"""Answers out of free text, for data building, training, alignment and evaluation: one place for all of them.

`general` holds vedere's own rules; `choices`, `verdicts` and `open_ended` those of the official scripts and harnesses, word for
word in effect; `video_mme` those of the two Video-MME scripts; `final` finds the answer behind a reasoning.
"""

from vedere.answers.choices import (
    first_choice,
    internvl_choice,
    kit_choice,
    leading_letter,
    mmmu_choice,
    mmmu_pro_choice,
)
from vedere.answers.final import FINAL_RULES, boxed_answer, final_line
from vedere.answers.general import (
    ANSWER_RULES_VERSION,
    NUMBER_WORDS,
    exact_match,
    first_number,
    normalise,
    option_letter,
    yes_no,
)
from vedere.answers.open_ended import Normal, normal_forms, open_answers, quick_extraction
from vedere.answers.verdicts import (
    first_four,
    first_or_second,
    first_sentence,
    grade_pair,
    internvl_form,
    kit_yes_no,
    only_no,
    signs,
    unit_grade,
    yes_inside,
)
from vedere.answers.video_mme import (
    video_mme_corrected,
    video_mme_letter,
    video_mme_v2_letter,
)

__all__ = [
    "ANSWER_RULES_VERSION",
    "FINAL_RULES",
    "NUMBER_WORDS",
    "Normal",
    "boxed_answer",
    "exact_match",
    "final_line",
    "first_choice",
    "first_four",
    "first_number",
    "first_or_second",
    "first_sentence",
    "grade_pair",
    "internvl_choice",
    "internvl_form",
    "kit_choice",
    "kit_yes_no",
    "leading_letter",
    "mmmu_choice",
    "mmmu_pro_choice",
    "normal_forms",
    "normalise",
    "only_no",
    "open_answers",
    "option_letter",
    "quick_extraction",
    "signs",
    "unit_grade",
    "video_mme_corrected",
    "video_mme_letter",
    "video_mme_v2_letter",
    "yes_inside",
    "yes_no",
]
