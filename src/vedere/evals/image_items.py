"""Rows of image benchmarks to items: which field of which release is the question, the options, the target, the cluster.

A function a benchmark, row in, items out; each takes the names of VLMEvalKit's tables and those of the official files. The
record holds what the benchmark's pure scorer reads, under that scorer's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vedere.evals.choice import inner_options
from vedere.evals.circular import PASS, rotations
from vedere.evals.items import Item, Kind, Part, Picture
from vedere.evals.mathvista import METADATA
from vedere.evals.mmmu import subject
from vedere.evals.records import Row, listed
from vedere.evals.tables import PICTURES

COPIES = "copies"
"""Set in rows of tables that have circular copies of their own."""
Maker = Callable[[Row], Sequence[Item]]
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHOWN = ("category", "l2-category", "l2_category", "split", "task", "source", "subcategory", "type", "bench")


def pictures(row: Row, *, needed: bool = True) -> tuple[Picture, ...]:
    """Returns a row's pictures.

    Raises:
        RecordError: none, where one is needed.
    """
    found = tuple(row.data.get(PICTURES, ()))
    if needed and not found:
        raise row.fail("the row has no picture", "'image' (base64, or another row's index) or 'image_path'")
    return found


def _text(row: Row, *names: str, default: str = "") -> str:
    return row.text(*names) if row.has(*names) else default


def _letters(row: Row) -> dict[str, str]:
    """Options by letter, from fields A ..., a list, or a list's text; none if the row has none."""
    for name in ("options", "choices"):
        value = row.data.get(name)
        if value not in (None, "", [], "[]"):
            texts = value if isinstance(value, (list, dict)) else listed(value)
            return Row(row.line, {"options": texts}).options()
    if row.has("choice_a"):
        return {
            letter: row.text(f"choice_{letter.lower()}") for letter in "ABCD" if row.has(f"choice_{letter.lower()}")
        }
    return row.options() if any(row.has(letter) for letter in _ALPHABET) else {}


def _lettered(row: Row, options: dict[str, str], *names: str) -> str:
    """The right letter, in brackets or not; empty where the answer is kept back."""
    letter = _text(row, *(names or ("answer",))).strip().strip("()")
    if letter and letter not in options:
        raise row.fail(f"the answer is '{letter[:40]}'", f"one of the options' letters ({', '.join(options)})")
    return letter


def _item(row: Row, identifier: str, question: str, kind: Kind, record: dict[str, Any], **fields: Any) -> Item:
    shown = {name: row.data[name] for name in _SHOWN if isinstance(row.data.get(name), (str, int, float))}
    media: tuple[Part, ...] = fields.pop("media", None) or pictures(row)
    metadata = {**shown, **fields.pop("metadata", {})}
    return Item(id=identifier, parts=(*media, question), kind=kind, record=record, metadata=metadata, **fields)


def _kept(row: Row, *names: str) -> dict[str, Any]:
    return {name: row.data[name] for name in names if row.data.get(name) is not None}


def _whole(row: Row, *names: str) -> int:
    """A whole number, which tables hold as text."""
    text = row.text(*names)
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise row.fail(f"'{names[0]}' is '{text[:40]}'", "a whole number") from None


def mme(row: Row) -> list[Item]:
    """MME: two questions a picture, answer Yes or No."""
    picture = pictures(row)[0]
    key = _text(row, "image_path", "image") or picture.digest()
    category, answer = row.text("category"), row.text("answer")
    record = {"category": category, "image": key, "question": row.text("question"), "answer": answer}
    group = f"{category}/{key}"
    return [_item(row, row.text("index"), record["question"], "yes_no", record, target=answer, group=group)]


