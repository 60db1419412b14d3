"""The report's sections as plain values for the template: training set, tags, captions, losses, recipe, commands.

Here: counting and wording of numbers. Not here: pictures (`figures`), the decision (`verdict`), HTML (`templates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.publishing.verdict import place_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.tagging.advice import Advice

__all__ = [
    "commands",
    "compared_plans",
    "counted_reasons",
    "curation_facts",
    "loss_facts",
    "pixels_and_tags",
    "plan_facts",
    "recipe",
    "stages",
    "vector_advice",
]

_TOP_REASONS = 20
_TOP_TAGS = 30


def counted_reasons(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the reasons in a table's `reason` column with their counts, most first, the rare ones summed up."""
    counts = table.reason[table.reason != ""].value_counts()
    pairs = sorted(((str(reason), int(n)) for reason, n in counts.items()), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(n for _, n in pairs[_TOP_REASONS:])
    return pairs[:_TOP_REASONS] + ([("other reasons", rest)] if rest else [])


def stages(results: StudyResults) -> list[dict[str, Any]]:
    """Return how many posts and pictures each step took on and let go, and why."""
    tables: list[tuple[str, pd.DataFrame, str]] = [
        ("posts found", results.posts, "kept"),
        ("pictures fetched", results.images, "ok"),
        ("pictures measured", results.image_audit, "ok"),
    ]
    tables += [(f"crops, set {name}", table, "ok") for name, table in results.crops.items()]
    return [
        {"name": name, "total": len(t), "good": int((t.status == good).sum()), "reasons": counted_reasons(t)}
        for name, t, good in tables
    ]


def curation_facts(results: StudyResults) -> list[dict[str, Any]]:
    """Return, per curation, its counts, the reasons of left-out pictures, and shares reached beside their targets."""
    facts = []
    for name, curation in results.study.named_curations().items():
        rows = results.training_set[results.training_set.curation == name]
        kept = rows[rows.kept]
        shares = []
        for flag, target in curation.shares.model_dump().items():
            reached = float(kept[flag].mean()) if len(kept) else 0.0
            off = target is not None and abs(reached - target) > curation.share_tolerance + 1e-9
            shares.append({"name": flag.replace("_", " "), "target": target, "reached": reached, "off": off})
        facts.append(
            {
                "name": name,
                "total": len(rows),
                "train": int((kept.split == "train").sum()),
                "validation": int((kept.split == "validation").sum()),
                "reasons": counted_reasons(rows),
                "shares": shares,
                "tolerance": curation.share_tolerance,
            }
        )
    return facts


def pixels_and_tags(results: StudyResults) -> list[dict[str, Any]]:
    """Return, per question that both answer, how often pixels and tags agree, and posts on which they do not."""
    from ti_pipeline.imaging.agreement import agreement

    table = agreement(results.image_audit, results.post_tags)
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def plan_facts(results: StudyResults) -> list[dict[str, Any]]:
    """Return, per caption plan, kept and dropped counts by category, its commonest tags, and caption lengths."""
    facts = []
    for name, vocabulary in results.vocabularies.items():
        by_category = vocabulary.groupby("category", sort=True).kept.agg(["sum", "size"])
        captions = results.captions.get(name)
        facts.append(
            {
                "name": name,
                "kept": int(vocabulary.kept.sum()),
                "dropped": int((~vocabulary.kept).sum()),
                "categories": [(str(c), int(k), int(n - k)) for c, k, n in by_category.itertuples()],
                "top_kept": _top(vocabulary[vocabulary.kept]),
                "top_dropped": _top(vocabulary[~vocabulary.kept]),
                "captions": None if captions is None else len(captions),
                "empty": None if captions is None else int((captions.tag_count == 0).sum()),
                "mean_tags": None if captions is None or captions.empty else float(captions.tag_count.mean()),
                "over_limit": None if captions is None else int((captions.dropped_tags > 0).sum()),
            }
        )
    return facts


def _top(vocabulary: pd.DataFrame) -> list[dict[str, Any]]:
    top = vocabulary.sort_values(["count", "tag"], ascending=[False, True]).head(_TOP_TAGS)
    return [{str(column): value for column, value in row.items()} for row in top.to_dict("records")]


def vector_advice(results: StudyResults, tokenizer_folder: Path) -> list[Advice] | None:
    """Return, per variant, how its vectors and captions suit each other; None without a tokenizer."""
    from ti_pipeline.tagging.advice import advise
    from ti_pipeline.tagging.tokens import clip_tokenizer

    if not tokenizer_folder.is_dir():
        return None
    tokenizer = clip_tokenizer(tokenizer_folder)
    variants = {name: results.study.variant(name) for name in results.study.variants}
    return [
        advise(name, variant, results.vocabularies[plan], results.captions[plan], tokenizer)
        for name, variant in variants.items()
        if (plan := str(variant.captions)) in results.captions and plan in results.vocabularies
    ]


def compared_plans(results: StudyResults, tokenizer_folder: Path) -> pd.DataFrame:
    """Return what each caption plan's vocabulary achieves, one row a plan (see `tagging.comparison.measures`)."""
    import pandas as pd

    from ti_pipeline.tagging.comparison import measures_of_tables
    from ti_pipeline.tagging.tokens import clip_tokenizer

    tokenizer = clip_tokenizer(tokenizer_folder) if tokenizer_folder.is_dir() else None
    plans = [name for name in results.vocabularies if name in results.captions]
    rows = [
        {"strategy": name} | measures_of_tables(results.vocabularies[name], results.captions[name], tokenizer)
        for name in plans
    ]
    return pd.DataFrame(rows)


def loss_facts(results: StudyResults) -> list[dict[str, Any]]:
    """Return, per trained variant, its losses as people keep them in logs: `1686|3: 0.568` is step|epoch: loss."""
    from ti_pipeline.inversion.losses import loss_summary

    facts = []
    for name, losses in results.losses.items():
        summary = loss_summary(losses)
        checkpoints = results.embeddings.get(name)
        facts.append(
            {
                "variant": name,
                "steps": int(losses.step.max()) if summary else 0,
                "epoch_mean": summary.get("epoch_mean_loss"),
                "most": _extreme(summary.get("max_epoch_loss")),
                "least": _extreme(summary.get("min_epoch_loss")),
                "intervals": summary.get("mean_loss", []),
                "epochs": list(summary.get("epoch_means", {}).items()),
                "checkpoints": [] if checkpoints is None else list(checkpoints.sort_values("step").itertuples()),
            }
        )
    return facts


def _extreme(found: dict[str, Any] | None) -> str:
    return f"{found['step']}|{found['epoch']}: {found['value']:.3f}" if found else "–"


def recipe(results: StudyResults) -> dict[str, Any]:
    """Return what all variants share, and what each has of its own, field by field."""
    study = results.study
    variants = {name: study.variant(name).model_dump() for name in study.variants}
    fields = list(next(iter(variants.values())))
    shared = {field: _same([v[field] for v in variants.values()]) for field in fields}
    own = [field for field in fields if not shared[field]]
    first = next(iter(variants.values()))
    return {
        "shared": [(field, _worded(first[field])) for field in fields if shared[field] and first[field] is not None],
        "own": own,
        "variants": [(name, [_worded(v[field]) for field in own]) for name, v in variants.items()],
        "bases": [
            (name, place_of(study.base_models[name])) for name in dict.fromkeys(v["base"] for v in variants.values())
        ],
    }


def _same(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def _worded(value: Any) -> str:
    if value is None:
        return "–"
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def commands(results: StudyResults) -> list[tuple[str, str]]:
    """Return the exact commands that make this study again, each with what it does."""
    name, variants = results.study.name, list(results.study.variants)
    job = "dagster job execute -m ti_pipeline.definitions -j"

    def tagged(tags: str) -> str:
        return f"--tags '{{{tags}}}'"

    if len(variants) == 1:
        keys = tagged(f'"dagster/partition": "{name}__{variants[0]}"')
    else:
        start, end = f"{name}__{variants[0]}", f"{name}__{variants[-1]}"
        keys = tagged(f'"dagster/asset_partition_range_start": "{start}", "dagster/asset_partition_range_end": "{end}"')
    study = tagged(f'"dagster/partition": "{name}"')
    return [
        ("posts, pictures, captions and crops", f"{job} prepare {study}"),
        ("train every variant in one process", f"{job} train {keys}"),
        ("render and score their checkpoints", f"{job} evaluate {keys}"),
        ("grids, leaderboard, this page and the release", f"{job} compare {study}"),
    ]
