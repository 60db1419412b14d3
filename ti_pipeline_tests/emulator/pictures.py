"""Sending files: pictures of the posts and of the export, whole or by Range, and 404 for what is gone."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ti_pipeline_tests.emulator.answers import Answer, web_page

if TYPE_CHECKING:
    from ti_pipeline_tests.emulator.answers import Request
    from ti_pipeline_tests.emulator.site import Site

_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".webm": "video/webm",
    ".mp4": "video/mp4",
    ".swf": "application/x-shockwave-flash",
    ".gz": "application/gzip",
}


def send_file(request: Request, site: Site) -> Answer:
    """Answer for a picture (found by the md5 in its name, whatever the folders say) or a file of the export."""
    path = PurePosixPath(request.path)
    if request.kind == "dump":
        body = site.exports.file(request.path)
    else:
        body = None if site.is_gone(path.stem) else site.files.get(path.stem)
    if body is None:
        return web_page(404, "Not Found")
    tag = f'"{hashlib.md5(body).hexdigest()[:16]}"'
    headers = {
        "Content-Type": _TYPES.get(path.suffix, "application/octet-stream"),
        "Accept-Ranges": "bytes",
        "ETag": tag,
    }
    if request.headers.get("if-range", tag) != tag or "range" not in request.headers:
        return Answer(200, headers, body, whole=True)
    return _ranged(request.headers["range"], headers, body)


def _ranged(wanted: str, headers: dict[str, str], body: bytes) -> Answer:
    """Answer one range as asked, everything where several or none are meant, 416 where there is nothing."""
    ends = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", wanted)
    if ends is None or not (ends[1] or ends[2]) or (ends[1] and ends[2] and int(ends[2]) < int(ends[1])):
        return Answer(200, headers, body, whole=True)
    size = len(body)
    start = int(ends[1]) if ends[1] else max(size - int(ends[2]), 0)
    stop = min(int(ends[2]) + 1, size) if ends[1] and ends[2] else size
    if start >= size or (not ends[1] and int(ends[2]) == 0):
        return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
    part = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Answer(206, part, body[start:stop], whole=stop == size)
