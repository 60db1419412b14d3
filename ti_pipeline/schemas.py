"""The product's tables: one typed contract each, used for writing, for checks, for the UI and for the docs.

Here: column names, Arrow types, meanings, bounds. Not here: how a table is computed, or where it is stored.
"""

from __future__ import annotations

from ti_pipeline.contracts import Column, Table, TableError, from_arrow
from ti_pipeline.study_fields import CATEGORIES

__all__ = ["TABLES", "Column", "Table", "TableError", "from_arrow"]


def _id(meaning: str = "the post's id at its source") -> Column:
    return Column("post_id", "int64", meaning, low=0)


_STATUS = ("kept", "dropped")
_FETCHED = ("ok", "failed", "skipped", "dropped")
_CATEGORY = Column("category", "string", "the site's tag category")

_CATALOG = (
    Table(
        "tag_catalog",
        "Every tag the site knows.",
        (
            Column("tag", "string", "tag name"),
            _CATEGORY,
            Column("post_count", "int64", "posts on the site with this tag", low=0),
        ),
        key=("tag",),
    ),
    *(
        Table(
            name,
            meaning,
            (Column("antecedent", "string", first), Column("consequent", "string", second)),
            key=("antecedent", "consequent"),
        )
        for name, meaning, first, second in (
            (
                "tag_aliases",
                "Active aliases, resolved to the end of their chains.",
                "old name",
                "name to use instead",
            ),
            (
                "tag_implications",
                "Active implications, one step each.",
                "the special tag",
                "the tag it implies",
            ),
        )
    ),
    Table(
        "do_not_post",
        "Artists on the site's do-not-post lists.",
        (
            Column("artist", "string", "artist tag"),
            Column("list", "string", "the list, which is also a tag", among=("avoid_posting", "conditional_dnp")),
        ),
        key=("artist", "list"),
    ),
)

_POSTS = (
    Table(
        "posts",
        "Posts of the study's source, one row each; left-out posts keep their id, the reason and a file of one's own.",
        (
            _id(),
            Column("status", "string", "kept, or dropped before anything was downloaded", among=_STATUS),
            Column("reason", "string", "why the post was dropped; empty when kept"),
            Column(
                "rating",
                "string",
                "s, q or e; null when the source tells none",
                nullable=True,
                among=("s", "q", "e"),
            ),
            Column("score", "int64", "votes up minus down", nullable=True),
            Column("fav_count", "int64", "how many people marked it a favourite", nullable=True, low=0),
            Column("created_at", "timestamp", "when it was posted", nullable=True),
            Column("width", "int64", "picture width in pixels as the source states it", nullable=True, low=0),
            Column("height", "int64", "picture height in pixels as the source states it", nullable=True, low=0),
            Column("ext", "string", "file type as the source states it", nullable=True),
            Column("file_size", "int64", "bytes as the source states it", nullable=True, low=0),
            Column("md5", "string", "md5 of the file as the source states it", nullable=True),
            Column(
                "file_url",
                "string",
                "where the picture is: http(s), file or demo; never rebuilt",
                nullable=True,
            ),
            Column("sources", "strings", "where the artist published it"),
            *(Column(f"tags_{c}", "strings", f"{c} tags as the source has them") for c in CATEGORIES),
            Column(
                "tags_other", "strings", "tags of categories that came to the site later; only the policy reads them"
            ),
            Column("locked_tags", "strings", "tags that the site's staff put or (with -) kept off; as tags_other"),
            Column("captions", "strings", "captions that lie beside a picture of a folder, as they stand there"),
            Column("said", "strings", "all that a picture's own files and name say; as tags_other"),
        ),
        key=("post_id",),
    ),
    Table(
        "post_tags",
        "One row per kept post and tag, aliases resolved.",
        (
            _id(),
            Column("tag", "words", "tag after aliases"),
            Column("category", "words", "the site's tag category"),
        ),
        key=("post_id", "tag"),
    ),
    Table(
        "tag_frequencies",
        "How often each tag occurs in the study.",
        (
            Column("tag", "string", "tag name"),
            _CATEGORY,
            Column("count", "int64", "posts with this tag", low=1),
            Column("share", "float64", "count over kept posts", low=0, high=1),
            Column("rank", "int64", "1 = commonest tag of the study", low=1),
            Column("category_rank", "int64", "1 = commonest tag of its category", low=1),
            Column("category_share", "float64", "count over all tag uses in the category", low=0, high=1),
            Column(
                "site_count",
                "int64",
                "posts on the whole site, where the catalog knows it",
                nullable=True,
                low=0,
            ),
            Column(
                "lift",
                "float64",
                "share here over share on the site, whose commonest tag stands for all its posts",
                nullable=True,
                low=0,
            ),
            Column("first_post", "int64", "lowest id of a post with this tag; ids grow with time", low=0),
            Column("last_post", "int64", "highest id of a post with this tag", low=0),
            Column(
                "trained_share",
                "float64",
                "share among the pictures of the training set, once that is made",
                nullable=True,
                low=0,
                high=1,
            ),
        ),
        key=("tag",),
    ),
    Table(
        "tag_pairs",
        "Which tags stand together, the most inseparable first.",
        (
            Column("tag", "string", "the commoner tag"),
            Column("other", "string", "the rarer tag"),
            Column("count", "int64", "posts with both", low=1),
            Column("jaccard", "float64", "posts with both over posts with either", low=0, high=1),
            Column("pmi", "float64", "pointwise mutual information in bits; 0 = as often as by chance"),
            Column("implied", "bool", "whether one implies the other on the site"),
        ),
        key=("tag", "other"),
    ),
)

