"""Shapes: what gallery downloaders write into `<picture>.json`, one small module a site.

Here: which module reads an object. A module of this package has `matches(data)`, which tells whether an object is of
its shape, and `read(data)`, which returns the parts of an e621 record that it tells: `tags` by the site's categories,
and `rating` (s, q or e), `id`, `captions`, ... where they are known. To read another site's files, add such a module;
nothing else changes. Objects that none knows are read by their usual field names (`plain`). Not here: the text in an
object that the content policy judges (`sidecars`), or finding files (`folder`).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from ti_pipeline.sources.shapes import plain
from ti_pipeline.sources.shapes.fields import ShapeError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ShapeError", "read_object"]


def read_object(data: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a record that an object tells: always `tags`. Raises `ShapeError` for tags that are none."""
    shape = next((module for module in _shapes() if module.matches(data)), plain)
    found: dict[str, Any] = shape.read(data)
    return found


@functools.cache
def _shapes() -> tuple[ModuleType, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module for module in modules if hasattr(module, "matches"))