def circular(row: Row) -> list[Item]:
    """MMBench, MMBench-CN, CCBench: a question with its options in every rotation; copies that a table has stay."""
    options = _letters(row)
    if len(options) < 2:
        raise row.fail(f"the row has {len(options)} options", "at least two of the columns A, B, C, D with text")
    index = _whole(row, "index")
    answer = _lettered(row, options)
    passes = rotations(options, answer or next(iter(options)))
    group = _whole(row, "g_index") if row.has("g_index") else index % PASS
    items = []
    for number, (moved, letter) in enumerate(passes if _is_alone(row, index) else passes[:1]):
        target = letter if answer else ""
        own = {"index": index + number * PASS, "g_index": group, **moved, "answer": target}
        own["question"] = row.text("question")
        record = {**own, **_kept(row, "category", "l2-category", "split")}
        fields = {"options": moved, "target": target, "group": str(group), "hint": _text(row, "hint")}
        items.append(_item(row, str(own["index"]), row.text("question"), "choice", record, **fields))
    return items


def _is_alone(row: Row, index: int) -> bool:
    """Whether the table leaves the copies of this row to us."""
    return index < PASS and not row.data.get(COPIES)


def seed(row: Row) -> list[Item]:
    """SEED-Bench: image questions; video questions are left out."""
    if _text(row, "data_type", default="image") != "image":
        return []
    options = _letters(row)
    identifier = row.text("question_id", "index")
    answer = _lettered(row, options)
    choices = {f"choice_{letter.lower()}": text for letter, text in options.items()}
    record: dict[str, Any] = {"question_id": identifier, "question": row.text("question"), **choices, "answer": answer}
    record |= _kept(row, "category")
    if row.has("question_type_id"):
        record["question_type_id"] = _whole(row, "question_type_id")
    return [_item(row, identifier, row.text("question"), "choice", record, options=options, target=answer)]


def choice(row: Row) -> list[Item]:
    """AI2D, ScienceQA, RealWorldQA: options in columns, or in the question, which then is asked as it is."""
    options, identifier, question = _letters(row), _identifier(row), row.text("question")
    listed_inside = {} if options else inner_options(question)
    if not options and not listed_inside:
        raise row.fail("the row has no options", "columns A, B, ... with texts, or lines 'A. ...' in the question")
    answer = _lettered(row, options or listed_inside)
    record = {"index": identifier, "question": question, "options": options or listed_inside, "answer": answer}
    hint = _text(row, "hint")
    return [_item(row, identifier, question, "choice", record, options=options, target=answer, hint=hint)]


def _identifier(row: Row) -> str:
    return row.text("index", "id", "question_id") if row.has("index", "id", "question_id") else str(row.line)


def science(row: Row) -> list[Item]:
    """ScienceQA: questions with a picture (2,017 in the test part); official files give the answer as a number from 0 on."""
    if not row.data.get(PICTURES):
        return []
    data = dict(row.data)
    if row.has("choices") and str(data.get("answer", "")).isdigit():
        number = row.whole("answer")
        if number >= len(listed(data["choices"])):
            raise row.fail(
                f"'answer' is {number}", f"a number below {len(listed(data['choices']))}, the number of choices"
            )
        data["answer"] = _ALPHABET[number]
    return choice(Row(row.line, data))


def real_world(row: Row) -> list[Item]:
    """RealWorldQA: options, or, in the official file, a word or a number as the answer."""
    question, answer = row.text("question"), _text(row, "answer").strip()
    if _letters(row) or answer in inner_options(question):
        return choice(row)
    record = {"index": _identifier(row), "question": question, "answer": answer}
    return [_item(row, record["index"], question, "short", record, target=answer)]


def mmstar(row: Row) -> list[Item]:
    """MMStar: options inside the question, or in columns."""
    identifier, answer = row.text("index"), row.text("answer").strip()
    options = {} if "A:" in row.text("question") else _letters(row)
    record = {"index": identifier, "question": row.text("question"), "answer": answer}
    record |= _kept(row, "category", "l2_category") | ({"options": options} if options else {})
    return [_item(row, identifier, record["question"], "choice", record, options=options, target=answer)]


def ocrbench(row: Row) -> list[Item]:
    """OCRBench: text recognition and questions about text."""
    answers = listed(row.get("answers", "answer"))
    identifier = f"{_text(row, 'dataset_name')}/{row.text('id', 'index')}".strip("/")
    record = {"id": identifier, "type": row.text("type", "category"), "answers": answers}
    return [_item(row, identifier, row.text("question"), "short", record, target=answers[0])]


