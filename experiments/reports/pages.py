"""Pages that hold their data as JSON in a script."""

from __future__ import annotations

import json
from typing import Any

# What HTML or JavaScript would act on inside a string, as escapes that JSON reads back.
_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def script_json(content: Any) -> str:
    r"""JSON that no text in it can make end, or begin, a script or a comment of the page around it.

    Args:
      content: what the page's script reads.

    Example:
      >>> print(script_json({"name": "<!--<script>"}))
      {"name": "\u003c!--\u003cscript\u003e"}
    """
    return json.dumps(content, ensure_ascii=False).translate(_ESCAPES)
