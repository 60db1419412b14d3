"""What the numbers of `inversion_quality` say: table, criterion, the seed log's beliefs, the page and its pictures.

Intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993) over pictures, resampled within each unit (concept
and seed): they tell how sure the mean of *these* trained embeddings is. How much another training would differ shows
in the number of units that agree. Differences are taken picture by picture, since all embeddings of a unit are asked
the same prompts with the same noise.
"""

from __future__ import annotations

import functools
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ti_pipeline.files import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Values = NDArray[np.float64]  # [units, pictures]

RESAMPLES = 2000
NAME = "inversion-quality"
METRICS = {  # as columns of the table: short name, digits
    "concept": ("concept similarity", 3),
    "species": ("species", 2),
    "attributes": ("own looks", 2),
    "colour": ("colour", 2),
    "eyes": ("eyes", 2),
    "marking": ("marking", 2),
    "accessory": ("accessory", 2),
    "confidence": ("sure of species", 2),
    "nearest": ("nearest drawing", 3),
    "sharpness": ("sharpness", 2),
}
HAND_START, HAND_END = (
    "<!-- by hand: this part is kept when the page is made anew -->",
    "<!-- end of the part by hand -->",
)
SPECIES_WANTED = 0.8


class Row(NamedTuple):
    """What pictures were drawn with."""

    kind: str
    vectors: int = 0
    plan: str = ""
    said: int = 0
    step: int = 0


class Estimate(NamedTuple):
    """A mean with its interval, and how many units lie on its side of zero (for differences)."""

    mean: float
    low: float
    high: float
    units: int = 0

    def text(self, digits: int, sign: str = "") -> str:
        """Return `mean [low, high]`."""
        mean, low, high = (f"{value:{sign}.{digits}f}" for value in self[:3])
        return f"{mean} [{low}, {high}]"


def resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bootstrap means of [units, pictures, ...] over units and pictures; always with the same draws."""
    picks = _picks(values.shape[0], values.shape[1])
    return np.asarray(values[np.arange(len(values))[None, :, None], picks].mean(axis=(1, 2)))


@functools.cache
def _picks(units: int, pictures: int) -> NDArray[np.int64]:
    return np.random.default_rng(6).integers(pictures, size=(RESAMPLES, units, pictures))


def estimate(values: Values) -> Estimate:
    """Return the mean of [units, pictures] with its interval, and how many units' means have its sign."""
    means = values.mean(axis=1)
    low, high = np.quantile(resampled(values), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), int((means * values.mean() > 0).sum()))


