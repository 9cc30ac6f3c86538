"""The published formulas of Norton's loss, as docs/norton.md writes them down: what `benchmarks/losses.py`
compares with.

Every tensor of all clip pairs and all token pairs exists at once, autograd keeps what it wants, Sinkhorn runs
in the log domain.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "norton.md"
_SPACE: dict[str, Any] = {}
exec("\n".join(re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)), _SPACE)

plain_sinkhorn = _SPACE["plain_sinkhorn"]  # (..., N, M) scores -> (..., N, M) log plan
plain_token_similarity = _SPACE["plain_token_similarity"]  # (N, T, D), (N, F, D) and masks -> twice (N, N)
plain_norton = _SPACE["plain_norton"]  # batch -> loss, with the values of the published configuration
