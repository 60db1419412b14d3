"""A full fetch as a process of its own, so that it can be killed: `python -m … posts|images URL FOLDER`.

`posts` searches and writes `posts.parquet`, `images` fetches the pictures of that table and writes `images.parquet`.
Either goes on where one before it was killed, by what the product itself keeps. Not here: the test (`test_soak`).
"""

import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from ti_pipeline.e621.client import E621Client
from ti_pipeline.e621.policy import load_policy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.files import write_atomically
from ti_pipeline.schemas import TABLES, from_arrow
from ti_pipeline.sources import fetch_images, fetch_posts
from ti_pipeline.studies import Source

PER_SECOND = 200.0  # only a site on this machine is asked so often
USER = "tester"


def main(phase: str, url: str, folder: Path) -> None:
    def client() -> E621Client:
        return E621Client(url, username=USER, per_second=PER_SECOND, backoff=0.0, timeout=2.0)

    def quiet(*_: object) -> None:
        """Nobody looks."""

    if phase == "posts":
        source = TypeAdapter(Source).validate_python({"kind": "e621", "query": "mammal", "limit": 100_000})
        found = fetch_posts(source, folder=folder, answers=folder / "raw", client=client, seed=1, progress=quiet)
        table = posts_table(found.records, load_policy())
    else:
        posts = from_arrow(pq.read_table(folder / "posts.parquet"))
        table = fetch_images(posts, root=folder, client=client, progress=quiet)
    with write_atomically(folder / f"{phase}.parquet") as aside:
        pq.write_table(TABLES[phase].to_arrow(table), aside)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    os._exit(0)  # open connections of threads that are idle need not be waited for
