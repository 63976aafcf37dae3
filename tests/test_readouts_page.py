"""The code of docs/readouts.md, run from its top to its end."""

from __future__ import annotations

import re
from typing import Any

from _compile import ROOT


def test_the_code_of_the_page() -> None:
    page = (ROOT / "docs" / "readouts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(block, scope)
    assert len(blocks) == 3 and scope["logits"].shape == (32, 10)
    assert scope["total"].dtype.is_floating_point and scope["x"].grad is None
