"""A small study with every table, made by hand: two variants, two checkpoints each, hostile names wherever possible."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ti_pipeline.inversion.embedding_files import Embedding, save_pt, save_safetensors, short_hash
from ti_pipeline.publishing.inputs import StudyResults
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources.provenance import provenance_table
from ti_pipeline.studies import Study

HOSTILE_TAGS = [
    '"><script>alert(1)</script>',
    "' onmouseover='alert(2)",
    "../../etc/passwd",
    "\u202egnp.exe",
    "\x07bell",
    "{{ 7 * 7 }}",
    "[x](javascript:alert(3))",
    "</style></title></script>",
    "🐺_狼",
    "a|b`c*d",
    "$wolf^2$",
    "=HYPERLINK(0)",
]
ARTIST = "o'<b>brien</b>|_[x](y)"
SOURCES = [
    "https://artist.example/art?a=1&b=2",
    "javascript:alert(4)",
    'https://evil.example/"onclick="alert(5)',
    "https://\u202eelpmaxe.com",
]
STUDY_TEXT = "name: tiny\n# </pre><script>alert(6)</script> \u202e\n"
AXES = {"species": ["wolf", "tiger"], "clothing": ["shirt", "coat"]}
# Mismatches per checkpoint in the order of the steps, out of 4 pictures (2 values × 2 seeds).
WRONG = {("species", "a"): [3, 1], ("species", "b"): [2, 2], ("clothing", "a"): [1, 0], ("clothing", "b"): [4, 2]}
PAIR = {"tag": "<b>", "other": "wolf", "count": 7, "jaccard": 0.875, "pmi": 1.5, "implied": True}
OVERALL = {"a-20": (0.875, 0.7, 1.0), "a-10": (0.5, 0.2, 0.8), "b-20": (0.5, 0.3, 0.9), "b-10": (0.25, 0.0, 0.5)}


def build_study():
    return Study.model_validate(
        {
            "name": "tiny",
            "title": "Tiny <i>&</i> \u202ehostile",
            "description": "A study with <script>alert(0)</script> in it.",
            "source": {"kind": "e621", "query": "wolf"},
            "base_models": {"base": {"file": "/home/someone/models/base.safetensors"}},
            "curation": {"shares": {"solo": 0.5, "text": 0.9}},
            "crops": {"sizes": [64]},
            "captions": {"plan": {"per_image": 2}},
            "common": {"base": "base", "steps": 20, "token": "{study}-{variant}", "learning_rate": "0.02:10, 0.005"},
            "variants": {"a": {"vectors": 2, "clip_skip": 2}, "b": {"vectors": 70, "long_prompts": "cut"}},
            "evaluation": {
                "scorer": {"folder": "/home/someone/clip"},
                "axes": {name: {"prompt": f"{v[0]}, [name]", "values": v} for name, v in AXES.items()},
            },
        }
    )


def frame(table, rows):
    """Rows as a frame in the contract's order; unmentioned columns are empty lists or missing."""
    contract = TABLES[table]
    filled = [{c.name: [] if c.kind == "strings" else None for c in contract.columns} | row for row in rows]
    made = pd.DataFrame(filled, columns=[c.name for c in contract.columns])
    for column in contract.columns:
        if column.kind == "int64":
            made[column.name] = made[column.name].astype("Int64" if column.nullable else "int64")
        elif column.kind == "timestamp":
            made[column.name] = pd.to_datetime(made[column.name], utc=True)
        elif column.kind == "string":
            made[column.name] = made[column.name].astype("str")
        elif column.kind == "float64":
            made[column.name] = made[column.name].astype("float64")
    assert contract.problems(made) == []
    return made


