"""Study files: finding them, loading them, and the rules that look beyond a single field.

Here: folders, files, names that file systems keep apart, words that embeddings must not take over, the content policy.
Not here: what a field means (`studies`), YAML and its lines (`study_yaml`), how a fault is worded (`study_faults`).

`python -m ti_pipeline.study_files --schema FILE` writes the JSON schema with which editors complete a study;
`--check` tells the faults of all study files, and fails if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.clip_vocabulary import clip_words
from ti_pipeline.studies import E621ExportSource, E621Source
from ti_pipeline.study_faults import checked, json_schema
from ti_pipeline.study_yaml import StudyError, YamlFile, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ti_pipeline.studies import Study
    from ti_pipeline.study_faults import Location

__all__ = ["LoadedStudy", "StudyError", "load_studies", "load_study", "readable_studies", "study_folders", "texts_of"]

# Names that Windows keeps for devices, whatever their suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# Entries whose names become parts of file names or partition keys.
_NAMED: tuple[tuple[str, ...], ...] = (
    ("variants",),
    ("captions",),
    ("curations",),
    ("crops", "sets"),
    ("evaluation", "axes"),
)
# Names that the product itself uses where those of the study's entries stand, and for what.
_TAKEN: dict[tuple[str, ...], dict[str, str]] = {
    ("variants",): {
        "grids": "the folder of the grids, beside those of the variants",
        "best": "the grid that compares variants",
        "references": "the folder of the pictures without an embedding",
    },
    ("evaluation", "axes"): {
        "overall": "the leaderboard's row over all axes",
        "obedience": "the leaderboard's row of obedience",
        "likeness": "the leaderboard's row of likeness to the concept",
        "held-out": "the row of the concept's own pictures",
    },
}


@dataclass(frozen=True)
class LoadedStudy:
    """A study with the file it came from; relative paths in it start at the file's folder."""

    study: Study
    path: Path
    text: str


def study_folders() -> list[Path]:
    """Return this checkout's `data/studies` and the folders of `TI_STUDIES`, each once.

    Raises `StudyError` for a folder that is not there.
    """
    folders = [Path(__file__).resolve().parents[1] / "data" / "studies"]
    folders += [Path(part).expanduser() for part in os.environ.get("TI_STUDIES", "").split(os.pathsep) if part]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise StudyError(f"no such folder of studies: {', '.join(missing)} (correct TI_STUDIES, or make the folder)")
    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    return list(unique.values())


def load_studies(folders: Sequence[Path]) -> dict[str, LoadedStudy]:
    """Return the studies of all `*.yaml` files in `folders`, by name, in the order of folders and file names.

    Raises `StudyError` with every fault of every file at once.
    """
    found, faulty = readable_studies(folders)
    if faulty:
        raise StudyError("\n".join(faulty.values()))
    return found


def readable_studies(folders: Sequence[Path]) -> tuple[dict[str, LoadedStudy], dict[str, str]]:
    """Return the studies of `folders` that are right, and the faults of the others, a line each, by their file's name.

    One faulty file leaves out that study, and those that compare with it; of two studies of one name, the second.
    """
    found: dict[str, LoadedStudy] = {}
    faulty: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in _study_paths(folder)):
        try:
            loaded = _only_yaml(path)
        except StudyError as error:
            faulty.setdefault(path.stem, []).append(str(error))
            continue
        twin = next((other for name, other in found.items() if name.casefold() == loaded.study.name.casefold()), None)
        if twin is None:
            found[loaded.study.name] = loaded
        else:
            line = read_yaml(path).line(["name"])
            fault = f"{path}:{line}: name: study {twin.study.name!r} exists already in {twin.path}; rename one"
            name = path.stem if path.stem not in found else str(path)
            faulty.setdefault(name, []).append(fault)
    _leave_out_what_compares_with_faulty_ones(found, faulty)
    return found, {name: "\n".join(faults) for name, faults in faulty.items()}


