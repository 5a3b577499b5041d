"""What errors say on the page, in the visitor's language.

An error is raised in English, by rooms that know no page, and says what was given, what was expected and what to change. Here
stands the Chinese of those that a visitor can cause, by the English text with holes. What fills a hole is put into the Chinese
one, translated itself where it is such a text. An error that is not here stays English inside the Chinese frame, which is
better than no reason.

Which errors have to be here is a test's business (`tests/serve/test_error_words.py`): all that desk, page, shelf, editor and
prompts raise.
"""

from __future__ import annotations

import functools
import re

_CHINESE: tuple[tuple[str, str], ...] = (
    # the desk and the page
    (
        "the model answered nothing; ask again, or write the paragraph yourself",
        "模型没有给出内容；请重试，或自行撰写该段",
    ),
    ("there is no proposal; ask for one first", "目前没有建议；请先让模型给出建议"),
    ("the proposal was emptied; discard it, or delete the paragraph", "建议内容为空；请放弃该建议，或删除该段"),
    ("{} pictures of your own; expected at most {}: leave some out", "自己的图片有{0}张，最多{1}张；请减少一些"),
    ("a search without words; say what the picture should show", "搜索内容为空；请描述图片应展示什么"),
    (
        "there is no article yet; give a title and generate one, or open a saved one",
        "还没有文章；请填写标题并生成，或打开已保存的文章",
    ),
    ("no paragraph is selected; click one first", "未选中段落；请先点击某一段"),
    (
        "there is no gallery to search; bring pictures of your own, or start with --gallery DIR",
        "没有可搜索的图库；请使用自己的图片，或以 --gallery DIR 启动",
    ),
    ("the article is being written; wait for its end, or stop it", "文章正在生成；请等待完成，或先停止"),
    (
        "no further place for a picture was found; click a paragraph to add one there",
        "没有找到新的配图位置；可点击某一段自行添加",
    ),
    ("the page has not connected yet; try again in a moment", "页面尚未连接；请稍后再试"),
    ("the text is empty; write some, or delete the paragraph", "正文为空；请填写内容，或删除该段"),
    ("a click on {}; expected a number", "点击的内容为{0}；应为编号"),
    ("'{}' is no picture that can be used: {}", "“{0}”不是可用的图片：{1}"),
    # paragraphs and pictures
    (
        "the model wrote no text for paragraph {}; ask again, or edit it",
        "模型没有为第{0}段写出内容；请重试，或自行编辑",
    ),
    (
        "the model has nothing more to write; insert a paragraph with an outline instead",
        "模型没有更多内容可写；可插入段落并给出大纲",
    ),
    (
        "paragraph {} has a picture already; swap it, search again, or remove it first",
        "第{0}段已有配图；请更换、重新搜索，或先移除",
    ),
    ("paragraph {} has no picture; add one first", "第{0}段没有配图；请先添加"),
    ("candidate {} of {} was chosen; expected 0 to {}, or none", "选择了第{0}个候选，共{1}个；应为0至{2}，或不选"),
    ("paragraph {} of an article of {}; expected 0 to {}", "指定了第{0}段，文章共{1}段；应为0至{2}"),
    ("place {} in an article of {} paragraphs; expected 0 to the number", "指定了位置{0}，文章共{1}段；应为0至段数"),
    ("an article without a title; give it some words", "文章没有标题；请填写标题"),
    ("an empty paragraph was to be inserted; give it some text", "要插入的段落为空；请填写内容"),
    ("nothing to undo: this is the first state of the article", "没有可撤销的操作：这是文章的最初状态"),
    ("nothing to redo: this is the newest state of the article", "没有可重做的操作：这是文章的最新状态"),
    # what is asked of the model
    (
        "the article has no title; give one, or a first line that says what it is about",
        "文章没有标题；请填写标题，或用首行说明主题",
    ),
    (
        "a title of {} characters; expected at most {}: put the text into outline or material",
        "标题有{0}个字符，最多{1}个；请将内容移至大纲或参考材料",
    ),
    ("a paragraph to insert has no outline; say what it should be about", "要插入的段落没有大纲；请说明其内容"),
    (
        "'{}' was not tuned to {} paragraphs; use the second version's prompts (SECOND), or regenerate or edit the paragraph",
        "“{0}”未针对该段落操作（{1}）训练；请重新生成或自行编辑该段，或换用第二版模型",
    ),
    ("the model wrote no text for '{}'; ask again, or give an outline", "模型没有为“{0}”写出内容；请重试，或给出大纲"),
    (
        "'{}' sees no pictures, and the step '{}' shows {}; load a model that sees, or let retrieval choose",
        "“{0}”不能看图，而步骤“{1}”包含{2}张图片；请换用能看图的模型，或由检索结果决定",
    ),
    ("the endpoint gave no answer to the step '{}': {}", "远程模型没有回应步骤“{0}”：{1}"),
    (
        "{}: the prompt takes {} tokens up to position {} and {} new tokens were asked for: {} positions, but the model "
        "has {}; {} (fewer tiles or frames, less history)",
        "提示共{1}个词元，另需生成{3}个，总计{4}个位置，而模型只有{5}个；请缩短文章、要求或参考材料，或减少图片",
    ),
    # files
    (
        "{}: version {} of an article; expected {}: a file that `Document.save` wrote",
        "{0}：文章文件的版本为{1}，应为{2}",
    ),
    (
        "{}: state {} of {}; the file was changed by hand: correct 'at'",
        "{0}：状态{1}超出范围（共{2}个）；文件被手动改动过",
    ),
    ("the article {} cannot be read ({}); check the path", "无法读取文章{0}（{1}）；请检查路径"),
    ("{} is no JSON ({}); give a file that `Document.save` wrote", "{0}不是JSON（{1}）；请打开由本页保存的文件"),
    (
        "DOCX needs the package python-docx; install it with: pip install 'vedere[compose]'",
        "导出DOCX需要python-docx；请在服务器上运行：pip install 'vedere[compose]'",
    ),
    (
        "picture '{}' ({}) cannot be read ({}); swap it, or put the file back and export again",
        "图片“{0}”（{1}）无法读取（{2}）；请更换图片，或恢复文件后重新导出",
    ),
    ("{} is empty (0 bytes); fetch or write it again", "{0}为空文件；请重新获取"),
    (
        "{} has {} bytes; at most {} are opened as a picture: is it a video or archive?",
        "{0}有{1}字节，图片最多{2}字节；它可能是视频或压缩包",
    ),
    ("{} is {} x {} px; expected both sides >= 1", "{0}的尺寸为{1}×{2}像素；两边都应不小于1"),
    (
        "{} is {} x {} = {} px; at most {} are decoded: make it smaller, or raise max_pixels if you trust it",
        "{0}的尺寸为{1}×{2}，共{3}像素，最多{4}像素；请缩小图片",
    ),
    (
        "{} is not a picture that can be read; expected one of {}, whole and undamaged",
        "{0}不是可读取的图片；支持的格式：{1}，且文件须完整",
    ),
    ("{} has a damaged header ({}); write the picture again", "{0}的文件头已损坏（{1}）；请重新保存该图片"),
    (
        "{} cannot be decoded ({}); the file is truncated or damaged: fetch or write it again",
        "{0}无法解码（{1}）；文件不完整或已损坏，请重新获取",
    ),
    ("{} does not exist; check the path", "{0}不存在；请检查路径"),
)


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile("(.*?)".join(map(re.escape, english.split("{}"))), re.DOTALL), chinese)
        for english, chinese in _CHINESE
    )


def told(error: str, language: str) -> str:
    """The text of an error in a language of the page; as it is where there is no other."""
    if language != "zh":
        return error
    for pattern, chinese in _patterns():
        found = pattern.fullmatch(error)
        if found:
            return chinese.format(*(told(part, language) for part in found.groups()))
    return error
