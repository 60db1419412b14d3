"""The release index: lines that only ever come to the end, and what differs between two of them."""

import dataclasses
import hashlib
import json
import shutil
import threading

import pytest

from ti_pipeline import releases
from ti_pipeline.publishing.release import ReleaseError, write_release
from ti_pipeline.publishing.release_index import add_to_index, differences, find_release, read_index


@pytest.fixture
def folder(results):
    return results.root / "releases" / "tiny"


def changed(results):
    """The same study after two posts more, a better score, and a note in its file."""
    better = results.leaderboard.assign(score=results.leaderboard.score + 0.01)
    posts = results.posts[results.posts.post_id < 6]
    return dataclasses.replace(results, leaderboard=better, posts=posts, study_text="# again\n")


def release(results, folder):
    made = write_release(results, folder)
    return made, add_to_index(results, made)


def test_a_line_says_what_was_released(results, folder):
    made, added = release(results, folder)
    assert added
    (line,) = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    assert (entry["study"], entry["name"], entry["checkpoint"]) == ("tiny", "tiny-a-20", "a-20")
    assert entry["sha256"] == hashlib.sha256((made.folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert entry["scores"]["overall"] == {"score": 0.875, "low": 0.7, "high": 1.0, "pictures": 8, "rank": 1}
    assert set(entry["scores"]) == {"overall", "obedience", "likeness", "species", "clothing"}
    assert entry["recipe"]["vectors"] == 2
    assert entry["data"] == {
        "posts found": 6,
        "posts kept": 5,
        "pictures trained on": 3,
        "pictures held out": 1,
        "artists": 2,
        "tags kept": 9,
    }


def test_lines_are_only_added(results, folder):
    release(results, folder)
    first = (folder / "index.jsonl").read_bytes()
    assert not release(results, folder)[1]  # the same release again
    assert (folder / "index.jsonl").read_bytes() == first
    release(changed(results), folder)
    both = (folder / "index.jsonl").read_bytes()
    assert both.startswith(first)
    assert [entry["name"] for entry in read_index(folder / "index.jsonl")] == ["tiny-a-20", "tiny-a-20-2"]


def test_a_removed_release_stays_in_the_index(results, folder):
    made, _ = release(results, folder)
    shutil.rmtree(made.folder)
    again, added = release(changed(results), folder)
    assert (again.name, added) == ("tiny-a-20", True)  # the name was free
    old, new = read_index(folder / "index.jsonl")
    assert old["name"] == new["name"]
    assert find_release([old, new], "tiny-a-20") == new
    assert find_release([old, new], f"tiny-a-20@{old['sha256'][:8]}") == old


def test_releases_made_at_once_all_get_their_line(results, folder):
    boards = [results.leaderboard.assign(score=results.leaderboard.score - 0.01 * n) for n in range(6)]
    made = [write_release(dataclasses.replace(results, leaderboard=board), folder) for board in boards]
    threads = [threading.Thread(target=add_to_index, args=(results, one)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["name"] for entry in read_index(folder / "index.jsonl")) == sorted(one.name for one in made)


def test_a_damaged_line_is_named(results, folder):
    release(results, folder)
    with (folder / "index.jsonl").open("a") as stream:
        stream.write('{"name": "half\n')
    with pytest.raises(ReleaseError, match=r"index\.jsonl:2: not a line of a release index"):
        release(changed(results), folder)


def test_two_versions_are_compared_part_by_part():
    old = {"scores": {"overall": {"score": 0.5}}, "recipe": {"vectors": 8, "seed": 1}, "data": {"posts kept": 4}}
    new = {"scores": {"overall": {"score": 0.6}}, "recipe": {"vectors": 8, "rate": 2}, "data": {"posts kept": 4}}
    assert differences(old, new) == [
        ("scores.overall.score", 0.5, 0.6),
        ("recipe.seed", 1, None),
        ("recipe.rate", None, 2),
    ]
    assert differences(old, old) == []


def test_the_command_lists_and_compares(results, folder, monkeypatch, capsys):
    monkeypatch.setenv("TI_DATA", str(results.root))
    assert releases.main([]) == 0
    assert "there are no releases yet" in capsys.readouterr().out
    release(results, folder)
    release(changed(results), folder)
    assert releases.main([]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "tiny/tiny-a-20@" in first
    assert first.endswith("overall 0.875 (0.700-1.000)")
    assert "tiny/tiny-a-20-2@" in second
    assert releases.main(["--diff", "tiny/tiny-a-20", "tiny/tiny-a-20-2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("--- tiny/tiny-a-20 (")
    assert "scores.overall.score: 0.8750 -> 0.8850" in said
    assert "data.posts found: 6 -> 5" in said
    assert releases.main(["--diff", "tiny/tiny-a-20", "tiny/none"]) == 1
    assert "there is no release none; known: tiny-a-20@" in capsys.readouterr().err
