"""Tables that imaging reads, made of plain values."""

import pandas as pd


def images_table(paths, statuses=None):
    rows = [
        {"post_id": post_id, "status": status, "reason": "" if status == "ok" else "gone", "path": path}
        for (post_id, path), status in zip(paths.items(), statuses or ["ok"] * len(paths), strict=True)
    ]
    return pd.DataFrame(rows).assign(md5=None, sha256=None, file_size=pd.array([pd.NA] * len(rows), dtype="Int64"))


def tags_table(tags):
    """`post_tags` of a mapping from post ids to tags."""
    rows = [(post_id, tag, "general") for post_id, own in tags.items() for tag in own]
    return pd.DataFrame(rows, columns=["post_id", "tag", "category"])