def paint(path, number, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((size, size)).save(path)
    return path


def picture_tables(root):
    """Posts 1..6: 5 fails to download, 6 is dropped; 1..3 are trained on, 4 is held out."""
    posts = [
        {
            "post_id": n, "status": "kept", "reason": "", "rating": "s", "md5": f"{n:032x}",
            "file_url": f"https://static1.e621.net/data/{n}.png", "sources": SOURCES if n == 1 else [],
            "tags_general": HOSTILE_TAGS, "tags_artist": [ARTIST, "conditional_dnp"] if n < 3 else [],
        }
        for n in range(1, 6)
    ]  # fmt: skip
    posts.append({"post_id": 6, "status": "dropped", "reason": "excluded tag <x>"})
    for n in range(1, 5):
        paint(root / f"images/{n}.png", n)
        paint(root / f"crops/tiny/64/{n}.png", n)
    images = [
        {"post_id": n, "status": "ok", "reason": "", "path": f"images/{n}.png", "md5": f"{n + 100:032x}"}
        for n in range(1, 5)
    ]
    images.append({"post_id": 5, "status": "failed", "reason": "404"})
    whole = {"status": "ok", "reason": "", "width": 64, "height": 64, "frames": 1, "detail": 5.0, "lettering": 0.0}
    audit = [whole | {"post_id": n, "simple_background": 0.9 if n < 3 else 0.1} for n in range(1, 5)]
    split = {1: "train", 2: "train", 3: "train", 4: "validation", 5: "out"}
    training = [
        {
            "curation": "default", "post_id": n, "kept": n < 5, "split": split[n], "solo": n < 3, "text": n == 1,
            "reason": "" if n < 5 else "no picture: 404", "path": f"images/{n}.png" if n < 5 else None,
            "simple_background": True,
        }
        for n in split
    ]  # fmt: skip
    whole = {"status": "ok", "reason": "", "part": 0, "flipped": False, "size": 64}
    crops = [whole | {"post_id": n, "split": split[n], "path": f"crops/tiny/64/{n}.png"} for n in range(1, 5)]
    for row in images[:4]:
        row["sha256"] = hashlib.sha256((root / row["path"]).read_bytes()).hexdigest()
    tables = {"posts": frame("posts", posts), "images": frame("images", images)}
    return tables | {
        "provenance": provenance_table(**tables, root=root, source=build_study().source),
        "image_audit": frame("image_audit", audit),
        "training_set": frame("training_set", training),
        "crops": {"64": frame("crops", crops)},
    }


def tag_tables():
    counts = list(range(len(HOSTILE_TAGS), 0, -1))
    tags = [
        {
            "tag": tag, "category": "general", "count": n, "share": n / len(counts), "rank": i, "category_rank": i,
            "category_share": n / sum(counts), "first_post": 1, "last_post": n,
        }
        for i, (tag, n) in enumerate(zip(HOSTILE_TAGS, counts, strict=True), start=1)
    ]  # fmt: skip
    vocabulary = [
        {k: row[k] for k in ("tag", "category", "count", "share")}
        | {
            "captions": row["count"],
            "caption_share": row["share"],
            "kept": row["rank"] <= 9,
            "rule": "budgets",
            "reason": "share <1>" if row["rank"] <= 9 else "in the drop list",
        }
        for row in tags
    ]
    captions = [
        {"post_id": n, "caption": "wolf, " * 5 * n, "tags": ["wolf"] * 5 * n}
        | {"priority": ["wolf"] * 5 * n, "tag_count": 5 * n, "dropped_tags": 0}
        for n in range(1, 5)
    ]
    return {
        "post_tags": frame(
            "post_tags",
            [{"post_id": 1, "tag": t, "category": "general"} for t in HOSTILE_TAGS]
            + [{"post_id": n, "tag": t, "category": "general"} for n, t in ((2, "white_background"), (4, "dialogue"))],
        ),
        "tag_frequencies": frame("tag_frequencies", tags),
        "tag_pairs": frame("tag_pairs", [PAIR]),
        "vocabularies": {"plan": frame("vocabulary", vocabulary)},
        "captions": {"plan": frame("captions", captions)},
    }


def trained_tables(root):
    embeddings, losses = {}, {}
    for variant, vectors in (("a", 2), ("b", 70)):
        rows = []
        for step in (10, 20):
            name, tensor = f"{variant}-{step}", torch.randn(vectors, 8, generator=torch.Generator().manual_seed(step))
            stem = root / f"embeddings/tiny/{variant}/{name}"
            save_pt(stem.with_suffix(".pt"), Embedding(name, tensor, step, "base", "0" * 64))
            save_safetensors(stem.with_suffix(".safetensors"), Embedding(name, tensor, step, "base", "0" * 64))
            hashes = [hashlib.sha256(stem.with_suffix(s).read_bytes()).hexdigest() for s in (".safetensors", ".pt")]
            rows.append(
                {
                    "checkpoint": name, "step": step, "epoch": step // 5, "vectors": vectors, "width": 8,
                    "pt_path": f"embeddings/tiny/{variant}/{name}.pt",
                    "safetensors_path": f"embeddings/tiny/{variant}/{name}.safetensors", "sha256": hashes[0],
                    "pt_sha256": hashes[1], "short_hash": short_hash(tensor), "moved": 1.0, "mean_norm": 1.0,
                    "mean_loss": 0.4, "nearest_tokens": "wolf " * vectors, "nearest_cosine": 0.9,
                }
            )  # fmt: skip
        embeddings[variant] = frame("embedding", rows)
        losses[variant] = frame(
            "losses",
            [
                {
                    "step": s, "epoch": (s - 1) // 5 + 1, "epoch_step": (s - 1) % 5 + 1, "learning_rate": 0.005,
                    "loss": {1: 0.4, 2: 0.568, 3: 0.3, 4: 0.218}[(s - 1) // 5 + 1], "gradient_norm": 1.0,
                    "vector_norm": 1.0,
                }
                for s in range(1, 21)
            ],
        )  # fmt: skip
    return {"embeddings": embeddings, "losses": losses}


def evaluation_tables(root):
    images, scores, grids = {}, {}, []
    for variant in ("a", "b"):
        cells, judged = [], []
        for axis, values in AXES.items():
            for place, step in enumerate((10, 20)):
                for n, (value, seed) in enumerate((v, s) for v in values for s in (6, 7)):
                    where = {
                        "cell": f"{axis}-{variant}-{step}-{n}", "variant": variant, "checkpoint": f"{variant}-{step}",
                        "step": step, "axis": axis, "value": value, "seed": seed,
                    }  # fmt: skip
                    cells.append(
                        where
                        | {"sampler": "DDIM", "steps": 20, "cfg": 7.0, "size": 64, "prompt": "p", "negative": ""}
                        | {"path": "p.png", "sha256": "0", "clip_skip": 1, "base": "base", "token": "t"}
                        | {"embedding_sha256": "0" * 64}
                    )
                    right = float(n >= WRONG[axis, variant][place])
                    judged.append(where | {"metric": "match", "score": right, "read_as": value})
                    judged.append(where | {"metric": "probability", "score": 0.5, "read_as": value})
                    judged.append(where | {"metric": "likeness", "score": 0.5 + 0.01 * n, "read_as": None})
            name = f"xy_grid-{len(grids) + 1:04d}-6-{variant}"
            paint(root / f"evaluation/tiny/grids/{name}.png", len(grids), size=300)
            grids.append(
                {
                    "grid": name, "axis": axis, "variant": variant, "seed": 6, "sampler": "DDIM", "size": 64, "rows": 2,
                    "columns": 2, "missing": 0, "path": f"evaluation/tiny/grids/{name}.png", "tiles": 0,
                    "x": "value", "y": "checkpoint", "fixed": f"{axis} · seed 6 · DDIM, 20 steps, CFG 7 · 64 px",
                }
            )  # fmt: skip
        images[variant] = frame("evaluation_images", cells)
        scores[variant] = frame("evaluation_scores", judged)
    board = []
    for rank, (checkpoint, (score, low, high)) in enumerate(OVERALL.items(), start=1):
        variant, step = checkpoint.split("-")
        wrong = sum(WRONG[axis, variant][int(step) // 10 - 1] for axis in AXES)
        board.append(
            {
                "axis": "overall", "variant": variant, "checkpoint": checkpoint, "step": int(step), "score": score,
                "low": low, "high": high, "pictures": 8, "mismatches": wrong, "rank": rank, "best": rank == 1,
                "tied": rank > 1 and high >= 0.875, "behind": 0.875 - score, "behind_low": 0.1, "behind_high": 0.6,
                "p": 0.031, "tells": 0.25, "pareto": checkpoint in {"a-20", "b-20"}, "overfit": checkpoint == "b-10",
                "candidate": True, "learned": True, "counted": True, "people_votes": 0, "people_judged": 0,
            }
        )  # fmt: skip
    missing = dict.fromkeys(("behind", "behind_low", "behind_high", "p", "rank"))
    flags = dict.fromkeys(("best", "tied", "pareto", "overfit", "learned"), False)
    board.append(
        board[-1] | missing | flags
        | {"variant": "b", "checkpoint": "b-5", "step": 5, "excluded": "<i>3 of 8 pictures are broken"}
    )  # fmt: skip
    board.append(
        board[-1] | {"variant": "", "checkpoint": "no embedding", "step": 0, "score": 0.0, "low": 0.0, "high": 0.0}
        | {"candidate": False, "excluded": None}
    )  # fmt: skip
    bare = images["a"][images["a"].checkpoint == "a-20"]
    references = bare.assign(variant="", checkpoint="no embedding", step=0, token="", cell="bare-" + bare.cell)
    return {
        "reference_images": pd.concat([references, references.assign(clip_skip=2, cell="skip-" + references.cell)]),
        "evaluation_images": images,
        "evaluation_scores": scores,
        "evaluation_grids": frame("evaluation_grids", grids),
        "votes": TABLES["votes"].empty(),
        "leaderboard": frame(
            "leaderboard",
            [
                row | {"axis": axis}
                for axis in ("clothing", "likeness", "obedience", "overall", "species")
                for row in board
            ],
        ),
        "reference_scores": reference_scores(scores["a"]),
    }


def reference_scores(own):
    """Without an embedding everything is right, and nothing like the concept; the variants differ in CLIP skip."""
    bare = own[own.checkpoint == "a-20"].assign(variant="", checkpoint="no embedding", step=0)
    bare = bare.assign(score=(bare.metric == "match").astype(float))
    held_out = bare[bare.metric == "likeness"].head(2).assign(checkpoint="held-out", axis="held-out", score=1.0)
    both = pd.concat([bare, held_out])
    return pd.concat([both.assign(base=f"base, clip skip {skip}") for skip in (1, 2)])


def build_results(folder):
    root = folder / "store"
    return StudyResults(
        study=build_study(),
        root=root,
        **picture_tables(root),
        **tag_tables(),
        **trained_tables(root),
        **evaluation_tables(root),
        warnings=["embedding of c is not there: <it> has not been made yet"],
        study_text=STUDY_TEXT,
        versions={"torch": "2.0"},
    )


@pytest.fixture
def results(tmp_path):
    return build_results(tmp_path)


@pytest.fixture
def nothing_measured(results):
    """The same study before anything was trained."""
    return dataclasses.replace(
        results,
        evaluation_grids=TABLES["evaluation_grids"].empty(),
        leaderboard=TABLES["leaderboard"].empty(),
        reference_images=results.reference_images[:0],
        reference_scores=results.reference_scores[:0],
        embeddings={},
        losses={},
        evaluation_images={},
        evaluation_scores={},
    )


def with_people(results):
    """The results once three raters preferred a-20 to b-20, and one saw no difference between a-10 and b-10."""
    one = {"axis": "species", "value": "wolf", "seed": 6, "kind": "pair", "at": "2026-11-23T00:00:00Z"}
    meetings = [("x", "20", "first"), ("y", "20", "first"), ("z", "20", "first"), ("x", "10", "tie")]
    votes = [
        one
        | {"vote": str(number), "rater": rater, "choice": choice}
        | {"first": f"a-{step}", "first_cell": f"species-a-{step}-0"}
        | {"second": f"b-{step}", "second_cell": f"species-b-{step}-0"}
        for number, (rater, step, choice) in enumerate(meetings)
    ]
    told = {"people": 0.75, "people_low": 0.5, "people_high": 0.9, "people_votes": 3, "people_judged": 4}
    board = results.leaderboard.copy()
    best = (board.axis == "overall") & (board.checkpoint == "a-20")
    for name, value in (told | {"people_mismatches": 1}).items():
        board.loc[best, name] = value
    return dataclasses.replace(results, votes=frame("votes", votes), leaderboard=board)