def _leave_out_what_compares_with_faulty_ones(found: dict[str, LoadedStudy], faulty: dict[str, list[str]]) -> None:
    """Move studies whose versions or contrasts are not there to `faulty`, until all that are left have theirs.

    A study that is not there because its own file is faulty is told as such, too.
    """
    left_out = True
    while left_out:
        told = {
            name: [*_version_faults(loaded, found), *_contrast_faults(loaded, found)] for name, loaded in found.items()
        }
        broken = {name: faults for name, faults in told.items() if faults}
        for name, faults in broken.items():
            del found[name]
            faulty.setdefault(name, []).extend(faults)
        left_out = bool(broken)


def _version_faults(loaded: LoadedStudy, all_studies: Mapping[str, LoadedStudy]) -> Iterator[str]:
    """Find checkpoints to compare with whose study or variant is not there."""
    for index, version in enumerate(loaded.study.evaluation.versions):
        place, other = ("evaluation", "versions", index), all_studies.get(version.study)
        known = list(all_studies) if other is None else list(other.study.variants)
        name = version.study if other is None else version.variant
        if name not in known:
            what = "study" if other is None else f"variant of {version.study}"
            yield read_yaml(loaded.path).fault(place, f"there is no {what} {name!r} (known: {', '.join(known)})")


def _contrast_faults(loaded: LoadedStudy, all_studies: Mapping[str, LoadedStudy]) -> Iterator[str]:
    """Find caption plans whose contrast is no study, or the study itself."""
    others = [name for name in all_studies if name != loaded.study.name]
    for plan, captions in loaded.study.captions.items():
        if captions.contrast is not None and captions.contrast not in others:
            problem = f"there is no other study {captions.contrast!r} (known: {', '.join(others)})"
            yield read_yaml(loaded.path).fault(("captions", plan, "contrast"), problem)


def _study_paths(folder: Path) -> list[Path]:
    """Return the study files of a folder by name, and `.yml` files, which would be overlooked beside them."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in visible if path.suffix.lower() in (".yaml", ".yml")]


def _only_yaml(path: Path) -> LoadedStudy:
    if path.suffix != ".yaml":
        raise StudyError(f"{path}:1: study files end in .yaml; rename it to {path.stem}.yaml")
    return load_study(path)


def load_study(path: Path) -> LoadedStudy:
    """Return one study. Raises `StudyError` that names file, line, field and what is allowed, for every fault."""
    file = read_yaml(path)
    study, faults = checked(file)
    faults += _name_faults(file)
    if study is not None:
        faults += [*_token_faults(study, file), *_policy_faults(study, file)]
    if study is None or faults:
        raise StudyError("\n".join(dict.fromkeys(faults)))
    return LoadedStudy(study, path, file.text)


def _name_faults(file: YamlFile) -> Iterator[str]:
    """Find names that file systems would not keep apart or not take."""
    name = file.values.get("name")
    if isinstance(name, str) and name != file.path.stem:
        yield file.fault(["name"], f"is {name!r}, but the file is called {file.path.name}; make them the same")
    if isinstance(name, str) and _RESERVED.fullmatch(name):
        yield file.fault(["name"], f"{name!r} is a device name on Windows; choose another")
    for place in _NAMED:
        first: dict[str, str] = {}
        for name in _names_at(file.values, place):
            if _RESERVED.fullmatch(name):
                yield file.fault([*place, name], f"{name!r} is a device name on Windows; choose another")
            if (use := _TAKEN.get(place, {}).get(name.casefold())) is not None:
                yield file.fault([*place, name], f"{name!r} is the name of {use}; choose another")
            twin = first.setdefault(name.casefold(), name)
            if twin != name:
                yield file.fault([*place, name], f"differs from {twin!r} only in upper and lower case; choose another")


def _names_at(values: Any, place: Sequence[str]) -> list[str]:
    for part in place:
        values = values.get(part) if isinstance(values, dict) else None
    return [str(name) for name in values] if isinstance(values, dict) else []


def _token_faults(study: Study, file: YamlFile) -> Iterator[str]:
    """Find names of embeddings that people could not use in prompts, or that would be no file names."""
    for name in study.variants:
        token = str(study.variant(name).token)
        where = _token_place(name, file)
        if token.lower() in clip_words():
            yield file.fault(
                where,
                f"an embedding named {token!r} would take over that word in every prompt; set token:"
                f" to something that is no word, e.g. {study.name}-{name}",
            )
        if _RESERVED.fullmatch(token):
            yield file.fault(where, f"{token!r} is a device name on Windows; set token: to another")
    for name in study.evaluation.embeddings:
        if name.lower() in clip_words():
            problem = f"an embedding named {name!r} would take over that word in every prompt; choose another name"
            yield file.fault(["evaluation", "embeddings", name], problem)


def _token_place(variant: str, file: YamlFile) -> Location:
    """Return what the embedding's name comes from: the variant's token, that of all, or the variant's own name."""
    places: tuple[Location, ...] = (("variants", variant, "token"), ("common", "token"))
    return next((place for place in places if file.has(place)), ("variants", variant))


