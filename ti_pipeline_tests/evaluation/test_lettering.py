from pathlib import Path

import pytest
from PIL import Image

from ti_pipeline.evaluation import lettering
from ti_pipeline.evaluation.lettering import SMALLEST, height_of, line_height, readable, write_label

LONG = "a very long label with supercalifragilisticexpialidocious words, commas and more than fits into one cell"


def ink(picture: Image.Image) -> tuple[int, int, int, int] | None:
    return Image.eval(picture.convert("L"), lambda value: 255 - value).getbbox()


@pytest.fixture
def without_machine_fonts(monkeypatch: pytest.MonkeyPatch):
    def clear() -> None:
        lettering._face_of.cache_clear()
        lettering._runs.cache_clear()

    clear()
    monkeypatch.setattr(lettering, "_machine_fonts", tuple)
    yield
    clear()


def machine_font(letter: str) -> str:
    face = lettering._face_of(letter)
    if face is None:
        pytest.skip(f"no font of this machine has {letter}")
    return face.path


@pytest.mark.parametrize(
    "text", ["wolf", LONG, "x" * 300, "狗 and 🐺", "👩‍🚀" * 40, "狼" * 90, "a\tb\nc", "", "e" + "\u0301" * 60]
)
@pytest.mark.parametrize("box", [(10, 10, 110, 60), (10, 10, 60, 34)])
def test_ink_stays_inside_its_box(text: str, box: tuple[int, int, int, int]) -> None:
    picture = Image.new("RGB", (130, 90), "white")
    write_label(picture, box, text, 16)
    inked = ink(picture)
    if inked is not None:
        assert inked[0] >= box[0]
        assert inked[1] >= box[1]
        assert inked[2] <= box[2]
        assert inked[3] <= box[3]


def test_letters_that_no_font_has_are_written_as_their_code(without_machine_fonts: None) -> None:
    assert readable("狗 x\ue123") == "U+72D7 xU+E123"
    plain, coded = (Image.new("RGB", (300, 40), "white") for _ in range(2))
    write_label(plain, (0, 0, 300, 40), "狗", 14)
    write_label(coded, (0, 0, 300, 40), "U+72D7", 14)
    assert plain.tobytes() == coded.tobytes()


def test_cjk_is_written_in_a_font_that_has_it() -> None:
    """The truth: Pillow with that font alone."""
    from PIL import ImageFont

    path = machine_font("狗")
    assert readable("狗 wolf") == "狗 wolf"
    picture = Image.new("RGB", (60, 40), "white")
    write_label(picture, (0, 0, 60, 40), "狗", 20)
    left, top, right, bottom = ink(picture) or (0, 0, 0, 0)
    wanted = ImageFont.truetype(path, 20).getmask("狗").getbbox()
    assert (right - left, bottom - top) == (wanted[2] - wanted[0], wanted[3] - wanted[1])


def test_emoji_are_drawn_in_colour() -> None:
    machine_font("🐺")
    picture = Image.new("RGB", (60, 40), "white")
    write_label(picture, (0, 0, 60, 40), "🦊", 24)
    hues = {pixel for pixel in picture.get_flattened_data() if max(pixel) - min(pixel) > 60}
    assert len(hues) > 20, "an orange fox has many colours"


def test_parts_of_one_emoji_stay_together() -> None:
    machine_font("🐺")
    runs = lettering._runs("a👩‍🚀👍🏽b")
    assert [run.text for run in runs] == ["a", "👩‍🚀👍🏽", "b"]


def test_a_text_fits_into_the_height_it_asks_for() -> None:
    for width in (60, 100, 300):
        high = height_of(LONG, width, 14)
        lines, size = lettering._fitted(readable(LONG), width - 4, high, 14)
        assert size == 14
        assert " ".join(lines).replace(" ", "") == LONG.replace(" ", "")
        assert high == len(lines) * line_height(14)


def test_what_is_too_long_is_shortened_and_never_smaller_than_can_be_read() -> None:
    lines, size = lettering._fitted(LONG, 80, 3 * line_height(SMALLEST), 20)
    assert size == SMALLEST
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert LONG.startswith(" ".join(lines)[:-1].strip()[:20])


def test_a_font_that_cannot_be_read_has_no_letters(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert lettering._face(str(tmp_path / "broken.ttf")).letters == frozenset()
