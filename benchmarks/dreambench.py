"""The DreamBooth protocol: this product beside the published row of textual inversion, on anybody's copy of its data.

Ruiz et al. 2023 (DreamBooth) draw 30 subjects with 25 prompts, 4 pictures each, and measure DINO and CLIP-I (mean
cosine similarity of pictures drawn to the subject's own) and CLIP-T (to the prompt's text). A subject becomes a study.

    python benchmarks/dreambench.py write --data ~/dreambooth/dataset --out ~/studies --base ~/v1-5.safetensors
    TI_STUDIES=~/studies make study STUDY=db-backpack     # each of them, on a machine with a GPU
    python benchmarks/dreambench.py measure --data ~/dreambooth/dataset --out ~/studies
    python benchmarks/dreambench.py drawn                 # the same path with the demo's base and 3 drawn subjects

`--data` is the folder with a folder for each subject, `prompts_and_classes.txt` beside or in it. `measure` prints the
mean of all evaluated studies beside the published row and keeps dated JSON. The real row was not measured here: there
are no weights and no photographs on the machine that this was written on; `drawn` shows that the path works, and its
figures compare with nothing published.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "data" / "base_models" / "demo"
# Table 1 of the paper, Stable Diffusion; real pictures are the subject's among themselves.
PUBLISHED = {
    "textual inversion": {"DINO": 0.569, "CLIP-I": 0.780, "CLIP-T": 0.255},
    "real pictures": {"DINO": 0.774, "CLIP-I": 0.885},
}
JUDGES = {"DINO": {"hub": "facebook/dino-vits16"}, "CLIP": {"hub": "openai/clip-vit-base-patch32"}}
SEEDS = [0, 1, 2, 3]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LIVE = ("cat", "dog")  # classes of the living subjects, which have prompts of their own
DRAWN_PROMPTS = ["a {0} {1}, city", "a {0} {1}, sea", "a {0} {1}, coat, simple background"]


def prompts_and_classes(path: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the class of each subject, the prompts of objects, and those of living subjects, as the file has them."""
    if not path.is_file():
        raise SystemExit(f"{path} is not there: it is part of the DreamBooth data set")
    text = path.read_text(encoding="utf-8")
    classes = dict(re.findall(r"^([a-z0-9_]+),([a-z0-9 _]+)$", text, flags=re.MULTILINE))
    classes.pop("subject_name", None)
    objects, _, living = text.partition("Live Subject Prompts")
    return classes, *(re.findall(r"'([^'\n]*\{0\}[^'\n]*)'\s*\.format", part) for part in (objects, living))


def described(data: Path) -> Path:
    """Return where `prompts_and_classes.txt` lies."""
    return next((p for p in (data, data.parent) if (p / "prompts_and_classes.txt").is_file()), data) / (
        "prompts_and_classes.txt"
    )


def study_of(
    subject: str, kind: str, prompts: list[str], data: Path, base: dict[str, str], more: dict[str, Any]
) -> dict[str, Any]:
    """Return the study of one subject: the published recipe is one vector that starts at the class' name."""
    values = [prompt.replace("{0}", "[name]").replace("{1}", kind) for prompt in prompts]
    study: dict[str, Any] = {
        "name": f"db-{subject.replace('_', '-')}",
        "title": f"DreamBooth protocol: {subject}",
        "source": {"kind": "folder", "path": str((data / subject).resolve()), "assume_rating": "s"},
        "base_models": {"base": base},
        "curation": {"min_images": 1, "validation_share": 0, "drop_duplicates": False, "min_side": 32},
        "crops": {"sizes": [512]},
        "captions": {"none": {"source": "none"}},
        "common": {"base": "base", "captions": "none", "crop": 512, "initializer": kind, "checkpoint_every": 1000}
        | {"templates": [f"a photo of [name] {kind}"], "steps": 3000, "batch_size": 4},
        "variants": {"v1": {"vectors": 1}, "v4": {"vectors": 4}},
        "evaluation": {
            "axes": {"prompts": {"prompt": "[name]", "search": "[name]", "values": values}},
            "seeds": SEEDS,
            "samplers": [{"name": "DDIM", "steps": 50, "cfg": 7.5}],
            "scorer": JUDGES["CLIP"],
            "likeness": JUDGES["DINO"],
        },
    }
    for section, values_of in more.items():
        study[section] = study.get(section, {}) | values_of
    return study


def write(data: Path, out: Path, base: dict[str, str], more: dict[str, Any] | None = None) -> list[str]:
    """Write a study for every subject of the data; return their names."""
    classes, objects, living = prompts_and_classes(described(data))
    names = []
    for subject, kind in sorted(classes.items()):
        if not (data / subject).is_dir():
            raise SystemExit(f"{described(data)} names {subject}, and there is no folder {data / subject}")
        study = study_of(subject, kind, living if kind in LIVE and living else objects, data, base, more or {})
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{study['name']}.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        names.append(study["name"])
    print(f"{len(names)} studies in {out}; next, for each: TI_STUDIES={out} make study STUDY={names[0]}")
    return names