def _policy_faults(study: Study, file: YamlFile) -> Iterator[str]:
    """Find texts that name what the content policy excludes."""
    from ti_pipeline.e621.policy import PolicyError, load_policy
    from ti_pipeline.sources.reading import SourceError
    from ti_pipeline.sources.search import limited_to_ratings

    source = study.source
    policy = load_policy(ratings=source.ratings, exclude_tags=source.exclude_tags, do_not_post=source.do_not_post)
    for location, text in texts_of(study):
        place = _place_of(location, file)
        try:
            policy.require_clean_text(text, ".".join(map(str, place)))
        except PolicyError as error:
            yield f"{file.path}:{file.line(place)}: {error}"
    if isinstance(source, E621Source | E621ExportSource):
        wanted = [term.removeprefix("~") for term in (source.query or "").split() if not term.startswith("-")]
        reason = policy.refuses_tags(wanted)
        if reason:
            yield file.fault(["source", "query"], f"asks for an {reason}, which the content policy never lets through")
        try:
            limited_to_ratings(source.query or "", source.ratings)
        except SourceError as error:
            yield file.fault(["source", "query"], str(error).removeprefix("source.query "))


def texts_of(study: Study) -> Iterator[tuple[Location, str]]:
    """Yield every text of a study that names what is learned, or that reaches a caption or a prompt, and its field."""
    yield ("name",), study.name
    yield ("title",), study.title
    if study.source.kind == "demo":
        yield ("source", "concept"), study.source.concept
    for plan, captions in study.captions.items():
        named = {"keep": captions.keep, "concept": captions.concept if isinstance(captions.concept, list) else []}
        for field, tags in named.items():
            for index, tag in enumerate(tags):
                yield ("captions", plan, field, index), tag
        for old, new in captions.replace.items():
            yield ("captions", plan, "replace", old), new
    for name, variant in study.variants.items():
        yield ("variants", name), name
        yield ("variants", name, "token"), str(study.variant(name).token)
        file = [Path(variant.initializer_file).stem] if variant.initializer_file else []
        fields = {"initializer": [variant.initializer], "initializer_file": file, "templates": variant.templates}
        for field, texts in fields.items():
            for text in texts:
                yield ("variants", name, field), text
    yield from _evaluation_texts(study)


def _evaluation_texts(study: Study) -> Iterator[tuple[Location, str]]:
    yield ("evaluation", "words"), study.evaluation.words
    for name, path in study.evaluation.embeddings.items():
        yield ("evaluation", "embeddings", name), f"{name}, {Path(path).stem}"
    for name, axis in study.evaluation.axes.items():
        for field, texts in (("prompt", [axis.prompt]), ("negative", [axis.negative]), ("values", axis.values)):
            for text in texts:
                yield ("evaluation", "axes", name, field), text


def _place_of(location: Location, file: YamlFile) -> Location:
    """Return where people wrote a text of `texts_of`: what comes from `common` stands there."""
    if location[0] != "variants" or len(location) < 3:
        return location
    if location[2] == "token":
        return _token_place(str(location[1]), file)
    return location if file.has(location) else ("common", *location[2:])


def main(arguments: list[str] | None = None) -> int:
    """Write the JSON schema, or check all files; return the exit status."""
    from ti_pipeline.files import write_atomically

    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.study_files", description=__doc__)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--schema", type=Path, help="the file to write")
    wanted.add_argument("--check", action="store_true", help="tell the faults of all study files")
    options = parser.parse_args(arguments)
    if options.check:
        _, faulty = readable_studies(study_folders())
        for faults in faulty.values():
            print(faults, file=sys.stderr)  # noqa: T201
        return 1 if faulty else 0
    with write_atomically(options.schema) as aside:
        aside.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