def mmmu(row: Row) -> list[Item]:
    """MMMU: choices and open questions, with marks ``<image k>`` in question and options."""
    options = _letters(row)
    identifier = (
        _text(row, "id") or f"{_text(row, 'split', default='validation')}_{row.text('category')}_{row.text('index')}"
    )
    kind = _text(row, "question_type", default="multiple-choice" if options else "short-answer")
    answers = listed(row.get("answer"))
    question = row.text("question")
    record: dict[str, Any] = {"id": identifier, "question": question, "question_type": kind, "answer": answers}
    if kind == "multiple-choice":
        record["index2ans"] = options
        if not set(answers) <= {*options, "?"}:
            raise row.fail(
                f"the answer is {answers}", f"one of the options' letters ({', '.join(options) or 'there are none'})"
            )
    found = options if kind == "multiple-choice" else {}
    form: Kind = "choice" if kind == "multiple-choice" else "short"
    shown = {"subject": subject(identifier)}
    return [
        _item(
            row,
            identifier,
            question,
            form,
            record,
            options=found,
            target=", ".join(answers),
            metadata=shown,
        )
    ]


def mmmu_pro(row: Row) -> list[Item]:
    """MMMU-Pro: up to ten options; in the vision part the question is in the picture."""
    options = _letters(row)
    if not options:
        raise row.fail("the row has no options", "'options', a list of texts")
    answer, question = _lettered(row, options), _text(row, "question")
    record = {"id": row.text("id"), "options": options, "answer": answer, **_kept(row, "setting")}
    identifier = "/".join(filter(None, (_text(row, "setting"), record["id"])))
    return [_item(row, identifier, question, "choice", record, options=options if question else {}, target=answer)]


def mathvista(row: Row) -> list[Item]:
    """MathVista: its ready ``query``, answers of four types."""
    identifier = row.text("pid", "id", "index")
    choices = row.data.get("choices")
    record: dict[str, Any] = {
        "pid": identifier,
        "question": row.text("query", "question"),
        "question_type": row.text("question_type"),
        "answer_type": row.text("answer_type"),
        "answer": row.text("answer"),
        "choices": listed(choices) if choices not in (None, "", []) else None,
    }
    if row.has("precision"):
        record["precision"] = _whole(row, "precision")
    metadata = row.data.get("metadata")
    more = metadata if isinstance(metadata, dict) else row.data
    for name in METADATA:
        if more.get(name) is not None:
            record[name] = listed(more[name]) if name == "skills" else more[name]
    return [_item(row, identifier, record["question"], "free", record, target=record["answer"])]


def text_vqa(row: Row) -> list[Item]:
    """TextVQA: ten human answers."""
    identifier, answers = row.text("question_id", "id", "index"), listed(row.get("answers", "answer"))
    question = row.text("question")
    record = {"id": identifier, "question": question, "answers": answers}
    group = _text(row, "image_id", "image_path")
    return [_item(row, identifier, question, "short", record, target=answers[0], group=group)]


def document(row: Row) -> list[Item]:
    """DocVQA and InfographicVQA: several right answers; none in the test parts."""
    identifier = row.text("questionid", "questionId", "id", "index")
    answers = listed(row.get("answers", "answer")) if row.has("answers", "answer") else [""]
    record = {"id": identifier, "answers": answers, **_kept(row, "answer_type", "evidence", "operation")}
    group = _text(row, "image_path", "image")
    return [_item(row, identifier, row.text("question"), "short", record, target=answers[0], group=group)]


def chart(row: Row) -> list[Item]:
    """ChartQA: human and augmented questions."""
    answer = row.text("answer", "label")
    identifier = _text(row, "id", "index") or f"{_text(row, 'split')}/{row.line}".strip("/")
    record = {"id": identifier, "answer": answer, **_kept(row, "split")}
    group = _text(row, "imgname", "image_path")
    return [_item(row, identifier, row.text("query", "question"), "short", record, target=answer, group=group)]


