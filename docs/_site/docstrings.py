"""An extension of griffe: docstrings with the roles of Sphinx, as help() shows them, in Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class Roles(Extension):
    """``:class:`name``` becomes ``name`` in code, and a double colon before a block a single one."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Called for each object that has been read."""
        if obj.docstring is not None:
            text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE)
