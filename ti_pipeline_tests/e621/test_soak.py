"""The soak: a full fetch through a storm of everything the site does, killed again and again, ends like a calm one."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ti_pipeline.schemas import from_arrow
from ti_pipeline_tests.e621.fetching import PER_SECOND, USER
from ti_pipeline_tests.emulator import Emulator, Storm, evenly, plain_world
from ti_pipeline_tests.emulator.changes import (
    delete,
    describe,
    forget,
    hide,
    insert,
    overwrite,
    re_rate,
    re_tag,
    replace,
)
from ti_pipeline_tests.emulator.proofs import asked_again, most_within, unidentified
from ti_pipeline_tests.emulator.world import picture, plain_post

pytestmark = pytest.mark.slow

SEED, POSTS, PAGE = 11, 2700, 320
KILLS = {"posts": 2, "images": 3}
MISFORTUNE = 0.3


def changes(records: list[dict]) -> list[tuple[int, object]]:
    """Return what happens between pages: pairs of pages answered before, and the change.

    What makes a post leave the search, or its picture change, happens well after the page that showed it was kept:
    so it is clear what the first search saw. Everything else happens to any post, seen or not.
    """
    chance = random.Random(SEED)
    found = [r["id"] for r in reversed(records) if r["rating"] == "s" and not r["flags"]["deleted"]]
    early, anywhere = found[:PAGE], found[PAGE:]
    leaving = chance.sample(early, 56)
    data = [picture(9, 9, number) for number in range(1000, 1016)]
    late = 2 + KILLS["posts"] + 1  # a kill may cost the page under way
    happens: list[tuple[int, object]] = []
    for number, post_id in enumerate(leaving):
        what = (
            delete(post_id),
            forget(post_id),
            hide(post_id),
            re_rate(post_id, "q"),
            re_tag(post_id, remove=["mammal"]),
            re_tag(post_id, add=["conditional_dnp"], category="artist"),
            replace(post_id, data[number % 16]),
        )[number % 7]
        happens.append((late + number % 2, what))
    for number, post_id in enumerate(chance.sample(anywhere, 40)):
        what = (
            describe(post_id, "edited"),
            re_tag(post_id, add=["retagged"]),
            re_tag(post_id, add=["moved"], category="unheard_of"),
            overwrite(post_id, data[number % 16]),
        )[number % 4]
        happens.append((1 + number % 6, what))
    newest = records[-1]["id"]
    return happens + [(1 + number % 5, insert(*plain_post(newest + 1 + number, SEED))) for number in range(12)]


def run(phase: str, site: Emulator, folder: Path, kill_after: int | None = None) -> bool:
    """Run a phase to its end, or until the site has seen so many more requests; return whether it ended by itself."""
    seen = len(site.log)
    command = [sys.executable, "-m", "ti_pipeline_tests.e621.fetching", phase, site.url, str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        while process.poll() is None:
            if kill_after is not None and len(site.log) - seen >= kill_after:
                process.send_signal(signal.SIGKILL)
            try:
                process.wait(0.005)
            except subprocess.TimeoutExpired:
                continue
        said = process.stderr.read()
    assert process.returncode in ({0} if kill_after is None else {0, -signal.SIGKILL}), said[-3000:]
    return process.returncode == 0


def tables(folder: Path, site: Emulator) -> dict[str, pd.DataFrame]:
    """Return the tables of a fetch; links without the address, which no two emulators share."""
    read = {name: from_arrow(pq.read_table(folder / f"{name}.parquet")) for name in ("posts", "images")}
    read["posts"]["file_url"] = read["posts"].file_url.str.replace(site.url, "http://site")
    read["images"]["reason"] = read["images"].reason.str.replace(site.url, "http://site")
    return read


def stored(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in (folder / "images").rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pd.DataFrame], dict[str, bytes]]:
    """One search of the world as it is, then everything happens, then the pictures, and one search more."""
    folder = tmp_path_factory.mktemp("calm")
    records, files = plain_world(POSTS, SEED)
    with Emulator(records, files) as site:
        run("posts", site, folder)
        for _, change in changes(records):
            site.after(0, change)
        for phase in ("images", "posts", "images"):
            run(phase, site, folder)
        return tables(folder, site), stored(folder)


def test_a_fetch_through_a_storm_of_faults_and_kills_ends_like_a_calm_one(
    calm: tuple[dict[str, pd.DataFrame], dict[str, bytes]], tmp_path: Path
) -> None:
    chance, kills, finished = random.Random(SEED), 0, {}
    records, files = plain_world(POSTS, SEED)
    with Emulator(records, files, storm=Storm(SEED, evenly(MISFORTUNE)), stall=0.05) as site:
        for number, change in changes(records):
            site.after(number, change)
        for phase in ("posts", "images", "posts", "images"):
            for _ in range(KILLS[phase]):
                kills += not run(phase, site, tmp_path, chance.randrange(4, 9 if phase == "posts" else 700))
            run(phase, site, tmp_path)
            site_has_changed = not site.pending_changes
            assert site_has_changed, "everything must have happened before the pictures come"
            finished |= {p.stem: p.stat().st_ctime for p in (tmp_path / "images").glob("*/*") if p.stem not in finished}
        found, pictures, log = tables(tmp_path, site), stored(tmp_path), list(site.log)

    expected, expected_pictures = calm
    pd.testing.assert_frame_equal(found["posts"], expected["posts"])
    pd.testing.assert_frame_equal(found["images"], expected["images"])
    assert pictures == expected_pictures
    assert len(found["posts"]) >= 2000
    assert (found["images"].status == "ok").sum() >= 1500

    assert kills >= 6, "too few of the kills came in time to test anything"
    faults = {entry.fault for entry in log} - {None}
    assert len(faults) >= 20, f"only these faults came: {faults}"
    assert most_within(log) <= 1.05 * PER_SECOND  # arrivals jitter, the client's clock does not see it
    assert unidentified(log) == []
    assert all(f"(by {USER} on e621)" in entry.user_agent for entry in log if entry.server != "stranger")
    assert asked_again(log, finished) == []