class Numbers:
    """All units' numbers: `by_row[row][metric]` is [units that have the metric, pictures]."""

    def __init__(self, units: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
        self.units, self.settings = [unit["unit"] for unit in units], settings
        self.by_row: dict[Row, dict[str, Values]] = {}
        for index, row in enumerate(Row(*(r[f] for f in Row._fields)) for r in units[0]["rows"]):
            found = [unit["rows"][index]["metrics"] for unit in units]
            self.by_row[row] = {
                m: np.array([f[m] for f in found if m in f]) for m in METRICS if any(m in f for f in found)
            }

    def of(self, metric: str, *row: Any) -> Values:
        """Return a row's values, the row given as in `Row`."""
        return self.by_row[Row(*row)][metric]

    def trained(self, metric: str, vectors: int, plan: str, said: int = 0) -> Values:
        """Return the values of a trained embedding after its last update."""
        return self.of(metric, "trained", vectors, plan, said, self.settings["steps"])

    def closeness(self, row: Row) -> float:
        """Return how far a row is from no embedding (0) to fresh drawings of the concept (1), in concept similarity."""
        nothing, all_of_it, own = (
            float(self.by_row[r]["concept"].mean()) for r in (Row("no embedding"), Row("drawings of the concept"), row)
        )
        return (own - nothing) / (all_of_it - nothing)


# --- the criterion


def criterion(numbers: Numbers, plan: str) -> list[dict[str, Any]]:
    """Return, by unit and vectors: initialisation against training, and whether both demands are met."""
    rows = []
    for index, unit in enumerate(numbers.units):
        for vectors in numbers.settings["vectors"]:
            before = estimate(numbers.of("concept", "initialisation", vectors)[[index]])
            after = estimate(numbers.trained("concept", vectors, plan)[[index]])
            species = estimate(numbers.trained("species", vectors, plan)[[index]])
            passed = {"better": after.low > before.high, "obeys": species.mean >= SPECIES_WANTED}
            rows.append(
                {"unit": unit, "vectors": vectors, "before": before, "after": after, "species": species} | passed
            )
    return rows


def criterion_text(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| unit | vectors | initialisation | trained | apart | species | ≥ 80 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        numbers = f"{r['before'].text(3)} | {r['after'].text(3)} | {_yes(r['better'])} | {r['species'].text(2)}"
        lines.append(f"| {r['unit']} | {r['vectors']} | {numbers} | {_yes(r['obeys'])} |")
    sums = []
    for vectors in dict.fromkeys(r["vectors"] for r in rows):
        own = [r for r in rows if r["vectors"] == vectors]
        better, obeys, both = sum(r["better"] for r in own), sum(r["obeys"] for r in own), sum(map(_both, own))
        sums.append(
            f"- {counted(vectors)}: better than its initialisation with intervals apart in {better} of {len(own)}"
            f" units; species right in at least 80 % of pictures in {obeys}; both in {both}."
        )
    failing = {r["vectors"] for r in rows if not _both(r)}
    passing = [counted(n) for n in dict.fromkeys(r["vectors"] for r in rows) if n not in failing]
    return [*sums, "", f"Met in every unit by: **{', '.join(passing) or 'no number of vectors'}**.", "", *lines]


def counted(vectors: int) -> str:
    """Return `1 vector`, `8 vectors`."""
    return f"{vectors} vector{'s' * (vectors != 1)}"


def _both(row: dict[str, Any]) -> bool:
    return bool(row["better"] and row["obeys"])


def controls_text(numbers: Numbers) -> list[str]:
    """Return how much better a trained embedding is than the controls with as many vectors, picture by picture."""
    middle, steps, lines = numbers.settings["middle"], numbers.settings["steps"], []
    for kind in ("shuffled", "random pictures", "plain loss", "tags dropped"):
        control = numbers.of("concept", kind, middle, "reduced", 0, steps)
        found = estimate(numbers.trained("concept", middle, "reduced") - control)
        lines.append(
            f"- Trained less `{kind}` in concept similarity, {counted(middle)}: {found.text(3, '+')};"
            f" {found.units} of {len(numbers.units)} units agree."
        )
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


# --- the beliefs


def verdict(found: Estimate, claimed: int) -> str:
    """Return whether a difference has the claimed sign (-1 or 1), the other, or cannot be told."""
    if found.low <= 0 <= found.high:
        return "cannot be told from these pictures"
    return "as the log says" if found.mean * claimed > 0 else "**against the log**"


def vectors_belief(numbers: Numbers, many: int, few: int, metric: str) -> list[str]:
    """Return a table of differences between two numbers of vectors, by plan, with a verdict on `metric`."""
    shown = list(dict.fromkeys((metric, "sharpness", "nearest", "confidence", "species", "attributes")))
    head = " | ".join(METRICS[m][0] for m in shown)
    lines = [f"| captions | {head} | {METRICS[metric][0]}: lower? |", "|---" * (len(shown) + 2) + "|"]
    for plan in numbers.settings["plans"]:
        found = {m: estimate(numbers.trained(m, many, plan) - numbers.trained(m, few, plan)) for m in shown}
        cells = " | ".join(found[m].text(METRICS[m][1], "+") for m in shown)
        judged = f"{verdict(found[metric], -1)} ({found[metric].units} of {len(numbers.units)} units agree)"
        lines.append(f"| {plan} | {cells} | {judged} |")
    return lines


def share_belief(numbers: Numbers) -> list[str]:
    """Return the arms with a fixed tag, and the effect of its share against that of the number of other tags."""
    shares, middle = [0, *numbers.settings["said"]], numbers.settings["middle"]
    plans = [plan for plan in ("species", "reduced") if plan in numbers.settings["plans"]]
    shown = ("colour", "concept", "species", "sharpness")
    head = " | ".join(METRICS[m][0] for m in shown)
    lines = [f"| other tags | colour said in | {head} |", "|---" * (len(shown) + 2) + "|"]
    for plan in plans:
        for share in shares:
            found = (estimate(numbers.trained(m, middle, plan, share)).text(METRICS[m][1]) for m in shown)
            lines.append(f"| {plan} | {share} % | {' | '.join(found)} |")
    lines.append("")
    if len(plans) < 2:
        return lines
    for metric in shown:
        share, number, larger = effects(numbers, metric, plans, (shares[0], shares[-1]))
        digits = METRICS[metric][1]
        judged = {"1": "as the log says", "-1": "**against the log**", "0": "cannot be told from these pictures"}
        side = "0" if larger.low <= 0 <= larger.high else str(int(np.sign(larger.mean)))
        lines.append(
            f"- {METRICS[metric][0]}: saying the colour in all captions instead of none changes it by"
            f" {share.text(digits, '+')}, many other tags instead of the species alone by {number.text(digits, '+')};"
            f" size of the first less size of the second {larger.text(digits, '+')}: {judged[side]}."
        )
    return lines


def effects(
    numbers: Numbers, metric: str, plans: Sequence[str], ends: tuple[int, int]
) -> tuple[Estimate, Estimate, Estimate]:
    """Return the main effects of share and of number of tags, and how much larger the first is in size."""
    middle = numbers.settings["middle"]
    corners = np.stack([[numbers.trained(metric, middle, p, s) for s in ends] for p in plans])  # [plan, share, u, n]
    share = (corners[:, 1] - corners[:, 0]).mean(axis=0)
    number = (corners[1] - corners[0]).mean(axis=0)
    sizes = np.abs(resampled(np.stack([share, number], axis=-1)))
    low, high = np.quantile(sizes[:, 0] - sizes[:, 1], [0.025, 0.975])
    larger = Estimate(float(abs(share.mean()) - abs(number.mean())), float(low), float(high))
    return estimate(share), estimate(number), larger


# --- table, plots, page


def table(numbers: Numbers) -> list[str]:
    """Return every row with its numbers, as Markdown."""
    names = [name for name in METRICS if any(name in found for found in numbers.by_row.values())]
    head = ["drawn with", "vectors", "captions", "colour said", "step", "of the way"]
    lines = [f"| {' | '.join([*head, *(METRICS[name][0] for name in names)])} |"]
    lines.append("|---" * (len(head) + len(names)) + "|")
    for row, found in numbers.by_row.items():
        own = [row.kind, row.vectors or "", row.plan, f"{row.said} %" if row.said else "", row.step or ""]
        cells = (estimate(found[name]).text(METRICS[name][1]) if name in found else "" for name in names)
        lines.append(f"| {' | '.join(map(str, [*own, f'{numbers.closeness(row):.0%}', *cells]))} |")
    return lines


def print_table(numbers: Numbers) -> None:
    """Print what matters of each row, on one line each."""
    print(f"{'drawn with':46} {'of the way':>10} {'concept':>22} {'species':>18} {'own looks':>18} sharpness nearest")
    for row, found in numbers.by_row.items():
        name = " ".join(
            str(part) for part in (*row[:3], f"said {row.said} %" if row.said else "", row.step or "") if part
        )
        concept, species, looks = (estimate(found[m]).text(METRICS[m][1]) for m in ("concept", "species", "attributes"))
        rest = f"{looks:>18} {found['sharpness'].mean():9.2f} {found['nearest'].mean():7.3f}"
        print(f"{name:46} {numbers.closeness(row):10.0%} {concept:>22} {species:>18} {rest}")


def plot(numbers: Numbers, path: Path) -> None:
    """Write the plot: metrics against vectors, a line per plan, and concept similarity against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    vectors = numbers.settings["vectors"]
    for axes, metric in zip(panels, ("concept", "species", "attributes", "sharpness", "nearest"), strict=False):
        for plan in numbers.settings["plans"]:
            _line(axes, vectors, [estimate(numbers.trained(metric, n, plan)) for n in vectors], f"trained, {plan}")
        before = [estimate(numbers.of(metric, "initialisation", n)) for n in vectors]
        _line(axes, vectors, before, "initialisation", color="black", linestyle="--")
        for kind, style in (("no embedding", ":"), ("words", "-."), ("drawings of the concept", "-")):
            level = numbers.of(metric, kind).mean()
            axes.axhline(level, color="#999999", linestyle=style, linewidth=1, label=kind)
        axes.set(xscale="log", xlabel="vectors", title=METRICS[metric][0])
        axes.set_xticks(vectors, [str(n) for n in vectors])
        axes.minorticks_off()
    panels[1].axhline(SPECIES_WANTED, color="#cc4444", linewidth=0.8)
    for n in vectors:
        found = [
            (r.step, estimate(f["concept"])) for r, f in numbers.by_row.items() if r[:4] == ("trained", n, "reduced", 0)
        ]
        start = [(0, estimate(numbers.of("concept", "initialisation", n)))]
        steps, means = zip(*sorted(start + found), strict=True)
        _line(panels[5], steps, means, counted(n))
    panels[5].set(xlabel="updates", title="concept similarity, captions `reduced`")
    panels[5].legend(fontsize=7)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with write_atomically(path) as aside:
        figure.savefig(aside, dpi=90, metadata={"Software": None})


def _line(axes: Any, x: Iterable[float], found: Sequence[Estimate], label: str, **style: Any) -> None:
    (drawn,) = axes.plot(x, [e.mean for e in found], marker="o", markersize=3, label=label, **style)
    axes.fill_between(x, [e.low for e in found], [e.high for e in found], alpha=0.12, color=drawn.get_color())


def publish(units: list[dict[str, Any]], settings: dict[str, Any], sheet: Path, *, docs: Path, results: Path) -> None:
    """Print the table; write the dated JSON, the page and its pictures."""
    from PIL import Image

    numbers, today = Numbers(units, settings), f"{datetime.now(UTC):%Y-%m-%d}"
    print_table(numbers)
    judged = criterion(numbers, "reduced")
    with Image.open(sheet) as picture, write_atomically(docs / f"{NAME}-pictures.webp") as aside:
        picture.save(aside, quality=88, method=6)
    plot(numbers, docs / f"{NAME}.png")
    page = docs / f"{NAME}.md"
    text = page_text(numbers, judged, units, by_hand(page), today)
    with write_atomically(page) as aside:
        aside.write_text(text, encoding="utf-8")
    path = results / f"{today}-inversion_quality.json"
    write_json(path, record(numbers, judged, units))
    print("\n".join(criterion_text(judged)[: len(settings["vectors"]) + 2]))
    print(f"written: {page}, {path}")


def record(numbers: Numbers, judged: list[dict[str, Any]], units: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept as JSON: settings, every row's estimates, and its means by unit where all units have them."""
    rows = []
    for row, found in numbers.by_row.items():
        estimates = {m: [round(n, 4) for n in estimate(values)[:3]] for m, values in found.items()}
        by_unit = {m: " ".join(f"{n:.4f}" for n in found[m].mean(axis=1)) for m in ("concept", "species", "attributes")}
        rows.append(row._asdict() | {"estimates": estimates, "means_by_unit": by_unit})
    told = [r | {name: [round(n, 4) for n in r[name][:3]] for name in ("before", "after", "species")} for r in judged]
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    about = {"units": {unit["unit"]: unit["seconds"] for unit in units}, "base": units[0]["base"], "machine": machine}
    return about | {"settings": numbers.settings, "criterion": told, "rows": rows}


def by_hand(page: Path) -> str:
    """Return the part of the page that people write; it survives a new run."""
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    if HAND_START in old and HAND_END in old:
        return old.split(HAND_START, 1)[1].split(HAND_END, 1)[0].strip()
    return "Not written yet."


def page_text(
    numbers: Numbers, judged: list[dict[str, Any]], units: list[dict[str, Any]], hand: str, today: str
) -> str:
    """Return the page."""
    vectors, middle = numbers.settings["vectors"], numbers.settings["middle"]
    few = vectors[min(1, len(vectors) - 1)]
    cut = {k: float(np.mean([unit["cut"][k] for unit in units])) for k in units[0]["cut"]}
    cut_words = ", ".join(
        f"{share:.0%} of `{k.rsplit('-', 1)[0]}` at {k.rsplit('-', 1)[1]}" for k, share in cut.items() if share
    )
    parts = [
        INTRO.format(
            today=today,
            units=len(units),
            concepts=len({name.split("/")[0] for name in numbers.units}),
            seeds=len({name.split("/")[1] for name in numbers.units}),
            pictures=numbers.by_row[Row("words")]["concept"].shape[1],
            identity=units[0]["base"][:10],
            cut=cut_words or "none",
            **numbers.settings,
        ),
        f"## What this says\n\n{HAND_START}\n{hand}\n{HAND_END}",
        f"![Metrics against vectors and updates, with 95 % intervals]({NAME}.png)",
        CRITERION + "\n".join([*controls_text(numbers), *criterion_text(judged)]),
        BELIEF_1.format(many=counted(vectors[-1]), few=counted(few))
        + "\n".join(vectors_belief(numbers, vectors[-1], few, "nearest")),
        BELIEF_2.format(few=counted(vectors[0]), middle=counted(middle))
        + "\n".join(vectors_belief(numbers, vectors[0], middle, "sharpness")),
        BELIEF_3.format(middle=middle) + "\n".join(share_belief(numbers)),
        f"## Pictures\n\nOf `{numbers.units[0]}`, one noise; a column a species. Rows: {'; '.join(units[0]['sheet'])}."
        f"\n\n![Pictures by what they were drawn with]({NAME}-pictures.webp)",
        TABLE + "\n".join(table(numbers)),
    ]
    return "\n\n".join(parts) + "\n"


INTRO = """# Does textual inversion learn?

Measured on {today} by `benchmarks/inversion_quality.py`, which also wrote all tables and verdicts here; only the part
*What this says* is written by people. The same numbers are in `benchmarks/results/{today}-inversion_quality.json`.

The demo's base model (`data/base_models/demo`, identity {identity}…) has never seen the colour and eyes of its held-out
characters together, and the drawn world knows what each picture should show. So it can be measured what an embedding
learned, and what it harms.

- **Units**: {concepts} concepts × {seeds} seeds = {units}. Each has its own {training_pictures} training drawings,
  training draws and noises.
- **Training**: the product's trainer; {steps} updates of {batch_size} pictures, learning rate `{learning_rate}`,
  min-SNR-γ {min_snr_gamma:g}, starting from the text `{initializer}`, template `[name], [filewords]`.
- **Captions**: `none`: the embedding's name alone; `species`: one tag; `reduced`: species and general tags but those
  of what belongs to the concept (colour, eyes, marking, accessory); `all`: those too. Captions whose end does not fit
  into the prompt, by vectors: {cut}.
- **Pictures**: {pictures} an embedding and checkpoint: 8 species × {noises} noises, prompts like
  `[name], wolf, simple background`, {draw_steps} DDIM steps at CFG {cfg:g}. Every embedding of a unit gets the same
  prompts and noises.
- **Judge**: the demo's own scorer, which has its own mistakes: see what it makes of fresh drawings.
- **Intervals**: 95 %, percentile bootstrap over pictures within each unit, 2,000 resamples. They say how sure the
  mean of these embeddings is, not what another training would give; for that see how many units agree. There are many:
  about one in twenty leaves out its true value.

| number | meaning |
|---|---|
| concept similarity | mean cosine similarity to 40 fresh drawings of the concept |
| of the way | the same, from the prompt without an embedding (0 %) to fresh drawings of the concept as asked (100 %) |
| species | share of pictures in which the asked species wins among the eight |
| colour, eyes, marking, accessory | share in which the concept's own value wins; where it has one |
| own looks | the mean of those |
| sure of species | the asked species' share of the softmax |
| nearest drawing | cosine to the nearest of 200 fresh drawings (40 of the concept): low for *strange* pictures |
| sharpness | variance of the Laplacian, over the mean of fresh drawings as asked: low for *blurred* pictures |

Controls: `shuffled` is the trained embedding with its numbers in another order; `random pictures` was trained on
drawings of anything; `plain loss` without min-SNR weights; `tags dropped` with half of each caption's tags left out at
random. `words` says the looks in the prompt in place of the embedding: what the base can do when told."""

CRITERION = """## The criterion

Asked: trained beats its initialisation in concept similarity in every unit, with 95 % intervals that do not overlap,
and the species stays right in at least 80 % of pictures. Captions `reduced`, after the last update.

"""
BELIEF_1 = """## Belief 1: too many vectors for few tags give strange pictures

{many} less {few}, picture by picture. Few tags are `none` and `species`; `all` is there to compare.

"""
BELIEF_2 = """## Belief 2: too few vectors for many tags give blurred pictures

{few} less {middle}, picture by picture. Many tags are `reduced` and `all`.

"""
BELIEF_3 = """## Belief 3: a tag's share matters more than the number of tags

{middle} vectors. One tag, the concept's colour (e.g. `purple fur`), is said in a part of the training captions,
beside few other tags (`species`) or many (`reduced`). What a caption says, the embedding need not learn, so
pictures drawn *without* the tag show what its share did. Shares of the fixed tag are exact; those of the other tags
are what the drawings happen to have.

"""
TABLE = """## The whole table

Means over all units with 95 % intervals.

"""