_CAPTIONS = (
    Table(
        "tagger_tags",
        "What a plan's tagger sees on each picture; empty for plans without a tagger.",
        (
            _id(),
            Column("tag", "words", "tag as the tagger names it"),
            Column("category", "words", "the tagger's category, or general"),
            Column("confidence", "float64", "how sure the tagger is", low=0, high=1),
        ),
        key=("post_id", "tag"),
    ),
    Table(
        "vocabulary",
        "Every tag of the study with the decision whether captions of this plan may use it.",
        (
            Column("tag", "string", "tag name"),
            _CATEGORY,
            Column("count", "int64", "trained pictures with this tag", low=0),
            Column("share", "float64", "count over the trained pictures", low=0, high=1),
            Column("captions", "int64", "captions of these that say it, after all rules and `per_image`", low=0),
            Column("caption_share", "float64", "captions over the trained pictures", low=0, high=1),
            Column("kept", "bool", "whether captions may use it"),
            Column("rule", "string", "the rule that kept or dropped it, as the study's YAML names it"),
            Column("reason", "string", "what that rule found, in words and numbers"),
        ),
        key=("tag",),
    ),
    Table(
        "captions",
        "One caption per picture of the training set; per kept post until that is made.",
        (
            _id(),
            Column("caption", "string", "the caption text"),
            Column("tags", "strings", "the caption's tags in order, as in the vocabulary"),
            Column("priority", "strings", "the same tags, the one that is kept longest first"),
            Column("tag_count", "int64", "how many tags the caption has", low=0),
            Column("dropped_tags", "int64", "vocabulary tags left out by implications or the limit per picture", low=0),
        ),
        key=("post_id",),
    ),
)

