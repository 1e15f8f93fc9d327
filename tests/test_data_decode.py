import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import decode


def picture(height=90, width=120, seed=0):
    """Smooth colours with some fine structure, as in a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (6, 8, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0, 6, (height, width, 1))
    return np.clip(smooth + fine, 0, 255).astype(np.uint8)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def pil(encoded, channels=3):
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[..., None]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "TIFF"])
def test_lossless_formats_equal_pil(kind):
    encoded = encode(picture(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode.decode(encoded), pil(encoded))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_agrees_with_pil(subsampling, progressive):
    encoded = encode(
        picture(91, 121), "JPEG", quality=90, subsampling=subsampling, progressive=progressive
    )
    difference = decode.decode(encoded).astype(int) - pil(encoded)
    # Two versions of libjpeg may round the inverse cosine transform differently.
    assert np.abs(difference).max() <= 3
    assert np.abs(difference).mean() < 0.5


def grey(mode):
    image = Image.fromarray(picture()).convert("L")
    return image if mode == "L" else image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("JPEG", grey("L")),
        ("PNG", grey("L")),
        ("PNG", grey("1")),
        ("PNG", grey("LA")),
        ("PNG", Image.fromarray(picture()).convert("P")),
        ("GIF", Image.fromarray(picture()).convert("P")),
        ("JPEG", Image.fromarray(picture()).convert("CMYK")),
        ("PNG", Image.fromarray(np.dstack([picture(), picture()[..., :1]]))),
    ],
    ids=["grey.jpg", "grey.png", "1 bit.png", "LA.png", "palette.png", "gif", "CMYK.jpg", "RGBA"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_unusual_modes_are_converted_as_in_pil(kind, image, channels):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    decoded = decode.decode(buffer.getvalue(), channels=channels)
    assert decoded.shape == (90, 120, channels)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - pil(buffer.getvalue(), channels)).max() <= 3


def test_grey_stays_grey():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    for encoded in (levels, levels[..., 0], levels.repeat(3, -1), encode(levels[..., 0], "PNG")):
        assert np.array_equal(decode.decode(encoded, channels=1), levels)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        decode.decode(levels, channels=2)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: decode.resize_and_center_crop(image, 64, 56),
        lambda image: decode.resize_and_center_crop(image, 90, 80),
        *(
            lambda image, size=size: decode.crop_and_resize(image, (9, 5, 80, 70), size)
            for size in (16, 40, 75, 120)
        ),
        lambda image: decode.pad_crop_flip(image, np.random.default_rng(0)),
        lambda image: decode.random_resized_crop(
            image, 32, np.random.default_rng(0), channels=image.shape[-1]
        ),
    ],
)
def test_one_channel_is_transformed_as_each_of_three(transform):
    one, three = (transform(picture()[..., :1].repeat(channels, -1)) for channels in (1, 3))
    assert (one.ndim, one.shape[-1]) == (3, 1)
    assert np.abs(one.astype(int) - three).max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_the_upper_eight(channels):
    wide = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), dtype=np.uint16)
    _, encoded = cv2.imencode(".png", wide)
    expected = (wide[..., :3] >> 8).astype(int)
    expected = expected[..., ::-1] if channels > 1 else np.repeat(expected, 3, axis=-1)
    assert np.abs(decode.decode(encoded.tobytes()) - expected).max() <= 1


def test_content_decides_and_not_the_name():
    encoded = encode(picture(), "PNG")
    assert np.array_equal(decode.decode(encoded, name="n02105855_2933.JPEG"), picture())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_ignored(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(picture(), kind, exif=exif)
    assert decode.decode(encoded).shape == (90, 120, 3)
    assert np.abs(decode.decode(encoded).astype(int) - pil(encoded)).max() <= 3


@pytest.mark.parametrize(
    "damaged",
    [
        encode(picture(), "JPEG")[:900],
        encode(picture(), "JPEG")[:200],
        encode(picture(), "PNG")[:3000],
        encode(picture(), "PNG")[:5000] + b"\0" * 200 + encode(picture(), "PNG")[5200:],
        encode(picture(), "BMP")[:3000],
        b"\xff\xd8\xff",
        b"not a picture",
        b"",
    ],
    ids=["jpeg", "jpeg header", "png", "png body", "bmp", "jpeg magic", "text", "empty"],
)
def test_damaged_pictures_are_named(damaged):
    with pytest.raises(ValueError, match=r"dogs/rex.jpg"):
        decode.decode(damaged, name="dogs/rex.jpg")
    with pytest.raises(ValueError, match=r"dogs/rex.jpg"):
        decode.random_resized_crop(damaged, 8, np.random.default_rng(0), name="dogs/rex.jpg")


def png_of_equal_pixels(height, width):
    """With one bit a pixel: next to nothing as a file."""

    def chunk(kind, content):
        length, checksum = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", length) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = zlib.compress(bytes(-(-width // 8) + 1) * height, 9)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", content), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded():
    encoded = png_of_equal_pixels(9_500, 9_500)
    assert len(encoded) < 20_000
    tracemalloc.start()
    message = r"^dogs/rex.png must have at most 89,478,485 pixels, got 9500 x 9500\.$"
    with pytest.raises(ValueError, match=message):
        decode.decode(encoded, name="dogs/rex.png")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert decode.decode(png_of_equal_pixels(95, 95)).shape == (95, 95, 3)


KINDS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP")


@pytest.mark.parametrize(
    ("kind", "mode"), [*((kind, "RGB") for kind in KINDS), ("JPEG", "CMYK"), ("TIFF", "CMYK")]
)
def test_no_format_has_too_many_pixels(monkeypatch, kind, mode):
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, kind)
    encoded = buffer.getvalue()
    monkeypatch.setattr(decode, "MAX_PIXELS", 90 * 120)
    assert decode.decode(encoded).shape == (90, 120, 3)
    monkeypatch.setattr(decode, "MAX_PIXELS", 90 * 120 - 1)
    with pytest.raises(ValueError, match="rex must have at most 10,799 pixels, got 90 x 120"):
        decode.decode(encoded, name="rex")


def test_a_jpeg_of_many_scans_is_refused():
    encoded = encode(np.full((4000, 4000), 7, np.uint8), "JPEG", progressive=True)
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    assert decode.decode(encoded).shape == (4000, 4000, 3)
    assert len(scan) < 50
    with pytest.raises(ValueError, match=r"rex must have at most 89 scans of its 4000 x 4000 pix"):
        decode.decode(encoded[:-2] + scan * 300 + encoded[-2:], name="rex")


def test_other_formats_are_refused():
    encoded = encode(picture(), "PPM")
    with pytest.raises(ValueError, match=r"Cannot decode rex: expected a picture \(BMP, GIF, JPEG"):
        decode.decode(encoded, name="rex")
    short = b"\x89PNG\r\n\x1a\nIEND\xaeB`\x82"
    with pytest.raises(ValueError, match="Cannot decode rex: "):
        decode.decode(short, name="rex")


def test_arrays_pass_and_wrong_ones_are_refused():
    image = picture()
    assert np.array_equal(decode.decode(image), image)
    assert decode.decode(image[..., :1]).shape == image.shape
    with pytest.raises(ValueError, match=r"float64 \(90, 120, 3\) for a picture"):
        decode.decode(image / 255.0, name="a picture")


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (257, 256), (100, 100), (61, 500)])
@pytest.mark.parametrize(("resize_size", "size"), [(256, 224), (64, 64), (64, 56)])
def test_evaluation_transform_equals_resize_then_crop(shape, resize_size, size):
    image = picture(*shape)
    height, width = shape
    resized = Image.fromarray(image).resize(
        (int(resize_size * width / min(shape)), int(resize_size * height / min(shape))),
        Image.Resampling.BILINEAR,
    )
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    result = decode.resize_and_center_crop(image, resize_size, size)
    assert result.shape == (size, size, 3)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3, 1.7, 2.3, 2.9, 5.0])
def test_training_resize_is_close_to_antialiased_bilinear(factor):
    size = 64
    side = round(size * factor)
    image = picture(side + 20, side + 30)
    box = (10, 15, side, side)
    expected = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BILINEAR, box=(15, 10, 15 + side, 10 + side)
    )
    result = decode.crop_and_resize(image, box, size).astype(float)
    error = np.sqrt(np.mean((result - np.asarray(expected)) ** 2))
    assert error < 1.6  # The pictures carry white noise of standard deviation 6.
    if factor > 1.5:
        crop = image[10 : 10 + side, 15 : 15 + side]
        aliased = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
        assert error < 0.6 * np.sqrt(np.mean((aliased - np.asarray(expected, float)) ** 2))


def test_reduced_decoding_gives_the_same_crops():
    encoded = encode(picture(1200, 1600), "JPEG", quality=92)
    full = decode.decode(encoded)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        result = decode.random_resized_crop(encoded, 96, rng).astype(float)
        rng = np.random.default_rng(seed)
        top, left, height, width = decode.random_crop_box(1200, 1600, rng)
        crop = Image.fromarray(full[top : top + height, left : left + width])
        expected = np.asarray(crop.resize((96, 96), Image.Resampling.BILINEAR), float)
        expected = expected[:, ::-1] if rng.random() < 0.5 else expected
        # The crop is rounded to whole pixels of the reduced picture: up to half a pixel's shift.
        assert np.sqrt(np.mean((result - expected) ** 2)) < 3.5


def test_random_crops_follow_their_distribution():
    rng = np.random.default_rng(0)
    boxes = np.array([decode.random_crop_box(400, 400, rng) for _ in range(4_000)], float)
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 400).all()
    share, ratio = height * width / 400**2, width / height
    assert 0.07 < share.min() < 0.1
    assert share.max() > 0.95
    assert 0.7 < ratio.min() < 0.8
    assert 1.28 < ratio.max() < 1.38
    # Uniform in area but for the boxes that do not fit, uniform in the logarithm of the ratio.
    assert abs(np.mean(np.log(ratio))) < 0.03
    assert 0.45 < share.mean() < 0.54


def test_elongated_pictures_have_a_crop():
    rng = np.random.default_rng(0)
    for shape in ((2, 900), (900, 2), (1, 1)):
        for _ in range(20):
            top, left, height, width = decode.random_crop_box(*shape, rng)
            assert top >= 0
            assert top + height <= shape[0]
            assert height > 0
            assert left >= 0
            assert left + width <= shape[1]
            assert width > 0
        result = decode.random_resized_crop(encode(picture(*shape), "PNG"), 8, rng)
        assert result.shape == (8, 8, 3)


def test_pad_crop_flip_shifts_by_at_most_the_padding():
    image = picture(16, 16)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {}
    for y in range(9):
        for x in range(9):
            window = padded[y : y + 16, x : x + 16]
            windows[window.tobytes()] = (y, x, False)
            windows[window[:, ::-1].tobytes()] = (y, x, True)
    rng = np.random.default_rng(0)
    seen = {windows[decode.pad_crop_flip(image, rng).tobytes()] for _ in range(3_000)}
    assert len(seen) == 162
