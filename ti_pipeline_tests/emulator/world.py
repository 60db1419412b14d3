"""A cheap world for the emulator: any number of posts in the site's full record, with the traits of real ones.

Everything follows from the seed. Pictures are noise, made in no time. Not here: the drawn world (`ti_pipeline.demo`).
"""

from __future__ import annotations

import datetime
import hashlib
import random
import struct
import zlib
from typing import Any

from ti_pipeline_tests.emulator.records import FLAGS

# Odd names that the site really has: a control character, bidirectional marks, quotes, parentheses, other scripts.
ODD_TAGS = ("\x0b", "\u202eright_to_left\u202c", '"quoted"', "pokémon", "blep_(gesture)", ":3", "16:9", "日本語_text")
_START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_ZONES = (-5, -4, 0, 3)
_STILL, _MOVING = ("png", "png", "jpg", "gif", "webp"), ("webm", "mp4", "swf")


def plain_world(count: int, seed: int = 0, first_id: int = 1) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return records, and pictures by md5: a few posts in a hundred are of each awkward sort (see `plain_post`)."""
    posts = [plain_post(first_id + number, seed) for number in range(count)]
    return [record for record, _ in posts], {record["file"]["md5"]: data for record, data in posts}


def plain_post(post_id: int, seed: int = 0) -> tuple[dict[str, Any], bytes]:
    """Return one post and its picture: sometimes deleted, unapproved, moving, without a link, or in the old record."""
    chance = random.Random(f"{seed} {post_id}")
    data = picture(chance.randrange(4, 40), chance.randrange(4, 40), chance.randrange(2**32))
    deleted, up, down = chance.random() < 0.03, chance.randrange(200), -chance.randrange(20)
    created = _START + datetime.timedelta(minutes=7 * post_id)
    record = {
        "id": post_id,
        "created_at": _moment(created, chance),
        "updated_at": None if chance.random() < 0.1 else _moment(created + datetime.timedelta(days=1), chance),
        **_files(data, chance),
        "score": {"up": up, "down": down, "total": up + down + (chance.random() < 0.1)},
        "tags": _tags(chance),
        "locked_tags": ["conditional_dnp"] if chance.random() < 0.01 else [],
        "change_seq": post_id,
        "flags": dict.fromkeys(FLAGS, False)
        | {"deleted": deleted, "pending": chance.random() < 0.02, "flagged": chance.random() < 0.02},
        "rating": chance.choices("sqe", (8, 1, 1))[0],
        "fav_count": chance.randrange(500),
        "sources": [f"https://example.org/art/{post_id}"] if chance.random() < 0.8 else [],
        "pools": [post_id % 9 + 1] if chance.random() < 0.1 else [],
        "relationships": {
            "parent_id": post_id // 2 or None if chance.random() < 0.1 else None,
            "has_children": False,
            "has_active_children": False,
            "children": [],
        },
        "approver_id": None,
        "uploader_id": post_id % 17 + 1,
        "uploader_name": f"uploader_{post_id % 17 + 1}",
        "description": 'Said "hello",\r\nthen left.\n' if chance.random() < 0.1 else "",
        "comment_count": chance.randrange(5),
        "is_favorited": False,
        "vote": 0,
        "has_notes": False,
        "duration": None,
    }
    if chance.random() < 0.2:
        _make_old(record)
    return record, data


def picture(width: int, height: int, seed: int) -> bytes:
    """Return a PNG of grey noise."""
    chance = random.Random(seed)
    rows = b"".join(b"\0" + chance.randbytes(width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def file_of(data: bytes, ext: str = "png") -> dict[str, Any]:
    """Return a record's `file` for a picture made by `picture`."""
    md5 = hashlib.md5(data).hexdigest()
    width, height = struct.unpack(">II", data[16:24])
    url = f"https://static1.e621.net/data/{md5[:2]}/{md5[2:4]}/{md5}.{ext}"
    return {"width": width, "height": height, "ext": ext, "size": len(data), "md5": md5, "url": url}


def _files(data: bytes, chance: random.Random) -> dict[str, Any]:
    file = file_of(data, chance.choice(_STILL if chance.random() < 0.95 else _MOVING))
    link = file["url"]
    if chance.random() < 0.02:
        file["url"] = link = None
    preview = {"width": file["width"], "height": file["height"], "url": link, "alt": link}
    sample = {**preview, "has": False, "url": None, "alt": None, "alternates": {}}
    return {"file": file, "preview": preview, "sample": sample}


def _tags(chance: random.Random) -> dict[str, list[str]]:
    general = {f"tag_{int(chance.paretovariate(0.7)) % 500}" for _ in range(chance.randrange(3, 30))}
    general |= {odd for odd in ODD_TAGS if chance.random() < 0.05}
    artist = f"artist_{int(chance.paretovariate(1)) % 100}"
    return {
        "general": sorted(general),
        "artist": [artist] + (["conditional_dnp"] if chance.random() < 0.01 else []),
        "contributor": [],
        "copyright": ["some_series"] if chance.random() < 0.1 else [],
        "character": [],
        "species": sorted({"mammal", chance.choice(("wolf", "fox", "otter", "domestic_cat"))}),
        "invalid": [],
        "meta": ["hi_res"],
        "lore": [],
    }


def _make_old(record: dict[str, Any]) -> None:
    """Take away what records of 2020 lack."""
    del record["tags"]["contributor"]
    for key in ("uploader_name", "vote", "duration", "has_notes"):
        del record[key]
    for name in ("preview", "sample"):
        del record[name]["alt"]


def _moment(moment: datetime.datetime, chance: random.Random) -> str:
    zone = datetime.timezone(datetime.timedelta(hours=chance.choice(_ZONES)))
    return moment.astimezone(zone).isoformat(timespec="milliseconds")