_PICTURES = (
    Table(
        "images",
        "One row per post: where its picture lies, or why it is not here.",
        (
            _id(),
            Column(
                "status",
                "string",
                "ok, failed, skipped (no still picture), or dropped (the post was left out before)",
                among=_FETCHED,
            ),
            Column("reason", "string", "why there is no picture; empty when ok"),
            Column("path", "string", "the file, relative to the data folder", nullable=True),
            Column("md5", "string", "md5 of the stored file", nullable=True),
            Column("sha256", "string", "sha256 of the stored file", nullable=True),
            Column("file_size", "int64", "bytes of the stored file", nullable=True, low=0),
        ),
        key=("post_id",),
    ),
    Table(
        "provenance",
        "One row per stored picture of the study: whose it is, and where and when it came from.",
        (
            _id(),
            Column("in_use", "bool", "whether the study's posts still have it; false: only stored from before"),
            Column("path", "string", "the file, relative to the data folder"),
            Column("md5", "string", "md5 of the stored file"),
            Column("sha256", "string", "sha256 of the stored file"),
            Column("artists", "strings", "artists as the source has them"),
            Column("contributors", "strings", "contributors as the source has them"),
            Column("sources", "strings", "where the artist published it"),
            Column("page", "string", "the post's page on the site; null for other sources", nullable=True),
            Column("rating", "string", "s, q or e", nullable=True, among=("s", "q", "e")),
            Column("licence", "string", "licence note of the study's source", nullable=True),
            Column("source", "string", "kind of the study's source"),
            Column("file_url", "string", "where the file was fetched", nullable=True),
            Column("fetched_at", "timestamp", "when the file came into the data folder"),
        ),
        key=("post_id", "md5"),
    ),
    Table(
        "image_audit",
        "What a picture really is, measured from its pixels.",
        (
            _id(),
            Column("status", "string", "ok, or failed when the picture cannot be used", among=("ok", "failed")),
            Column("reason", "string", "why it cannot be used; empty when ok"),
            Column("format", "string", "format found in the file", nullable=True),
            Column("width", "int64", "pixels, after the EXIF turn", nullable=True, low=1),
            Column("height", "int64", "pixels, after the EXIF turn", nullable=True, low=1),
            Column("mode", "string", "Pillow's mode before conversion to RGB", nullable=True),
            Column("frames", "int64", "1 = a still", nullable=True, low=1),
            Column("exif_orientation", "int64", "1 = upright", nullable=True, low=1, high=8),
            Column("has_alpha", "bool", "whether any pixel is not opaque", nullable=True),
            Column("icc_profile", "string", "the embedded colour profile's name; empty without one", nullable=True),
            Column(
                "sharpness",
                "float64",
                "variance of the Laplacian of the 256 px grey picture",
                nullable=True,
                low=0,
            ),
            Column("detail", "float64", "Shannon entropy of grey levels, bits", nullable=True, low=0, high=8),
            Column(
                "simple_background",
                "float64",
                "share of the picture in its border-connected uniform area",
                nullable=True,
                low=0,
                high=1,
            ),
            Column("lettering", "float64", "share that lines of letters cover", nullable=True, low=0, high=1),
            Column("subjects", "int64", "subjects by tags, of a group at least so many", nullable=True, low=0),
            *(
                Column(
                    f"focal_{side}",
                    "float64",
                    f"{side} of the most salient box, share of the side",
                    nullable=True,
                    low=0,
                    high=1,
                )
                for side in ("left", "top", "right", "bottom")
            ),
            Column("palette", "strings", "up to five colours, #rrggbb, commonest first", nullable=True),
            Column("phash", "string", "64-bit perceptual hash, 16 hex digits", nullable=True),
            Column("duplicate_of", "int64", "smaller post id of its near-duplicate group", nullable=True),
        ),
        key=("post_id",),
    ),
    Table(
        "training_set",
        "One row per curation and kept post: in the training set, held out, or left out with the reason.",
        (
            Column("curation", "string", "name of the curation"),
            _id(),
            Column("kept", "bool", "whether the picture is used"),
            Column("split", "string", "train, validation, or out", among=("train", "validation", "out")),
            Column("reason", "string", "why it was left out; empty when kept"),
            Column("path", "string", "the picture, relative to the data folder", nullable=True),
            Column("solo", "bool", "tagged solo"),
            Column("simple_background", "bool", "tagged with a simple background"),
            Column("text", "bool", "tagged as having lettering"),
        ),
        key=("curation", "post_id"),
    ),
    Table(
        "crops",
        "One row per crop: one for each picture of the set's curation, or several parts, and mirror images.",
        (
            _id(),
            Column("status", "string", "ok, or failed", among=("ok", "failed")),
            Column("reason", "string", "why there is no crop; empty when ok"),
            Column("split", "string", "train or validation", among=("train", "validation")),
            Column("path", "string", "the crop (PNG or WebP), relative to the data folder", nullable=True),
            Column("part", "int64", "which part of a long picture, from its left or top; else 0", low=0),
            Column("flipped", "bool", "whether it is the mirror image"),
            Column("size", "int64", "the crop set's size: side of its squares, pixels", low=1),
            Column("width", "int64", "width of the crop, pixels", nullable=True, low=1),
            Column("height", "int64", "height of the crop, pixels", nullable=True, low=1),
            Column("left", "int64", "left edge of what was cut, in the upright picture", nullable=True, low=0),
            Column("top", "int64", "top edge of what was cut, in the upright picture", nullable=True, low=0),
            Column("box_width", "int64", "width of what was cut, in the upright picture", nullable=True, low=1),
            Column("box_height", "int64", "height of what was cut, in the upright picture", nullable=True, low=1),
            Column(
                "focus_x",
                "float64",
                "focal point, share of the picture's width",
                nullable=True,
                low=0,
                high=1,
            ),
            Column(
                "focus_y",
                "float64",
                "focal point, share of the picture's height",
                nullable=True,
                low=0,
                high=1,
            ),
            Column("detectors", "strings", "detectors that fired, or `manual`, or `split`"),
            Column("sha256", "string", "sha256 of the crop file", nullable=True),
            Column("alpha_sha256", "string", "sha256 of its alpha file; empty where all is opaque", nullable=True),
        ),
        key=("post_id", "part", "flipped"),
    ),
)

