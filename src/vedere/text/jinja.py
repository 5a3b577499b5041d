"""A chat template in Jinja, as native checkpoints carry it, made from the same data that `vedere.text.render` reads.

Nothing here runs Jinja. Other libraries do: `chat_template` of `tokenizer_config.json`, or `chat_template.jinja`, tells them
how to write a conversation. The native releases' own template (InternVL3 in transformers, arXiv 2504.10479) is what comes
out for ``internvl2_5``: no default system message, and a line for each picture or video, which the processor replaces.
"""

from __future__ import annotations

import json

from vedere.errors import ConfigError
from vedere.text.chat import Template

VIDEO = "<video>"
"""What stands for a video until the processor has its frames."""


def jinja_template(template: Template, *, bos: bool = False) -> str:
    """The Jinja source of a template; a system message is written only where a conversation brings one.

    A picture is written as the context token, by which the processor finds it.

    Args:
        template: The template.
        bos: Put the tokenizer's bos in front: its own way of adding one is off where a chat template is used.

    Raises:
        ConfigError: a template whose finished turns look different from the last one, which a message cannot know.
    """
    if template.bare_history or template.untagged_in_front:
        raise ConfigError(
            f"template '{template.name}' has no Jinja form: it writes history or pictures in places that a single message does "
            "not know; use vedere's renderer"
        )
    lead = template.untagged.removeprefix("<image>")
    content = (
        "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
        "{%- for item in message['content'] -%}"
        f"{{%- if item['type'] == 'image' -%}}{{{{ {_literal(template.image_context + lead)} }}}}"
        f"{{%- elif item['type'] == 'video' -%}}{{{{ {_literal(VIDEO + lead)} }}}}"
        "{%- elif item['type'] == 'text' -%}{{ item['text'] }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
    )
    forms = (
        ("if message['role'] == 'system'", template.system_header, template.system_end),
        ("elif message['role'] == 'user'", template.user_header, template.user_end),
        ("elif message['role'] == 'assistant'", template.assistant_header, template.answer_end + template.after_answer),
    )
    turns = "".join(
        f"{{%- {test} -%}}{{{{ {_literal(header)} }}}}{content}{{{{ {_literal(end)} }}}}" for test, header, end in forms
    )
    opening = f"{{%- if add_generation_prompt -%}}{{{{ {_literal(template.assistant_header)} }}}}{{%- endif -%}}"
    start = "{{ bos_token }}" if bos else ""
    return f"{start}{{%- for message in messages -%}}{turns}{{%- endif -%}}{{%- endfor -%}}{opening}"


def _literal(text: str) -> str:
    """A Jinja string."""
    return json.dumps(text, ensure_ascii=False)
