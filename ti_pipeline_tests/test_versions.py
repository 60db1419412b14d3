"""What is out of date, as Dagster itself answers it: from the tables' content and from the parts of the study file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from ti_pipeline.assets.catalog import site_catalog
from ti_pipeline.assets.posts import post_tags, posts
from ti_pipeline.assets.study import STUDY_PARTS, changed_parts, observe
from ti_pipeline.definitions import build_defs
from ti_pipeline.io_managers import ParquetTables, Tables
from ti_pipeline.partitions import STUDIES
from ti_pipeline.resources import CatalogSource, DataStore, E621Site, PostsDump
from ti_pipeline.schedules import study_files


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has the study `demo` draw so many pictures, from now on."""

    def draw(pictures: int) -> None:
        loaded = STUDIES["demo"]
        source = loaded.study.source.model_copy(update={"pictures": pictures})
        monkeypatch.setitem(STUDIES, "demo", replace(loaded, study=loaded.study.model_copy(update={"source": source})))

    draw(8)
    return draw


def make(instance: dg.DagsterInstance, root: Path, *assets: Any) -> None:
    url = str(root)
    resources = {"io_manager": ParquetTables(url=url), "store": DataStore(url=url), "e621": E621Site()}
    resources |= {"catalog_source": CatalogSource(), "posts_dump": PostsDump()}
    chosen = [site_catalog, post_tags, posts, *STUDY_PARTS]
    dg.materialize(chosen, selection=list(assets), partition_key="demo", instance=instance, resources=resources)


def causes(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    graph = build_defs().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    found = resolver.get_stale_causes(dg.AssetKey(asset), "demo")
    return {cause.dependency.asset_key.to_user_string(): cause.reason for cause in found}


def test_an_edited_study_and_another_content_make_what_follows_out_of_date(
    instance: dg.DagsterInstance, tmp_path: Path, small: Any
) -> None:
    make(instance, tmp_path, posts, post_tags)
    assert causes(instance, "posts") == causes(instance, "post_tags") == {}
    record = instance.get_latest_materialization_event(dg.AssetKey("posts")).asset_materialization
    assert record.tags["dagster/data_version"] == Tables(tmp_path).version("posts", "demo")

    small(10)
    observe(instance, {"demo": STUDIES["demo"]})
    assert causes(instance, "posts") == {"study_source": "has a new dependency data version"}
    assert causes(instance, "post_tags") == {}, "posts are still the same"
    make(instance, tmp_path, posts)
    assert causes(instance, "posts") == {}
    assert causes(instance, "post_tags") == {"posts": "has a new dependency data version"}
    make(instance, tmp_path, post_tags)
    make(instance, tmp_path, posts)
    assert causes(instance, "post_tags") == {}, "made again, but the same"


def changed(study: Any) -> set[tuple[str, str]]:
    before = {f"{part}/{key}": version for part, key, version in changed_parts(STUDIES, {})}
    after = {"demo": replace(STUDIES["demo"], study=study, text="edited")}
    return {(part, key) for part, key, _ in changed_parts(after, before)}


def test_only_the_part_that_was_edited_has_another_version() -> None:
    study = STUDIES["demo"].study
    text = {("study_text", "demo")}
    assert changed(study) == text
    assert changed(study.model_copy(update={"title": "Another"})) == text
    shorter = study.evaluation.model_copy(update={"seeds": [1]})
    assert changed(study.model_copy(update={"evaluation": shorter})) == text | {("study_evaluation", "demo")}
    v16 = study.variants | {"v16": study.variants["v16"].model_copy(update={"steps": 5})}
    assert changed(study.model_copy(update={"variants": v16})) == text | {("study_variant", "demo__v16")}


def test_the_sensor_sees_an_edited_file_once_and_names_a_faulty_one(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDIES["cloud"].text
    monkeypatch.setattr("ti_pipeline.schedules.study_folders", lambda: [tmp_path])
    cursor = None

    def look() -> str:
        nonlocal cursor
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        said = study_files(context).skip_message
        cursor = context.cursor
        return said

    (tmp_path / "cloud.yaml").write_text(text)
    assert not look().startswith("0 parts")
    assert look() == "no study file has changed"
    (tmp_path / "cloud.yaml").write_text(f"{text}# edited\n")
    assert look().startswith("1 parts of study files have changed")
    (tmp_path / "cloud.yaml").write_text("name: [")
    assert look().endswith("left out for faults: cloud")


def test_nothing_is_observed_twice(instance: dg.DagsterInstance) -> None:
    assert observe(instance, {"demo": STUDIES["demo"]}) == 4 + 2 + 2 + 4  # of the study, plans, crop sets, variants
    assert observe(instance, {"demo": STUDIES["demo"]}) == 0