_TRAINING = (
    Table(
        "losses",
        "One row per optimizer update (kept beside the embedding, not a table of its own).",
        (
            Column("step", "int64", "optimizer updates done, from 1", low=1),
            Column("epoch", "int64", "pass over the pictures, from 1", low=1),
            Column("epoch_step", "int64", "update within the epoch, from 1", low=1),
            Column("loss", "float64", "mean squared error of the update's batch; missing if not finite", nullable=True),
            Column("learning_rate", "float64", "rate used for the update", low=0),
            Column(
                "gradient_norm",
                "float64",
                "L2 norm of the embedding's gradient before clipping; missing if not finite",
                nullable=True,
                low=0,
            ),
            Column(
                "vector_norm",
                "float64",
                "mean L2 norm of the vectors after the update; missing if not finite, which as above skips the update",
                nullable=True,
                low=0,
            ),
            *(
                Column(
                    f"error_quarter_{part}",
                    "float64",
                    f"mean squared error, not weighted, of samples in the timesteps' quarter {part} (1: least noise)",
                    nullable=True,
                )
                for part in (1, 2, 3, 4)
            ),
        ),
        key=("step",),
    ),
    Table(
        "embedding",
        "One row per kept checkpoint of the variant.",
        (
            Column("checkpoint", "string", "<variant>-<step>"),
            Column("step", "int64", "optimizer updates done", low=0),
            Column("epoch", "int64", "passes over the pictures begun", low=0),
            Column("vectors", "int64", "vectors of the embedding", low=1),
            Column("width", "int64", "width of each vector", low=1),
            Column("pt_path", "string", "A1111 file, relative to the data folder"),
            Column("safetensors_path", "string", "safetensors file, relative to the data folder"),
            Column("sha256", "string", "sha256 of the safetensors file"),
            Column("pt_sha256", "string", "sha256 of the A1111 file"),
            Column("short_hash", "string", "A1111's four-digit hash"),
            Column("mean_loss", "float64", "mean loss since the previous checkpoint", nullable=True),
            Column("validation_loss", "float64", "loss on held-out pictures, fixed noise", nullable=True),
            Column("moved", "float64", "L2 distance from the initial vectors, mean over vectors", low=0),
            Column("mean_norm", "float64", "mean L2 norm of the vectors", low=0),
            Column("nearest_tokens", "string", "the vocabulary's token nearest to each vector by cosine"),
            Column("nearest_cosine", "float64", "mean cosine of vectors and their nearest tokens", low=-1, high=1),
        ),
        key=("checkpoint",),
    ),
)

