"""What the page says, in English and Chinese."""

from __future__ import annotations

from typing import Literal

from vedere.config import nearest
from vedere.errors import ConfigError

Language = Literal["en", "zh"]

_WORDS: dict[str, tuple[str, str]] = {
    "tagline": ("illustrated articles", "图文创作"),
    "language": ("中文", "English"),
    # the brief
    "brief": ("What to write", "写作要求"),
    "title": ("Title", "标题"),
    "title_hint": ("A walk around West Lake", "西湖漫步"),
    "outline": ("Outline", "大纲"),
    "outline_hint": ("What the article should say, in order", "文章依次要写的内容"),
    "requirements": ("Requirements", "其他要求"),
    "requirements_hint": ("Style, length, readers", "风格、长度、读者"),
    "material": ("Reference text", "参考材料"),
    "material_hint": ("Facts to draw on", "可供引用的素材"),
    "own": ("Pictures of your own (at most 10, used instead of the gallery)", "自己的图片（最多10张，将代替图库）"),
    "number": ("Pictures", "配图数量"),
    "model_decides": ("as the model sees fit", "由模型决定"),
    "no_pictures": ("none", "不配图"),
    "generate": ("Write the article", "生成文章"),
    "stop": ("Stop", "停止"),
    # the article
    "undo": ("Undo", "撤销"),
    "redo": ("Redo", "重做"),
    "proceed": ("Continue writing", "续写"),
    "illustrate": ("Place pictures", "自动配图"),
    "files": ("Files", "文件"),
    "save": ("Save", "保存"),
    "open": ("Open", "打开"),
    "open_saved": ("Open a saved article", "打开已保存的文章"),
    "export": ("Export", "导出"),
    "edit_title": ("Edit the title", "编辑标题"),
    "edit_paragraph": ("Edit paragraph {}", "编辑第{}段"),
    "picture_of": ("picture of paragraph {}", "第{}段的配图"),
    "no_picture": ("no picture", "没有图片"),
    "no_place": (
        "No place for a picture was found; click a paragraph to add one there.",
        "没有找到配图的位置；可点击某一段自行添加。",
    ),
    # notes of a place, as the steps write them
    "note_empty": ("no suitable picture was found", "没有找到合适的图片"),
    "note_used": ("every candidate already stands in the article", "候选图片都已用在文章中"),
    "note_fallback": (
        "the model answered {} twice or the like: the first picture found was taken",
        "模型回答{}等，均不在选项之内：已采用搜索到的第一张图片",
    ),
    # the panel
    "hint_title": ("Nothing selected", "未选中内容"),
    "hint": (
        "Click a paragraph to edit it, have it rewritten, or change its picture.",
        "点击某一段，即可编辑、改写或更换配图。",
    ),
    "paragraph": ("Paragraph {}", "第{}段"),
    "close": ("Close", "关闭"),
    "text": ("Text", "正文"),
    "apply": ("Save text", "保存正文"),
    "delete": ("Delete", "删除"),
    "ask": ("Ask the model", "让模型来改"),
    "regenerate": ("Regenerate", "重新生成"),
    "expand": ("Expand", "扩写"),
    "rewrite": ("Rewrite", "改写"),
    "abbreviate": ("Shorten", "缩写"),
    "support": ("Material to expand or rewrite with", "扩写或改写所依据的素材"),
    "support_hint": ("optional", "可不填"),
    "proposal": ("Proposal", "建议"),
    "accept": ("Accept", "采用"),
    "discard": ("Discard", "放弃"),
    "picture": ("Picture", "配图"),
    "candidates": ("Candidates", "候选图片"),
    "candidate": ("Take picture {}", "选用第{}张"),
    "caption": ("What it should show", "图片内容"),
    "caption_hint": ("a few words to search by", "用于搜索的描述"),
    "search": ("Search", "搜索"),
    "add": ("Model chooses", "由模型配图"),
    "remove": ("Remove picture", "移除图片"),
    "upload": ("Use my own", "使用自己的图片"),
    "insert": ("New paragraph", "插入段落"),
    "where": ("Where", "位置"),
    "before": ("before this one", "在本段之前"),
    "after": ("after this one", "在本段之后"),
    "insert_text": ("Outline or text", "大纲或正文"),
    "insert_hint": ("What it is about, or the paragraph itself", "要写的内容，或段落原文"),
    "insert_write": ("Model writes it", "由模型撰写"),
    "insert_own": ("Insert as it is", "直接插入"),
    # what goes on
    "stage_write": ("Writing", "正在写作"),
    "stage_spot": ("Choosing places for pictures", "正在选择配图位置"),
    "stage_caption": ("Saying what the pictures should show", "正在构思图片内容"),
    "stage_find": ("Looking for pictures", "正在寻找图片"),
    "stage_select": ("Choosing pictures", "正在选择图片"),
    "looking": ("Looking for a picture", "正在寻找图片"),
    "working": ("Working", "处理中"),
    "saved": ("{} is ready and was downloaded.", "{} 已生成并下载。"),
    "opened": ("The article was opened.", "文章已打开。"),
    "opened_without": (
        "The article was opened; {} of its pictures are not on this computer and were left out. Captions stay: search again.",
        "文章已打开；其中{}张图片不在本机上，已略去。图片说明仍在，可重新搜索。",
    ),
    "failed": ("That did not work: {}. Nothing was lost.", "操作未成功：{}。内容没有丢失。"),
    "crashed": ("the server failed unexpectedly ({}); its log says more", "服务器意外出错（{}），详见其日志"),
}

WORDS: dict[Language, dict[str, str]] = {
    "en": {key: english for key, (english, _) in _WORDS.items()},
    "zh": {key: chinese for key, (_, chinese) in _WORDS.items()},
}


def words(language: str) -> dict[str, str]:
    """The words of a language.

    Raises:
        ConfigError: there is no such language.
    """
    for known, table in WORDS.items():
        if known == language:
            return table
    raise ConfigError(f"no language '{language}'{nearest(language, WORDS)} (languages: {', '.join(WORDS)})")
