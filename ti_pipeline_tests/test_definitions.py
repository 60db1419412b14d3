"""The code location: what it offers, how it hangs together, and how fast it loads."""

import subprocess
import sys

import dagster as dg
import pytest

from ti_pipeline.assets.study import STUDY_PARTS
from ti_pipeline.checks.contracts import PARTITIONS
from ti_pipeline.definitions import build_defs
from ti_pipeline.lineage import LINEAGE
from ti_pipeline.partitions import STUDIES, Key, split
from ti_pipeline.schemas import TABLES

POLICY = {"tag_aliases", "tag_implications", "do_not_post"}  # what the content policy is closed over
ASSETS = {
    "posts": POLICY,
    "post_tags": {"posts", "tag_aliases"},
    "tag_frequencies": {"posts", "post_tags", "tag_catalog", "training_set"},
    "tag_pairs": {"post_tags", "tag_frequencies", "tag_implications"},
    "tagger_tags": {"images"},
    "vocabulary": {"posts", "tag_frequencies", "post_tags", "tagger_tags", "training_set"} | POLICY,
    "captions": {"posts", "post_tags", "tagger_tags", "vocabulary", "training_set"} | POLICY,
    "images": {"posts"},
    "provenance": {"posts", "images"},
    "image_audit": {"images", "post_tags"},
    "training_set": {"posts", "post_tags", "images", "image_audit"} | POLICY,
    "crops": {"training_set"},
    "embedding": {"posts", "captions", "vocabulary", "crops", "provenance", "training_set"} | POLICY,
    "evaluation_images": {"embedding", "crops", "tag_frequencies"} | POLICY,
    "evaluation_scores": {"evaluation_images", "crops"},
    "reference_images": {"evaluation_images", "tag_frequencies"} | POLICY,
    "reference_scores": {"reference_images", "crops"},
    "evaluation_grids": {
        "evaluation_images",
        "evaluation_scores",
        "reference_images",
        "reference_scores",
        "leaderboard",
    },
    "dataset": {"posts", "captions", "crops"} | POLICY,
    "votes": {"evaluation_images"},
    "leaderboard": {"embedding", "evaluation_scores", "reference_scores", "votes"},
}
JOBS = {"catalog", "prepare", "train", "evaluate", "compare", "study", "demo", "purge"}
SEED_STUDIES = {"reowoof", "simpleTag", "mixTag", "cloud", "top", "anime"}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs()


def test_the_definitions_are_loadable(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize(("asset", "upstream"), ASSETS.items())
def test_the_graph_is_that_of_the_design(defs: dg.Definitions, asset: str, upstream: set[str]) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(asset))
    parents = {key.to_user_string() for key in node.parent_keys}
    assert {name for name in parents if not name.startswith("study_")} == upstream
    assert node.description
    assert node.group_name != "default"
    assert node.kinds
    assert node.code_version


def test_whatever_is_made_by_a_part_of_the_study_file_depends_on_it(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    parts = {spec.key for spec in STUDY_PARTS}
    without = {key for key in graph.materializable_asset_keys if not graph.get_ancestor_asset_keys(key) & parts}
    assert {key.to_user_string() for key in without} == POLICY | {"tag_catalog"}
    direct = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys & parts)
        for key in graph.materializable_asset_keys
    }
    assert direct["embedding"] == ["study_variant"]
    assert direct["captions"] == ["study_captions"]
    assert direct["report"] == direct["release"] == ["study_text"]
    assert direct["images"] == []


def test_no_pool_is_left_whose_slots_could_outlive_a_run(defs: dg.Definitions) -> None:
    ops = {node.name: node for job in defs.resolve_all_job_defs() for node in job.all_node_defs}
    assert {name for name, node in ops.items() if getattr(node, "pool", None)} == set()


def test_all_jobs_of_the_interface_exist(defs: dg.Definitions) -> None:
    assert {job.name for job in defs.resolve_all_job_defs()} >= JOBS


def test_the_shipped_studies_are_partitions() -> None:
    assert set(STUDIES) >= SEED_STUDIES | {"demo"}
    keys = PARTITIONS["embedding"].get_partition_keys()
    assert [key for key in keys if key.startswith("demo__")] == ["demo__v8", "demo__v16", "demo__v32", "demo__v64"]
    assert len([key for key in keys if split(key).study in SEED_STUDIES]) == 20
    assert split("demo__v8") == Key("demo", "v8")
    assert str(Key("demo", "v8")) == "demo__v8"


def test_every_table_has_a_blocking_contract_check(defs: dg.Definitions) -> None:
    keys = {(key.asset_key.to_user_string(), key.name) for key in defs.resolve_asset_graph().asset_check_keys}
    assert {(table, "contract") for table in set(TABLES) - {"losses", "purges"}} <= keys


def test_lineage_names_real_columns_and_follows_the_graph(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for table, columns in LINEAGE.items():
        ancestors = {key.to_user_string() for key in graph.get_ancestor_asset_keys(dg.AssetKey(table))}
        names = {column.name for column in TABLES[table].columns}
        for column, sources in columns.items():
            assert column in names, f"{table}.{column}"
            for asset, source in sources:
                assert source in {c.name for c in TABLES[asset].columns}, f"{asset}.{source}"
                assert asset in ancestors, f"{table} does not come from {asset}"


def test_variants_read_exactly_their_plan_and_crops(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey("embedding"))
    for parent, field in (("captions", "captions"), ("crops", "crop")):
        mapping = node.partition_mappings[dg.AssetKey(parent)]
        for key in node.partitions_def.get_partition_keys():
            found = mapping.get_upstream_mapped_partitions_result_for_partitions(
                node.partitions_def.subset_with_partition_keys([key]),
                node.partitions_def,
                graph.get(dg.AssetKey(parent)).partitions_def,
            ).partitions_subset.get_partition_keys()
            study, variant = split(key)
            assert list(found) == [str(Key(study, getattr(STUDIES[study].study.variant(variant), field)))]


def test_loading_imports_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "transformers", "cv2", "matplotlib", "scipy", "pandera")
    code = f"import sys, ti_pipeline.definitions; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