_PURGES = Table(
    "purges",
    "What purges of artists found, and what became of it.",
    (
        Column("artist", "string", "the artist, in the spelling by which names are compared"),
        Column("study", "string", "the study; empty for what all studies share"),
        Column(
            "kind",
            "string",
            "what it is",
            among=("picture", "crop", "export", "latents", "report", "embedding", "release"),
        ),
        Column("item", "string", "the file or folder, relative to the data folder"),
        Column("post_id", "int64", "the post that it was of", nullable=True, low=0),
        Column(
            "done",
            "string",
            "removed; kept (a post of somebody else has the same file); listed (made with pictures of the artist)",
            among=("removed", "kept", "listed"),
        ),
        Column("at", "timestamp", "when the purge found it"),
    ),
    key=("artist", "study", "kind", "item"),
)

_CHECKPOINT = (
    Column("variant", "string", "variant"),
    Column("checkpoint", "string", "<variant>-<step>"),
    Column("step", "int64", "optimizer updates of the checkpoint", low=0),
)
_PICTURE = (
    Column("cell", "string", "identity of everything that decides the picture's pixels"),
    *_CHECKPOINT,
    Column("axis", "string", "axis of the suite"),
    Column("value", "string", "value on that axis"),
    Column("seed", "int64", "seed of the noise", low=0),
    Column("sampler", "string", "DDIM, Euler a or DPM++ 2M Karras"),
    Column("steps", "int64", "sampler steps", low=1),
    Column("cfg", "float64", "guidance scale", low=1),
    Column("size", "int64", "side in pixels", low=8),
    Column("clip_skip", "int64", "which hidden state of the text encoder, from the last", low=1, high=12),
    Column("base", "string", "base model's name in the study"),
    Column("token", "string", "the embedding's name in the prompt"),
    Column("embedding_sha256", "string", "sha256 of the embedding's file"),
    Column("prompt", "string", "prompt with the embedding's name in it"),
    Column("negative", "string", "negative prompt"),
    Column("path", "string", "the picture, relative to the data folder"),
    Column("sha256", "string", "sha256 of the picture file"),
)
_SCORE = (
    Column("cell", "string", "the picture, as in evaluation_images"),
    *_CHECKPOINT,
    Column("axis", "string", "axis of the suite"),
    Column("value", "string", "value on that axis"),
    Column("seed", "int64", "seed of the noise", low=0),
    Column(
        "metric",
        "string",
        "match (the asked value wins), probability, tags (share that shows), near (to the concept's pictures),"
        " training, prompt, diversity; sameness (with other prompts), copy, kid and broken: lower is better",
    ),
    Column("score", "float64", "the score"),
    Column(
        "read_as",
        "string",
        "the value seen; of tags, those not seen; of copy, the picture copied",
        nullable=True,
    ),
)
_VOTES = ("pair", "cell")
_CHOICES = ("first", "second", "tie", "match", "mismatch")
_EVALUATION = (
    Table("evaluation_images", "One row per rendered picture.", _PICTURE, key=("cell",)),
    Table("evaluation_scores", "One row per rendered picture and metric.", _SCORE, key=("cell", "metric")),
    Table(
        "reference_images",
        "One row per picture drawn without an embedding, or with the concept in words.",
        _PICTURE,
        key=("cell",),
    ),
    Table(
        "reference_scores",
        "The same as evaluation_scores of the references, and of the concept's own held-out pictures.",
        (Column("base", "string", "base model, and what else tells its references from others"), *_SCORE),
        key=("base", "cell", "metric"),
    ),
    Table(
        "evaluation_grids",
        "One row per X/Y grid.",
        (
            Column("grid", "string", "file stem of the grid"),
            Column("axis", "string", "axis of the suite"),
            Column("variant", "string", "variant that is shown; `best`: the best checkpoints of several"),
            Column("x", "string", "what differs between columns"),
            Column("y", "string", "what differs between rows"),
            Column("fixed", "string", "what is the same in all cells"),
            Column("seed", "int64", "seed of the first picture's noise", low=0),
            Column("sampler", "string", "sampler of the first picture"),
            Column("size", "int64", "side of the largest picture in pixels", low=8),
            Column("rows", "int64", "rows", low=1),
            Column("columns", "int64", "columns", low=1),
            Column("missing", "int64", "cells without a picture", low=0),
            Column("path", "string", "the PNG, relative to the data folder"),
            Column("webp_path", "string", "the same as WebP; none beyond 16,383 pixels", nullable=True),
            Column("tiles", "int64", "pieces in full size, where the cells had to be made smaller", low=0),
        ),
        key=("grid",),
    ),
    Table(
        "leaderboard",
        "Per axis and overall: every checkpoint with its score, interval and rank.",
        (
            Column("axis", "string", "axis, or `obedience`, `likeness`, `overall`"),
            Column("variant", "string", "variant; empty for a reference"),
            Column("checkpoint", "string", "<variant>-<step>, or the reference: `no embedding`, `words`"),
            Column("step", "int64", "optimizer updates of the checkpoint", low=0),
            Column("candidate", "bool", "whether it can be best: not a reference"),
            Column("score", "float64", "axis: share right; the others as `evaluation.decision` has it"),
            Column("low", "float64", "lower end of its own 95 % interval, over seeds"),
            Column("high", "float64", "upper end of its own 95 % interval"),
            Column("behind", "float64", "how much lower than the first in rank", nullable=True),
            Column("behind_low", "float64", "lower end of its 95 % interval, for all pairs at once", nullable=True),
            Column("behind_high", "float64", "upper end of its 95 % interval, for all pairs at once", nullable=True),
            Column("p", "float64", "chance of such a lead between any two by luck", nullable=True, low=0, high=1),
            Column("tells", "float64", "smallest true difference that four of five such studies tell", low=0),
            Column("pictures", "int64", "pictures drawn for the score, each counted once", low=1),
            Column("mismatches", "int64", "of these, those in which the asked value is not what was seen", low=0),
            Column("rank", "int64", "1 = best; after all that learned come those that did not", nullable=True, low=1),
            Column("best", "bool", "the checkpoint named best of this board; none where none has learned"),
            Column("tied", "bool", "whether it cannot be told from the first in rank at 5 %"),
            Column("pareto", "bool", "overall: the best, and who beats it in obedience or likeness beyond chance"),
            Column("overfit", "bool", "overall: surely nearer to the concept and less obedient than an earlier one"),
            Column("learned", "bool", "whether it is nearer to the concept than its base is without it, beyond chance"),
            Column("counted", "bool", "axis: counts for obedience; not where a base gets nothing right by itself"),
            Column("excluded", "string", "why it was left out before ranking", nullable=True),
            Column(
                "people",
                "float64",
                "chance to win people's votes against one of average strength (Bradley-Terry)",
                nullable=True,
                low=0,
                high=1,
            ),
            Column("people_low", "float64", "lower end of its 95 % interval", nullable=True, low=0, high=1),
            Column("people_high", "float64", "upper end of its 95 % interval", nullable=True, low=0, high=1),
            Column("people_votes", "int64", "votes that it stood in", low=0),
            Column("people_judged", "int64", "pictures that people judged one by one", low=0),
            Column("people_mismatches", "int64", "of these, those that most raters ticked", nullable=True, low=0),
        ),
        key=("axis", "checkpoint"),
    ),
    Table(
        "votes",
        "What people said of pictures, undone votes left out.",
        (
            Column("vote", "string", "identity of the vote"),
            Column("rater", "string", "who"),
            Column("at", "timestamp", "when, UTC"),
            Column(
                "kind", "string", "`pair`: which of two is better; `cell`: does one show what was asked", among=_VOTES
            ),
            Column("axis", "string", "axis of the suite"),
            Column("value", "string", "value on that axis"),
            Column("seed", "int64", "seed of the noise", low=0),
            Column("first", "string", "checkpoint; of a pair, the one on the left"),
            Column("second", "string", "the other checkpoint of a pair; empty for a single picture"),
            Column("first_cell", "string", "its picture, as in evaluation_images"),
            Column("second_cell", "string", "the other picture; empty for a single picture"),
            Column("choice", "string", "first, second or tie; match or mismatch", among=_CHOICES),
        ),
        key=("vote",),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (*_CATALOG, *_POSTS, *_CAPTIONS, *_PICTURES, _PURGES, *_TRAINING, *_EVALUATION)
}
