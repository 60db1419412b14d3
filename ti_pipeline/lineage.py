"""Column lineage: from which upstream columns each column of a table is computed, as the UI draws it.

Here: the declaration only. A test holds it to the table contracts and to the asset graph.
"""

from typing import Final

from ti_pipeline.study_fields import CATEGORIES

__all__ = ["LINEAGE"]

_TAG_COLUMNS = tuple(("posts", f"tags_{category}") for category in CATEGORIES)
_ALIASES = (("tag_aliases", "antecedent"), ("tag_aliases", "consequent"))
_IMPLICATIONS = (("tag_implications", "antecedent"), ("tag_implications", "consequent"))
_COUNTED = (
    ("post_tags", "post_id"),
    ("post_tags", "tag"),
    ("tagger_tags", "tag"),
    *(("training_set", column) for column in ("post_id", "curation", "kept", "split")),
    ("posts", "status"),
)
_DECIDED = (
    *_COUNTED,
    ("post_tags", "category"),
    ("tag_frequencies", "site_count"),
    ("tag_frequencies", "lift"),
    *_IMPLICATIONS,
)
_CHECKPOINT = {name: (("embedding", name),) for name in ("checkpoint", "step")}

Sources = tuple[tuple[str, str], ...]


LINEAGE: Final[dict[str, dict[str, Sources]]] = {
    "post_tags": {
        "post_id": (("posts", "post_id"),),
        "tag": (*_TAG_COLUMNS, *_ALIASES),
        "category": _TAG_COLUMNS,
    },
    "tag_frequencies": {
        "tag": (("post_tags", "tag"),),
        "category": (("post_tags", "category"),),
        "count": (("post_tags", "post_id"), ("post_tags", "tag")),
        "share": (("post_tags", "post_id"), ("post_tags", "tag"), ("posts", "status")),
        "rank": (("post_tags", "tag"),),
        "category_rank": (("post_tags", "tag"), ("post_tags", "category")),
        "category_share": (("post_tags", "tag"), ("post_tags", "category")),
        "site_count": (("tag_catalog", "post_count"),),
        "lift": (("post_tags", "tag"), ("posts", "status"), ("tag_catalog", "post_count")),
        "first_post": (("post_tags", "post_id"), ("post_tags", "tag")),
        "last_post": (("post_tags", "post_id"), ("post_tags", "tag")),
        "trained_share": (("post_tags", "tag"), ("training_set", "post_id"), ("training_set", "kept")),
    },
    "tag_pairs": {
        **dict.fromkeys(("tag", "other"), (("tag_frequencies", "tag"), ("post_tags", "tag"))),
        **dict.fromkeys(("count", "jaccard", "pmi"), (("post_tags", "post_id"), ("post_tags", "tag"))),
        "implied": (("tag_implications", "antecedent"), ("tag_implications", "consequent")),
    },
    "tagger_tags": {
        "post_id": (("images", "post_id"),),
        **dict.fromkeys(("tag", "category", "confidence"), (("images", "path"),)),
    },
    "vocabulary": {
        "tag": (("post_tags", "tag"), ("tagger_tags", "tag")),
        "category": (("post_tags", "category"), ("tagger_tags", "category")),
        **dict.fromkeys(("count", "share"), _COUNTED),
        **dict.fromkeys(("captions", "caption_share", "kept", "rule", "reason"), _DECIDED),
    },
    "captions": {
        "post_id": (("posts", "post_id"), ("training_set", "post_id"), ("training_set", "kept")),
        **dict.fromkeys(
            ("caption", "tags", "priority", "tag_count", "dropped_tags"),
            (
                ("post_tags", "tag"),
                ("tagger_tags", "tag"),
                ("vocabulary", "kept"),
                ("vocabulary", "count"),
                *_IMPLICATIONS,
            ),
        ),
    },
    "images": {
        "post_id": (("posts", "post_id"),),
        "status": (("posts", "status"), ("posts", "file_url"), ("posts", "md5"), ("posts", "file_size")),
        "reason": (("posts", "reason"), ("posts", "file_url"), ("posts", "md5"), ("posts", "file_size")),
        "path": (("posts", "md5"), ("posts", "ext")),
        "md5": (("posts", "file_url"),),
        "sha256": (("posts", "file_url"),),
        "file_size": (("posts", "file_url"),),
    },
    "provenance": {
        "post_id": (("images", "post_id"),),
        "artists": (("posts", "tags_artist"),),
        "contributors": (("posts", "tags_contributor"),),
        "sources": (("posts", "sources"),),
        "rating": (("posts", "rating"),),
        "page": (("posts", "post_id"), ("posts", "file_url")),
        "file_url": (("posts", "file_url"),),
        **{name: (("images", name),) for name in ("path", "md5", "sha256")},
    },
    "image_audit": {
        "post_id": (("images", "post_id"),),
        **dict.fromkeys(
            (
                "format",
                "width",
                "height",
                "mode",
                "frames",
                "exif_orientation",
                "has_alpha",
                "icc_profile",
                "sharpness",
                "detail",
                "simple_background",
                "lettering",
                *(f"focal_{side}" for side in ("left", "top", "right", "bottom")),
                "palette",
                "phash",
            ),
            (("images", "path"),),
        ),
        "status": (("images", "status"), ("images", "path")),
        "reason": (("images", "reason"), ("images", "path")),
        "subjects": (("post_tags", "tag"),),
        "duplicate_of": (("images", "path"), ("images", "post_id")),
    },
    "training_set": {
        "post_id": (("posts", "post_id"),),
        "kept": (
            ("posts", "score"),
            ("image_audit", "status"),
            ("image_audit", "width"),
            ("image_audit", "height"),
            ("image_audit", "sharpness"),
            ("image_audit", "detail"),
            ("image_audit", "lettering"),
            ("image_audit", "format"),
            ("image_audit", "frames"),
            ("image_audit", "duplicate_of"),
            ("posts", "rating"),
            ("post_tags", "tag"),
        ),
        "reason": (("image_audit", "reason"), ("posts", "score"), ("post_tags", "tag")),
        "path": (("images", "path"),),
        "solo": (("post_tags", "tag"),),
        "simple_background": (("post_tags", "tag"),),
        "text": (("post_tags", "tag"),),
    },
    "crops": {
        "post_id": (("training_set", "post_id"),),
        "split": (("training_set", "split"),),
        **dict.fromkeys(
            (
                "status",
                "reason",
                "path",
                "part",
                "flipped",
                "width",
                "height",
                "left",
                "top",
                "box_width",
                "box_height",
                "focus_x",
                "focus_y",
                "detectors",
                "sha256",
                "alpha_sha256",
            ),
            (("training_set", "path"),),
        ),
    },
    "embedding": dict.fromkeys(
        (
            "pt_path",
            "safetensors_path",
            "sha256",
            "pt_sha256",
            "short_hash",
            "mean_loss",
            "validation_loss",
            "moved",
            "mean_norm",
            "nearest_tokens",
            "nearest_cosine",
        ),
        (("crops", "path"), ("crops", "sha256"), ("captions", "caption")),
    ),
    "evaluation_images": {
        **_CHECKPOINT,
        "cell": (("embedding", "sha256"),),
        "path": (("embedding", "safetensors_path"),),
        "sha256": (("embedding", "safetensors_path"),),
        "embedding_sha256": (("embedding", "sha256"),),
        "value": (("tag_frequencies", "tag"), ("tag_frequencies", "category_rank")),
    },
    "evaluation_scores": {
        **{
            column: (("evaluation_images", column),)
            for column in ("cell", "variant", "checkpoint", "step", "axis", "value", "seed")
        },
        "score": (("evaluation_images", "path"), ("crops", "path")),
        "read_as": (("evaluation_images", "path"),),
    },
    "reference_images": {
        "seed": (("evaluation_images", "seed"),),
        "value": (("tag_frequencies", "tag"), ("tag_frequencies", "category_rank")),
    },
    "reference_scores": {
        **{
            column: (("reference_images", column),)
            for column in ("cell", "variant", "checkpoint", "step", "axis", "value", "seed", "base")
        },
        "score": (("reference_images", "path"), ("crops", "path")),
        "read_as": (("reference_images", "path"),),
    },
    "evaluation_grids": {
        "axis": (("evaluation_images", "axis"),),
        "variant": (("evaluation_images", "variant"),),
        "seed": (("evaluation_images", "seed"),),
        "missing": (("evaluation_images", "path"),),
        **dict.fromkeys(("path", "webp_path"), (("evaluation_images", "path"), ("evaluation_scores", "score"))),
    },
    "votes": dict.fromkeys(("first_cell", "second_cell"), (("evaluation_images", "cell"),)),
    "leaderboard": {
        **dict.fromkeys(
            ("people", "people_low", "people_high", "people_votes", "people_judged", "people_mismatches"),
            (("votes", "choice"),),
        ),
        "axis": (("evaluation_scores", "axis"),),
        "variant": (("evaluation_scores", "variant"),),
        "checkpoint": (("evaluation_scores", "checkpoint"),),
        "step": (("evaluation_scores", "step"),),
        **dict.fromkeys(
            (
                *("score", "low", "high", "behind", "behind_low", "behind_high", "p", "tells"),
                *("pictures", "mismatches", "rank", "best", "tied", "pareto", "overfit", "learned", "counted"),
            ),
            (("evaluation_scores", "score"), ("evaluation_scores", "metric"), ("reference_scores", "score")),
        ),
        "candidate": (("evaluation_scores", "checkpoint"), ("reference_scores", "checkpoint")),
        "excluded": (("evaluation_scores", "score"), ("evaluation_scores", "read_as")),
    },
}