def measured(name: str, data: Path, tables: Any, root: Path, judges: dict[str, Any]) -> dict[str, float] | None:
    """Return DINO, CLIP-I and CLIP-T of a study's best checkpoint; None where it is not evaluated yet."""
    from ti_pipeline.evaluation.references import without_name
    from ti_pipeline.evaluation.similarity import similarity_to

    board = tables.read("leaderboard", name)
    if board is None:
        return None
    first = board[(board.axis == "overall") & (board["rank"] == 1)].iloc[0]
    images = tables.read("evaluation_images", f"{name}__{first.variant}")
    images = images[images.checkpoint == first.checkpoint]
    subject = next(p for p in sorted(data.iterdir()) if f"db-{p.name.replace('_', '-')}" == name)
    real = [path for path in sorted(subject.iterdir()) if path.suffix.lower() in SUFFIXES]
    drawn = [root / path for path in images.path]
    found = {}
    for metric, judge in (("DINO", judges["DINO"]), ("CLIP-I", judges["CLIP"])):
        found[metric] = float(similarity_to(judge.image_features(drawn), judge.image_features(real)).mean())
    texts = [without_name(p.replace(t, "\0")) for p, t in zip(images.prompt, images.token, strict=True)]
    said = judges["CLIP"].text_features(texts)
    found["CLIP-T"] = float((judges["CLIP"].image_features(drawn) * said).sum(dim=1).mean())
    return found


def measure(data: Path, names: list[str], sources: dict[str, dict[str, str]], store: str) -> dict[str, Any]:
    """Print and return the means over all evaluated studies, beside what was published."""
    from upath import UPath

    from ti_pipeline.evaluation.eyes import load_eyes
    from ti_pipeline.evaluation.scorers import load_scorer
    from ti_pipeline.io_managers import Tables
    from ti_pipeline.studies import BaseModelSource

    judges = {
        "DINO": load_eyes(BaseModelSource(**sources["DINO"]), folder=HERE),
        "CLIP": load_scorer(BaseModelSource(**sources["CLIP"]), folder=HERE),
    }
    rows = {name: measured(name, data, Tables(UPath(store)), Path(store), judges) for name in names}
    done = {name: row for name, row in rows.items() if row is not None}
    if not done:
        raise SystemExit("no study is compared yet: run `make study` for them first")
    mean = {metric: sum(row[metric] for row in done.values()) / len(done) for metric in next(iter(done.values()))}
    print(f"{len(done)} of {len(names)} subjects")
    for who, row in {"this product": mean, **PUBLISHED}.items():
        print(f"  {who:20} " + "  ".join(f"{metric} {value:.3f}" for metric, value in row.items()))
    return {"subjects": len(done), "mean": mean, "by subject": done}


def drawn() -> None:
    """Walk the whole path on three subjects of the drawn world with the demo's base and its scorer as both judges."""
    import random

    from ti_pipeline.demo.world import CONCEPTS, bust, random_attributes

    with tempfile.TemporaryDirectory() as work:
        data, out, store = (Path(work) / name for name in ("dataset", "studies", "store"))
        lines = ["Classes", "subject_name,class"]
        for concept in CONCEPTS:
            (data / concept).mkdir(parents=True)
            for number in range(5):
                rng = random.Random(f"dreambench {concept} {number}")
                shown = random_attributes(rng, concept=concept, style="flat")
                bust(shown, 512, rng).save(data / concept / f"{number:02}.png")
            lines.append(f"{concept},anthro")
        lines += ["", "Object Prompts", *(f"'{prompt}'.format(unique_token, class_token)," for prompt in DRAWN_PROMPTS)]
        (data / "prompts_and_classes.txt").write_text("\n".join(lines), encoding="utf-8")
        more = {
            "common": {"resolution": 64, "steps": 100, "checkpoint_every": 100, "learning_rate": "0.01"},
            "evaluation": {"sizes": [64], "scorer": {"folder": str(DEMO / "scorer")}, "batch_size": 32}
            | {"samplers": [{"name": "DDIM", "steps": 20, "cfg": 6}], "likeness": {"folder": str(DEMO / "scorer")}},
        }
        names = write(data, out, {"folder": str(DEMO)}, more)
        for name in names:
            environment = os.environ | {"TI_STUDIES": str(out), "TI_DATA": str(store)}
            command = [
                sys.executable,
                "-m",
                "dagster",
                "job",
                "execute",
                "-m",
                "ti_pipeline.definitions",
                "-j",
                "study",
            ]
            tags = ["--tags", f'{{"dagster/partition": "{name}"}}']
            subprocess.run([*command, *tags], check=True, env=environment)
        judge = {"folder": str(DEMO / "scorer")}
        keep(measure(data, names, {"DINO": judge, "CLIP": judge}, str(store)), "dreambench-drawn")


def keep(found: dict[str, Any], name: str) -> None:
    """Keep dated JSON."""
    from ti_pipeline.files import write_json

    today = datetime.datetime.now(tz=datetime.UTC).date()
    write_json(HERE / "results" / f"{today}-{name}.json", {"date": str(today), "published": PUBLISHED, **found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "measure", "drawn"), nargs="?", default="drawn")
    parser.add_argument("--data", type=Path, help="the folder with a folder for each subject")
    parser.add_argument("--out", type=Path, help="where the studies are written")
    parser.add_argument("--base", type=Path, help="a single file or a diffusers folder of Stable Diffusion 1.5")
    given = parser.parse_args()
    if given.what == "drawn":
        return drawn()
    if given.data is None or given.out is None:
        parser.error(f"{given.what} needs --data and --out")
    if given.what == "write":
        if given.base is None:
            parser.error("write needs --base")
        write(given.data, given.out, {"folder" if given.base.is_dir() else "file": str(given.base.resolve())})
        return None
    names = [path.stem for path in sorted(given.out.glob("db-*.yaml"))]
    store = os.environ.get("TI_DATA") or str(HERE.parent / "data" / "store")
    keep(measure(given.data, names, JUDGES, store), "dreambench")
    return None


if __name__ == "__main__":
    main()
