"""Resources: what assets may touch outside their tables: the data folder, the site, the tag catalog.

Here: configuration read from the environment and turned into plain objects. Not here: the protocol (`e621`), or
formats of what is stored.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from upath import UPath

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.e621.client import E621Client

__all__ = ["CatalogSource", "DataStore", "E621Site", "PostsDump", "data_url", "repository_root"]


def repository_root() -> Path:
    """Return the folder that holds `ti_pipeline/` and `data/`."""
    return Path(__file__).resolve().parents[1]


def data_url() -> str:
    """Return where everything is written: `TI_DATA`, or `data/store` of this checkout."""
    return os.environ.get("TI_DATA") or str(repository_root() / "data" / "store")


class DataStore(dg.ConfigurableResource[Any]):
    """The data folder: pictures, crops, embeddings, grids, reports and releases as plain files.

    Programs that draw and train work on local files. On a local folder they work in place; on a remote store (any
    fsspec URL) they work in a local mirror, which `work` fills before and sends back after.
    """

    url: str

    @property
    def is_local(self) -> bool:
        """Tell whether the data folder is a folder of this machine."""
        return UPath(self.url).protocol in ("", "file", "local")

    @property
    def root(self) -> Path:
        """Return the local folder to work in: the data folder itself, or its mirror (`TI_MIRROR`)."""
        if self.is_local:
            return Path(UPath(self.url).path).resolve()
        from ti_pipeline.files import fingerprint

        mirrors = os.environ.get("TI_MIRROR") or str(Path(tempfile.gettempdir()) / "ti_pipeline-mirror")
        return Path(mirrors) / fingerprint(self.url)[:16]

    @contextlib.contextmanager
    def work(
        self, *, reads: Sequence[str] = (), writes: Sequence[str] = (), alone: Sequence[str] = ()
    ) -> Iterator[Path]:
        """Yield the local root with the folders of `reads` in it; send those of `writes` back at the end, in order.

        What was written is sent also when the body fails: the next run goes on from there. Pictures that a purge
        removes meanwhile, on whatever machine, are not sent. `alone`: what must not be used by two at once (`turns`).
        """
        from ti_pipeline.turns import taking_turns

        with taking_turns(self.root, alone, dg.get_dagster_logger().info):
            if self.is_local:
                yield self.root
                return
            from ti_pipeline.mirror import Mirror
            from ti_pipeline.sources.purge import Purged

            mirror, before = Mirror(UPath(self.url), self.root), self._purges()
            for folder in (*reads, *writes):
                mirror.pull(folder, Purged.of(before))
            try:
                yield self.root
            finally:
                since = Purged.of(self._purges(), but_not=before)
                for folder in writes:
                    mirror.push(folder, since)

    def _purges(self) -> "pd.DataFrame | None":
        from ti_pipeline.io_managers import Tables

        return Tables(UPath(self.url)).read("purges", None)


class E621Site(dg.ConfigurableResource[Any]):
    """The site to ask, and who asks. Credentials stay in the environment."""

    url: str = "https://e621.net"

    def client(self) -> "E621Client":
        """Return a client that identifies itself. Raises `SiteError` where the environment says nothing usable."""
        from ti_pipeline.e621.client import E621Client, SiteError

        rate = os.environ.get("TI_E621_PER_SECOND") or "1"
        try:
            per_second = float(rate)
        except ValueError as error:
            raise SiteError(f"TI_E621_PER_SECOND is {rate!r}: set it to requests per second, 1 or at most 2") from error
        return E621Client(
            self.url,
            username=os.environ.get("TI_E621_USERNAME", ""),
            api_key=os.environ.get("TI_E621_API_KEY") or None,
            per_second=per_second,
        )


class CatalogSource(dg.ConfigurableResource[Any]):
    """Where tags, aliases and implications come from: a folder of the site's CSV exports, or its API."""

    folder: str | None = None


class PostsDump(dg.ConfigurableResource[Any]):
    """Where the site's posts dump lies, for studies that name none: the file, or the folder it is in."""

    path: str | None = None
