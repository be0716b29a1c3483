import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from segjax.data.errors import DataError
from segjax.data.images import decode_image, decode_mask, image_header, peek_header, read_image

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
GREY, COLOR, PALETTE, GREY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6  # the colour types of a PNG


def png(samples, *, bits=8, color_type=GREY, palette=()):
    """A PNG by its specification: `samples` `[h, w]` or `[h, w, c]` of `bits` bits each."""
    samples = np.asarray(samples)
    height, width = samples.shape[:2]
    shifts = np.arange(bits)[::-1]
    rows = ((samples.reshape(height, -1, 1) >> shifts) & 1).reshape(height, -1).astype(np.uint8)
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    if len(palette):
        chunks.insert(1, (b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def save(pixels, kind, **options):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(RGB, color_type=COLOR), RGB),
        (png(np.dstack([RGB, RGB[..., :1]]), color_type=COLOR_ALPHA), RGB),
        (png(RGB[..., 0]), RGB[..., [0, 0, 0]]),
        (png(RGB[..., 0].astype(int) * 256 + 77, bits=16), RGB[..., [0, 0, 0]]),
        (png([[2, 0, 1]], color_type=PALETTE, palette=RGB[0, :3]), RGB[:1, [2, 0, 1]]),
        (save(RGB, "BMP"), RGB),
        (save(RGB, "TIFF"), RGB),
        (save(RGB, "WEBP", lossless=True), RGB),
    ],
    ids=["rgb", "rgba", "grey", "16-bit", "palette", "bmp", "tiff", "webp"],
)
def test_every_kind_of_image_comes_as_rgb(data, expected):
    np.testing.assert_array_equal(decode_image(data), expected)
    assert image_header(data).stored == expected.shape[:2]


@pytest.mark.parametrize("encode", [png, lambda values, bits: save(values, "TIFF")])
def test_twelve_bits_in_sixteen_keep_their_range(encode):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    data = encode(values, bits=16)
    assert image_header(data).deep
    image = decode_image(data, max_value=4095)
    np.testing.assert_array_equal(image[..., 1], np.rint(values * (255 / 4095)))
    assert decode_image(data, max_value=1023).max() == 255
    assert len(np.unique(decode_image(data))) == 16


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_images_of_eight_bits_have_no_other_range(kind):
    data = save(RGB, kind)
    assert not image_header(data).deep
    np.testing.assert_array_equal(decode_image(data, max_value=15), decode_image(data))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_mask_holds_its_values_whatever_their_bits(bits):
    values = np.array([[0, 1, 2**bits - 1], [2**bits // 2, 1, 0]])
    np.testing.assert_array_equal(decode_mask(png(values, bits=bits)), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_mask_holds_indices_not_colors(bits):
    values = np.array([[0, 1, 2**bits - 1], [2**bits // 2, 1, 0]])
    palette = np.random.default_rng(0).integers(256, size=(2**bits, 3))
    data = png(values, bits=bits, color_type=PALETTE, palette=palette)
    np.testing.assert_array_equal(decode_mask(data), values)


def test_alpha_is_no_part_of_a_mask():
    values = np.array([[0, 3], [9, 200]])
    data = png(np.dstack([values, 255 - values]), color_type=GREY_ALPHA)
    np.testing.assert_array_equal(decode_mask(data), values)
    color = png(np.dstack([RGB, RGB[..., :1]]), color_type=COLOR_ALPHA)
    np.testing.assert_array_equal(decode_mask(color), RGB)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_known_before_decoding(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    data = save(RGB, kind, exif=exif(orientation), **options)
    header = image_header(data)
    assert header.orientation == orientation
    assert decode_image(data).shape[:2] == header.upright
    assert decode_image(data, upright=False).shape[:2] == header.stored == RGB.shape[:2]
    with Image.open(io.BytesIO(data)) as image:
        turned = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert np.abs(decode_image(data) - turned).max() <= 2  # decoders of JPEG round differently


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_always_turned(orientation):
    data = save(RGB, "TIFF", exif=exif(orientation))
    header = image_header(data)
    for upright in (True, False):
        assert decode_image(data, upright=upright).shape[:2] == header.stored == header.upright


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken tags
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_no_file_cut_short_passes(kind):
    noise = np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)
    data = save(noise, kind)
    for length in range(0, len(data) - 16, 7):
        with pytest.raises(DataError):
            image_header(data[:length])


def test_bytes_behind_the_image_do_no_harm():
    assert image_header(save(RGB, "JPEG") + b"\0\0camera").stored == RGB.shape[:2]


@pytest.mark.parametrize("decode", [image_header, decode_image, decode_mask])
@pytest.mark.parametrize("data", [b"", b"no image", png(RGB, color_type=COLOR)[:60]])
def test_what_is_no_image_is_an_error(decode, data):
    with pytest.raises(DataError):
        decode(data)


def test_masks_are_png():
    with pytest.raises(DataError, match="expected a PNG"):
        decode_mask(save(RGB[..., 0], "JPEG"))


def test_read_image_reads_any_path_and_names_the_file(tmp_path):
    path = tmp_path / "Übersicht 図.png"
    path.write_bytes(png(RGB, color_type=COLOR))
    np.testing.assert_array_equal(read_image(path), RGB)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"図\.png: expected an image, got an empty file"):
        read_image(path)
    with pytest.raises(DataError, match=r"other\.png: No such file"):
        read_image(str(tmp_path / "other.png"))


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, peek_header):
        with pytest.raises(DataError, match="expected a regular file"):
            read(tmp_path / "a.png")


def test_no_image_is_larger_than_the_limit():
    data = io.BytesIO(png([[0]])).getbuffer()
    data[16:24] = struct.pack(">II", 2**15, 2**13)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(DataError, match=r"expected an image .*178956970 pixels"):
        image_header(bytes(data))
    data[16:24] = struct.pack(">II", 2**16, 2**16)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(DataError, match="expected an image that can be decoded"):
        decode_image(bytes(data))


def test_opencv_agrees_on_the_order_of_channels():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's own order is blue, green, red
    assert decode_image(cv2.imencode(".png", red)[1].tobytes())[0, 0].tolist() == [255, 0, 0]
