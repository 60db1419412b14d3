"""Where the recorded real data lies, if it is here: `TI_SHARED`, or the folder `shared` beside the checkout."""

import os
from pathlib import Path

import pytest

_CANDIDATE = Path(os.environ.get("TI_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SHARED: Path | None = _CANDIDATE if (_CANDIDATE / "e621").is_dir() else None
E621 = (SHARED or _CANDIDATE) / "e621"
PICTURES = (SHARED or _CANDIDATE) / "pictures"

needs_shared = pytest.mark.skipif(SHARED is None, reason=f"recorded real data is absent (looked in {_CANDIDATE})")