def hallusion(row: Row) -> list[Item]:
    """HallusionBench: yes or no; official rows without a picture are left out, as in the usual set of 951."""
    if not row.data.get(PICTURES):
        return []
    answer = {"1": "Yes", "0": "No"}.get(row.text("gt_answer", "answer").strip(), row.text("gt_answer", "answer"))
    record: dict[str, Any] = {"answer": answer, "question": row.text("question")}
    if row.has("set_id"):
        names = ("category", "subcategory", "set_id", "figure_id", "question_id")
        record |= {name: row.text(name) for name in names} | {"gt_answer": answer}
        identifier = "_".join(record[name] for name in names)
    else:
        identifier = record["index"] = row.text("index")
        record |= _kept(row, "category", "l2-category")
    question = row.text("question")
    return [_item(row, identifier, question, "yes_no", record, target=answer, group=identifier.rpartition("_")[0])]


def mmvet(row: Row) -> list[Item]:
    """MM-Vet: free answers that a judge grades."""
    identifier, answer = row.text("id", "question_id", "index"), row.text("answer")
    capability = row.data.get("capability", row.data.get("category"))
    names = (
        listed(capability)
        if isinstance(capability, list) or str(capability).startswith("[")
        else str(capability or "").split(",")
    )
    record: dict[str, Any] = {"id": identifier, "question": row.text("question"), "answer": answer}
    record |= {"capability": [name.strip() for name in names if name.strip()]}
    return [_item(row, identifier, record["question"], "free", record, target=answer)]


def llava_wild(row: Row) -> list[Item]:
    """LLaVA-Bench in the wild: free answers, compared with reference answers by a judge."""
    identifier, reference = (
        row.text("question_id", "id", "index"),
        row.text("gpt_answer", "gpt4_ans", "reference", "answer"),
    )
    record = {
        "question_id": identifier,
        "category": row.text("category"),
        "question": row.text("question", "text"),
        "caption": _text(row, "caption"),
        "reference": reference,
    }
    return [_item(row, identifier, record["question"], "free", record, target=reference)]


def pope(row: Row) -> list[Item]:
    """POPE: is there such an object? Yes or no, in three samplings."""
    answer = row.text("answer", "label")
    split = _text(row, "category", "split")
    identifier = f"{split}/{row.text('question_id', 'id', 'index')}".strip("/")
    record = {"id": identifier, "answer": answer, **({"split": split} if split else {})}
    group = _text(row, "image_path", "image", "image_source")
    return [_item(row, identifier, row.text("question", "text"), "yes_no", record, target=answer, group=group)]


def blink(row: Row) -> list[Item]:
    """BLINK: several pictures, options as a list or in columns."""
    options, identifier = _letters(row), row.text("idx", "index")
    answer = _lettered(row, options)
    task = _text(row, "task", "sub_task", "category") or subject(identifier)
    record = {
        "task": task,
        "idx": identifier,
        "question": row.text("question"),
        "options": options,
        "answer": f"({answer})",
    }
    shown = {"prompt": row.text("prompt")} if row.has("prompt") else {}
    return [
        _item(row, identifier, row.text("question"), "choice", record, options=options, target=answer, metadata=shown)
    ]


def ref_coco(row: Row) -> list[Item]:
    """RefCOCO, RefCOCO+, RefCOCOg: the box of what a sentence describes."""
    box = [float(one) for one in listed(row.get("bbox"))]
    record = {
        "image": _text(row, "image", "image_path") or str(row.line),
        "sent": row.text("sent", "question"),
        "bbox": box,
        "height": float(row.text("height")),
        "width": float(row.text("width")),
        **_kept(row, "split"),
    }
    identifier = _text(row, "index", "id") or "/".join(
        filter(None, (_text(row, "split"), record["image"], str(row.line)))
    )
    return [_item(row, identifier, record["sent"], "box", record, target=str(box), group=record["image"])]
