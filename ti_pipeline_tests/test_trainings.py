"""The command that lists trainings, takes earlier ones back, and removes them."""

import json
from pathlib import Path

import pytest

from ti_pipeline.trainings import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """A data folder with a training of v8 and two earlier ones, as their files would lie there."""
    folder = tmp_path / "embeddings" / "s" / "v8"
    for place, digit, rate in ((folder, "c", 0.005), (folder / "earlier" / ("a" * 16), "a", 0.001),
                               (folder / "earlier" / ("b" * 16), "b", 0.01)):  # fmt: skip
        place.mkdir(parents=True, exist_ok=True)
        (place / "v8-6.pt").write_bytes(digit.encode() * 500_000)
        record = {
            "fingerprint": digit * 64,
            "recipe": {"learning_rate": rate, "vectors": 8},
            "checkpoints": [{"step": 6}],
        }
        (place / "training.json").write_text(json.dumps(record))
    monkeypatch.setenv("TI_DATA", str(tmp_path))
    return folder


def test_all_are_listed_with_what_differs_and_their_size(data, capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["s/v8@cccccccc", "s/v8@aaaaaaaa", "s/v8@bbbbbbbb"]
    assert "current, finished at 6 updates, 1 checkpoints, 0.5 MB" in lines[0]
    assert lines[1].endswith(", with learning_rate: 0.001")


def test_an_earlier_one_is_taken_back_and_the_current_one_set_aside(data, capsys):
    assert main(["--take-back", "s/v8@aa"]) == 0
    assert "write learning_rate: 0.001 for variant v8 into the study" in capsys.readouterr().out
    assert (data / "v8-6.pt").read_bytes() == b"a" * 500_000
    assert (data / "earlier" / ("c" * 16) / "v8-6.pt").read_bytes() == b"c" * 500_000
    assert sorted(path.name for path in (data / "earlier").iterdir()) == ["b" * 16, "c" * 16]


def test_removing_says_what_it_freed_and_leaves_the_current_one(data, capsys):
    assert main(["--remove", "s/v8@bb"]) == 0
    assert capsys.readouterr().out == "removed 1 earlier trainings (bbbbbbbb): 0.5 MB are free\n"
    assert main(["--remove", "s/v8"]) == 0
    assert (data / "v8-6.pt").exists()
    assert list((data / "earlier").iterdir()) == []
    assert main(["--remove", "s/v8"]) == 1
    assert main(["--take-back", "s/v9@aa"]) == 1
    assert "there is no earlier training s/v9@aa (earlier ones of s/v9: none)" in capsys.readouterr().err
