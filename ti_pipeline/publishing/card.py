"""The release's card: a README.md that people and model hubs read. It states only what was measured.

Here: facts for the card and their escaping. Not here: its wording (`templates/card.md.j2`), or files (`release`).
The metadata block follows Hugging Face's model card specification (hub docs, "Model Cards").
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.decision import in_words, rule_of
from ti_pipeline.publishing.attribution import artists_counted
from ti_pipeline.publishing.examples import diffusers_code, drawn_again
from ti_pipeline.publishing.untrusted import markdown_text
from ti_pipeline.publishing.verdict import boards, place_of, verdict

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.studies import BaseModelSource, Variant

__all__ = ["Released", "render_card"]

_TAGS = ["stable-diffusion", "stable-diffusion-diffusers", "textual_inversion", "embedding"]


@dataclass(frozen=True)
class Released:
    """What is released: the checkpoint's row of the `embedding` table, its resolved variant, its attribution.

    `examples` are rows of `evaluation_images` by axis whose pictures are released with it.
    """

    token: str
    variant_name: str
    variant: Variant
    checkpoint: Any
    attribution: pd.DataFrame
    pt_path: str
    safetensors_path: str
    examples: dict[str, Any]
    has_preview: bool
    has_losses: bool


def render_card(results: StudyResults, released: Released) -> str:
    """Return the card as Markdown with a YAML block; no licence is claimed unless the study gives one."""
    import jinja2
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return value if isinstance(value, Markup) else markdown_text(str(value))

    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - this is Markdown, not HTML: every value goes through markdown_text
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = (files("ti_pipeline.publishing") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    # Names and paths of ours go into code as they are: studies.Token and studies.Name allow no character of markup.
    shown_again = drawn_again(released.examples, int(released.checkpoint.vectors))
    base = results.study.base_models[released.variant.base]
    plain = {
        "metadata": _metadata(results, released),
        "diffusers_token": released.token.lower(),
        "token": released.token,
        "pt": released.pt_path,
        "safetensors": released.safetensors_path,
        "code": diffusers_code(base, released, shown_again),
    }
    marked: dict[str, Any] = {key: Markup(value) for key, value in plain.items()}  # noqa: S704 - see above
    marked["examples"] = [Markup(axis) for axis in released.examples]  # noqa: S704 - see above
    return str(environment.from_string(text).render(marked | _facts(results, released)))


def _metadata(results: StudyResults, released: Released) -> str:
    import yaml

    base, license_name = results.study.base_models[released.variant.base], results.study.release.license
    block: dict[str, Any] = {"license": license_name} if license_name else {}
    published = base.published_as or base.hub
    block |= {"base_model": published} if published else {}
    block |= {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": released.token,
        "tags": _TAGS,
    }
    return str(yaml.safe_dump(block, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _public_name(source: BaseModelSource) -> str:
    """Return a model's hub id, or its file or folder without the path: that is the maker's own business."""
    return source.published_as or source.hub or PureWindowsPath(place_of(source)).name  # reads both kinds of slashes


def _facts(results: StudyResults, released: Released) -> dict[str, Any]:
    study, variant, checkpoint = results.study, released.variant, released.checkpoint
    attribution = released.attribution
    measured = [row for rows in boards(results).values() for row in rows if row.checkpoint == checkpoint.checkpoint]
    ratings = results.posts[results.posts.post_id.isin(attribution.post_id)].rating.dropna()
    return {
        "study": study,
        "variant": variant,
        "variant_name": released.variant_name,
        "checkpoint": checkpoint,
        "base_place": _public_name(study.base_models[variant.base]),
        "verdict": verdict(results),
        "scorer": _public_name(study.evaluation.scorer),
        "measured": measured,
        "rule": in_words(rule_of(study)["prefer"]),
        "trained_on": int((attribution.split == "train").sum()),
        "held_out": int((attribution.split == "validation").sum()),
        "ratings": ", ".join(sorted(map(str, ratings.unique()))) or "unknown",
        "artists": artists_counted(attribution),
        "has_preview": released.has_preview,
        "has_losses": released.has_losses,
    }
