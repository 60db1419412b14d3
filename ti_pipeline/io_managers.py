"""Tables as Parquet files under `tables/<asset>/<partition>.parquet`, held to their contracts.

Here: where tables lie, atomic writing, reading, and the metadata every table shows in the UI. Not here: what is in
them (`schemas`), or pictures, embeddings and reports (plain files, see `resources.DataStore`).
"""

import hashlib
from typing import Any

import dagster as dg
import pandas as pd
from upath import UPath

from ti_pipeline.contracts import Table
from ti_pipeline.files import fingerprint, write_parquet
from ti_pipeline.lineage import LINEAGE
from ti_pipeline.schemas import TABLES, from_arrow

__all__ = ["OPTIONAL", "ParquetTables", "Tables", "column_schema", "metadata_of"]

# Metadata of an input that may be absent: its table's empty frame is handed over instead.
OPTIONAL = {"ti_pipeline/optional": True}


class Tables:
    """Reads and writes the tables of one data folder (local or any fsspec URL)."""

    def __init__(self, root: UPath) -> None:
        """Take the folder that holds `tables/`."""
        self.root = root

    def path(self, table: str, partition: str | None) -> UPath:
        """Return where a table lies; an unpartitioned one is `tables/<asset>.parquet`."""
        folder = self.root / "tables"
        return folder / f"{table}.parquet" if partition is None else folder / table / f"{partition}.parquet"

    def write(self, table: str, partition: str | None, frame: pd.DataFrame) -> UPath:
        """Write a frame under its contract, aside and then renamed. Raises `TableError` when it does not meet it."""
        arrow, path = TABLES[table].to_arrow(frame), self.path(table, partition)
        write_parquet(path, arrow)
        return path

    def version(self, table: str, partition: str | None) -> str:
        """Return the sha256 of a stored table's file: the same for the same content."""
        return hashlib.sha256(self.path(table, partition).read_bytes()).hexdigest()

    def read(self, table: str, partition: str | None) -> pd.DataFrame | None:
        """Return a stored table, or None where it was never written."""
        import pyarrow.parquet as pq

        path = self.path(table, partition)
        if not path.exists():
            return None
        with path.open("rb") as stream:
            return from_arrow(pq.read_table(stream))


def column_schema(table: Table) -> dg.TableSchema:
    """Return a contract as Dagster shows it."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, c.kind, c.meaning, dg.TableColumnConstraints(nullable=c.nullable))
            for c in table.columns
        ]
    )


def metadata_of(table: str, frame: pd.DataFrame, path: UPath) -> dict[str, Any]:
    """Return what the UI shows of every table: rows, columns with meanings, column lineage, a preview, the file."""
    lineage = {
        column: [dg.TableColumnDep(dg.AssetKey(asset), source) for asset, source in sources]
        for column, sources in LINEAGE.get(table, {}).items()
    }
    return {
        "dagster/row_count": len(frame),
        "dagster/column_schema": column_schema(TABLES[table]),
        "dagster/column_lineage": dg.TableColumnLineage(lineage),
        "path": dg.MetadataValue.path(str(path)),
    }


class ParquetTables(dg.ConfigurableIOManager):
    """Stores a frame per partition; assets that may run over a range hand over `{partition key: frame}`."""

    url: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Record what has changed in study files, before the run records what it was made of."""
        from ti_pipeline.assets.study import observe, studies_of_run

        if context.instance is not None and context.run is not None:
            observe(context.instance, studies_of_run(context.run.tags))

    @property
    def tables(self) -> Tables:
        """Return the tables of this store's data folder."""
        return Tables(UPath(self.url))

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame | dict[str, pd.DataFrame]) -> None:
        """Write every partition's frame; each is whole before the next begins."""
        table = context.asset_key.path[-1]
        if isinstance(obj, dict) and not obj:
            raise ValueError(f"{table}: the partitions of this run select nothing; name them in the order of the study")
        by_key = obj if isinstance(obj, dict) else {self._only_key(context): obj}
        versions = list[str]()
        for key, frame in by_key.items():
            path = self.tables.write(table, key, frame)
            versions.append(self.tables.version(table, key))
            metadata = metadata_of(table, frame, path)
            if key is None or len(by_key) == 1:
                context.add_output_metadata(metadata)
            else:
                context.step_context.add_asset_metadata(
                    asset_key=context.asset_key, partition_key=key, metadata=metadata
                )
        # Dagster keeps one version for all partitions of a run: that of all their tables together.
        version = versions[0] if len(versions) == 1 else fingerprint(versions)
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the frame of an input, or `{partition key: frame}` where the asset asks for a dict."""
        table = context.asset_key.path[-1]
        keys: list[str | None] = [None]
        if context.has_asset_partitions:  # in the order of the study's file, which Dagster's subsets do not keep
            wanted = set(context.asset_partition_keys)
            keys = [key for key in context.asset_partitions_def.get_partition_keys() if key in wanted]
        frames = {key: self._read(table, key, context) for key in keys}
        found = {key: frame for key, frame in frames.items() if frame is not None}
        if _wants_dict(context):
            return found
        return found[keys[0]] if found else TABLES[table].empty()

    def _read(self, table: str, key: str | None, context: dg.InputContext) -> pd.DataFrame | None:
        frame = self.tables.read(table, key)
        if frame is None and not (context.definition_metadata or {}).get("ti_pipeline/optional"):
            path = self.tables.path(table, key)
            raise FileNotFoundError(
                f"{path} is not there: materialize {table}{f' for {key}' if key else ''} first"
                " (jobs: prepare for a study, train for a variant, evaluate for a variant)"
            )
        return frame

    @staticmethod
    def _only_key(context: dg.OutputContext) -> str | None:
        return context.asset_partition_key if context.has_asset_partitions else None


def _wants_dict(context: dg.InputContext) -> bool:
    """Tell whether the input is annotated as a dict: several partitions, keyed by partition."""
    hint = context.dagster_type.typing_type
    return hint is dict or getattr(hint, "__origin__", None) is dict
