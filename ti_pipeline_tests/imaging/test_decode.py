import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ti_pipeline.imaging.decode import PictureError, open_picture
from ti_pipeline_tests.imaging.pictures import drawing
from ti_pipeline_tests.shared_data import PICTURES, needs_shared


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(PictureError) as error:
        open_picture(path)
    assert str(path) in str(error.value)
    assert str(path) not in error.value.reason
    return error.value.reason


def encoded(picture, form="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def opened(tmp_path, content, name="picture.png"):
    (tmp_path / name).write_bytes(content)
    return open_picture(tmp_path / name)


def test_a_plain_picture_keeps_its_pixels(tmp_path):
    source = drawing()
    picture = opened(tmp_path, encoded(source, dpi=(72, 72)))
    assert np.array_equal(picture.rgb, source)
    assert (picture.format, picture.mode, picture.frames, picture.orientation) == ("PNG", "RGB", 1, 1)
    assert picture.alpha is None
    assert not picture.rgb.info


def test_the_format_is_told_by_content_not_by_name(tmp_path):
    assert opened(tmp_path, encoded(drawing(), "JPEG"), "wrong.png").format == "JPEG"


def test_a_single_pixel_is_a_picture(tmp_path):
    assert opened(tmp_path, encoded(Image.new("RGB", (1, 1), "red"))).rgb.getpixel((0, 0)) == (255, 0, 0)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 128 * 257, 40000, 65535]], dtype=np.uint16)
    picture = opened(tmp_path, encoded(Image.fromarray(values)))
    expected = np.rint(values / 65535 * 255)
    assert np.array_equal(np.array(picture.rgb)[..., 0], expected)


def test_16_bit_colour_is_scaled(tmp_path):
    values = np.array([[[0, 32896, 65535]]], dtype=">u2")
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes()))
    picture = opened(tmp_path, b"\x89PNG\r\n\x1a\n" + data + png_chunk(b"IEND", b""))
    assert picture.rgb.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(
    ("pixels", "why"),
    [(np.array([[0.5, 1.5]], dtype=np.float32), "floating"), (np.array([[0, 70000]], dtype=np.int32), "32-bit")],
)
def test_pixels_without_a_white_level_are_refused(tmp_path, pixels, why):
    assert why in refused(tmp_path / "p.tif", encoded(Image.fromarray(pixels), "TIFF"))


def test_cmyk_becomes_rgb(tmp_path):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture = opened(tmp_path, encoded(ink, "JPEG", quality=95), "ink.jpg")
    assert picture.mode == "CMYK"
    red, green, blue = picture.rgb.getpixel((4, 4))
    assert red > 245
    assert max(green, blue) < 10


def swapped_profile():
    """An sRGB profile, renamed, whose red and green primaries are swapped in the tag table."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_an_embedded_profile_is_applied(tmp_path):
    source = Image.new("RGB", (4, 4), (255, 0, 0))
    red, green, blue = opened(tmp_path, encoded(source, icc_profile=swapped_profile())).rgb.getpixel((0, 0))
    assert red < 5
    assert green > 250
    assert blue < 5
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    picture = opened(tmp_path, encoded(clear, icc_profile=swapped_profile()))
    assert picture.rgb.getpixel((0, 0))[1] > 250
    assert picture.rgb.getpixel((1, 0)) == (255, 255, 255)


def test_an_srgb_or_broken_profile_changes_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, name in ((srgb, "sRGB built-in"), (b"no profile at all", "unreadable"), (None, "")):
        picture = opened(tmp_path, encoded(drawing(), icc_profile=profile))
        assert np.array_equal(picture.rgb, drawing())
        assert picture.profile == name


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_palette_grey_and_bilevel(tmp_path, mode):
    source = drawing().convert(mode)
    picture = opened(tmp_path, encoded(source))
    assert picture.mode == mode
    assert np.array_equal(picture.rgb, source.convert("RGB"))


def test_transparency_lies_over_white(tmp_path):
    clear = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    clear.putpixel((1, 0), (200, 0, 0, 0))
    clear.putpixel((2, 0), (0, 0, 0, 51))
    picture = opened(tmp_path, encoded(clear))
    assert picture.alpha is not None
    assert [picture.rgb.getpixel((x, 0)) for x in range(3)] == [(200, 0, 0), (255, 255, 255), (204, 204, 204)]
    assert opened(tmp_path, encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 255)))).alpha is None


def test_a_transparent_palette_colour_lies_over_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 90, 80, 70])
    palette.putpixel((1, 0), 1)
    picture = opened(tmp_path, encoded(palette, transparency=0))
    assert picture.alpha is not None
    assert [picture.rgb.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (90, 80, 70)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_turn_is_applied(tmp_path, orientation):
    upright = np.zeros((3, 2, 3), dtype=np.uint8)
    upright[0, 0], upright[0, 1], upright[2, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How the sensor stored it, from the EXIF specification's table of row 0 / column 0.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = opened(tmp_path, encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    assert picture.orientation == orientation
    assert np.array_equal(picture.rgb, upright)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(tmp_path, form):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    picture = opened(tmp_path, encoded(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert picture.frames == 3
    assert picture.rgb.getpixel((5, 5)) == (255, 0, 0)


def test_the_second_view_of_a_phone_picture_makes_no_animation(tmp_path):
    views = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    picture = opened(tmp_path, encoded(views[0], "MPO", save_all=True, append_images=views[1:]), "phone.jpg")
    assert (picture.format, picture.frames) == ("MPO", 1)
    assert picture.rgb.getpixel((5, 5))[0] > 250


def test_what_is_no_picture(tmp_path):
    path = tmp_path / "p.png"
    assert refused(path, b"") == "the file is empty"
    assert "known format" in refused(path, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "known format" in refused(path, b"%!PS-Adobe-3.0 EPSF-3.0\n")
    path.unlink()
    with pytest.raises(PictureError, match="cannot be read"):
        open_picture(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_not_filled_up(tmp_path, form, share):
    whole = encoded(drawing(), form)
    refused(tmp_path / "cut", whole[: int(len(whole) * share)])


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    bomb += png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    assert "pixels allowed" in refused(tmp_path / "bomb.png", bomb)
    path = tmp_path / "large.png"
    drawing(40, 40).save(path)
    with pytest.raises(PictureError, match="more than the 1,599 pixels allowed"):
        open_picture(path, max_pixels=1599)
    assert open_picture(path, max_pixels=1600).rgb.size == (40, 40)


def mutated(content, random):
    data = bytearray(content)
    for _ in range(int(random.integers(1, 12))):
        data[random.integers(0, len(data))] = random.integers(0, 256)
    if random.random() < 0.3:
        start = int(random.integers(0, len(data)))
        del data[start : start + int(random.integers(1, 200))]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about odd metadata, which is not the question here
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_mutated_files_are_decoded_or_refused(tmp_path, form):
    random = np.random.default_rng(7)
    exif = Image.Exif()
    exif[0x0112] = 6
    source = encoded(drawing(96, 64), form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    path = tmp_path / "mutant"
    for _ in range(150):
        path.write_bytes(mutated(source, random))
        with contextlib.suppress(PictureError):  # any other exception fails the test
            assert open_picture(path, max_pixels=4_000_000).rgb.mode == "RGB"


@needs_shared
def test_a_real_picture_agrees_with_pillow():
    path = sorted(PICTURES.glob("noto/*.png"))[0]
    with Image.open(path) as expected:
        assert np.array_equal(open_picture(path).rgb, expected.convert("RGB"))
