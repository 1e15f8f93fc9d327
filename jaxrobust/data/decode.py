"""From encoded pictures to uint8 arrays of the network's size: decoding, crops and resizing."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from typing import BinaryIO

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from jaxrobust.core.checks import check_that

VERSION = 1
"""To be raised when pictures of some kind come out otherwise: accuracies are then measured anew."""

PADDING = 4
"""Pixels that "crop" and "crop_flip" pad on every side."""

MAX_PIXELS = 2**28 // 3
"""Of a picture: a quarter of a GiB of three bytes each, from which on PIL warns (89 million)."""

# What decoding a JPEG costs goes with its pixels and its scans; a usual progressive one has 10.
_MAX_SCANNED = 16 * MAX_PIXELS

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_SCAN = b"\xff\xda"


def decode(
    encoded: bytes | np.ndarray, *, name: str = "image", reduction: int = 1, channels: int = 3
) -> np.ndarray:
    """Decode a picture (BMP, GIF, JPEG, PNG, TIFF, WebP) to red, green and blue, or to grey.

    Of three channels, grey pictures have three equal ones. Transparency is dropped, CMYK, palettes
    and 16 bit are converted. EXIF orientations are ignored, as they are by the usual ImageNet
    loaders.

    Args:
      encoded: the file's bytes; an array that is already decoded is only checked.
      name: what to call the picture in an error.
      reduction: 1, 2, 4 or 8: a JPEG is decoded at this fraction of its size, which is faster and
        filtered (the inverse cosine transform leaves out the high frequencies). Other formats
        ignore it.
      channels: 3; or 1, where grey pictures keep their values and others become the luma of ITU-R
        BT.601, as in PIL.

    Returns:
      uint8 (height, width, channels).

    Raises:
      ValueError: when the picture cannot be decoded, or to that many channels, or has more than
        `MAX_PIXELS` pixels, which is looked up before it is decoded.

    Example:
      >>> import cv2, numpy as np
      >>> _, png = cv2.imencode(".png", np.zeros((4, 6), np.uint8))
      >>> decode(png.tobytes()).shape, decode(png.tobytes(), channels=1).shape
      ((4, 6, 3), (4, 6, 1))
    """
    check_that(channels in (1, 3), "channels", "be 1 or 3", channels)
    image = _decode(encoded, name, reduction)
    # The weights of the three sum to one in integers too: of equal channels, nothing is rounded.
    return image if channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def _decode(encoded: bytes | np.ndarray, name: str, reduction: int) -> np.ndarray:
    if isinstance(encoded, np.ndarray):
        return _check_array(encoded, name)
    if encoded.startswith(_JPEG):
        size = image_size(encoded)
        if size is not None:
            check_size(*size, name)
            _check_scans(encoded, *size, name)
            smallest = [-(-side // reduction) for side in size] if reduction > 1 else (0, 0)
            # CMYK, or damage: PIL converts the one and judges the other.
            with contextlib.suppress(ValueError):
                return simplejpeg.decode_jpeg(
                    encoded, "RGB", min_height=smallest[0], min_width=smallest[1]
                )
    elif encoded.startswith(_PNG):
        check_size(*_png_size(encoded, name), name)
        # Twice as fast as PIL.
        bgr = cv2.imdecode(
            np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if bgr is not None:
            return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return _decode_with_pil(encoded, name)


def _png_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Height and width, after a look at all chunks.

    OpenCV makes room for as many bytes as a damaged one says, and returns half a picture when the
    end is missing; PIL does not look at all checksums.
    """
    view, place, kind = memoryview(encoded), len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", view[place : place + 8].tobytes().ljust(8, b"\0"))
        end = place + 8 + length
        first = place == len(_PNG)
        checksum = zlib.crc32(view[place + 4 : end]).to_bytes(4, "big")
        if checksum != view[end : end + 4] or first != (kind == b"IHDR"):
            raise ValueError(
                f"Cannot decode {name}: expected a whole PNG, got one that is damaged."
            )
        place = end + 4
    width, height = struct.unpack_from(">II", encoded, 16)
    return height, width


def check_size(height: int, width: int, name: str) -> None:
    """Raise unless a picture has, by its header, so few pixels that it can be decoded.

    Raises:
      ValueError: when it has more than `MAX_PIXELS`.
    """
    rule = f"have at most {MAX_PIXELS:,} pixels"
    check_that(height * width <= MAX_PIXELS, name, rule, f"{height} x {width}")


def _check_scans(encoded: bytes, height: int, width: int, name: str) -> None:
    """Each scan of a progressive JPEG is a pass over all pixels, for as little as 30 bytes."""
    most, scans = _MAX_SCANNED // max(height * width, 1), encoded.count(_SCAN)
    rule = f"have at most {most} scans of its {height} x {width} pixels"
    check_that(scans <= most, name, rule, scans)


def _check_array(image: np.ndarray, name: str) -> np.ndarray:
    fits = image.dtype == np.uint8 and image.ndim in (2, 3)
    got = f"{image.dtype} {image.shape} for {name}"
    check_that(fits, "Images", "be uint8 (height, width, 3)", got)
    image = image if image.ndim == 3 else image[..., None]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def open_header(stream: BinaryIO, name: str) -> Image.Image:
    """A picture of which PIL has read the header alone.

    Raises:
      ValueError: when it is none, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error below
            image = Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError as error:
        expected = f"a picture ({', '.join(_FORMATS)})"
        raise ValueError(f"Cannot decode {name}: expected {expected}.") from error
    except Exception as error:
        raise _damaged(name, error) from error
    check_size(image.height, image.width, name)
    return image


def _decode_with_pil(encoded: bytes, name: str) -> np.ndarray:
    image = open_header(io.BytesIO(encoded), name)
    if encoded.startswith(_JPEG):
        _check_scans(encoded, image.height, image.width, name)
    try:
        if image.mode.startswith("I"):  # 16 bit: PIL's conversion would clip at 255.
            grey = np.asarray(image).astype(np.uint32) >> 8
            return np.repeat(np.minimum(grey, 255).astype(np.uint8)[..., None], 3, axis=-1)
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error …
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ValueError(f"Cannot decode {name}: {reason}.")


def image_size(encoded: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG from its header; None for other formats or a broken header."""
    if not encoded.startswith(_JPEG):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    return height, width


def random_crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw the crop of "Going deeper with convolutions", as torchvision does.

    Args:
      height: height of the picture in pixels.
      width: width of the picture in pixels.
      rng: source of randomness.
      scale: range of the crop's share of the picture's area.
      ratio: range of width / height.

    Returns:
      top, left, height and width in pixels.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    # Very elongated pictures: the largest centred crop of an allowed ratio.
    crop_height = min(height, round(width / ratio[0]))
    crop_width = min(width, round(height * ratio[1]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def crop_and_resize(image: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Crop and resize for training: fast, antialiased to within a good approximation.

    PIL's bilinear interpolation is antialiased. OpenCV's is 8 times as fast but aliases, and its
    INTER_AREA is as slow as PIL. So a Gaussian goes in front of the bilinear interpolation, with
    the variance that its kernel lacks, (factor² - 1) / 6: as close to PIL as INTER_AREA, at a third
    of the time. Beyond a factor of 3 the Gaussian is too wide to pay, and PIL is used.

    Args:
      image: uint8 (height, width, channels).
      box: top, left, height and width of the crop, in pixels.
      size: height and width of the result, in pixels.

    Returns:
      uint8 (size, size, channels).
    """
    top, left, height, width = (round(side) for side in box)
    crop = image[top : top + max(1, height), left : left + max(1, width)]
    factors = crop.shape[0] / size, crop.shape[1] / size
    if max(factors) > 3:
        return _resize_with_pil(crop, size)
    if max(factors) > 1.05:
        # OpenCV takes a σ of 0 for "derive it from the kernel"; 0.01 leaves the pixel as it is.
        sigma_y, sigma_x = (math.sqrt(max(f * f - 1, 1e-3) / 6) for f in factors)
        kernel = tuple(2 * math.ceil(1.6 * sigma) + 1 for sigma in (sigma_x, sigma_y))
        crop = cv2.GaussianBlur(
            crop, kernel, sigmaX=sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE
        )
    resized = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(size, size, -1)  # OpenCV drops the axis of a single channel.


def _resize_with_pil(
    image: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    image = image[..., 0] if image.shape[-1] == 1 else image  # PIL knows no axis of one channel.
    pil = Image.fromarray(np.ascontiguousarray(image))
    resized = np.asarray(pil.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return resized.reshape(size, size, -1)


def random_resized_crop(
    encoded: bytes | np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    name: str = "image",
    channels: int = 3,
) -> np.ndarray:
    """The training transform of ImageNet: a random crop, resized, mirrored half of the time.

    A JPEG whose crop is at least twice the size asked for is decoded at 1/2, 1/4 or 1/8. The
    fractions between them (5/8, 3/4, …) take longer than the whole picture, so they are left out.

    Args:
      encoded: as for `decode`.
      size: height and width of the result, in pixels.
      rng: source of randomness.
      name: what to call the picture in an error.
      channels: as for `decode`.

    Returns:
      uint8 (size, size, channels).

    Raises:
      ValueError: when the picture cannot be decoded.
    """
    full_size = image_size(encoded) if isinstance(encoded, bytes) else None
    if full_size is None:
        image = decode(encoded, name=name, channels=channels)
        box = random_crop_box(image.shape[0], image.shape[1], rng)
    else:
        box = random_crop_box(*full_size, rng)
        factor = min(box[2:]) / size
        reduction = max(r for r in (1, 2, 4, 8) if r <= max(1, factor))
        image = decode(encoded, name=name, reduction=reduction, channels=channels)
        fractions = image.shape[0] / full_size[0], image.shape[1] / full_size[1]
        box = tuple(side * fractions[k % 2] for k, side in enumerate(box))
    image = crop_and_resize(image, box, size)
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def resize_and_center_crop(image: np.ndarray, resize_size: int, size: int) -> np.ndarray:
    """The evaluation transform: shorter side to `resize_size`, then the central square.

    PIL's antialiased bilinear interpolation, as torchvision's, so that published weights see what
    they were trained for; only the part that is kept is computed.

    Args:
      image: uint8 (height, width, channels).
      resize_size: length of the shorter side, in pixels.
      size: height and width of the result, at most `resize_size`.

    Returns:
      uint8 (size, size, channels).

    Example:
      >>> resize_and_center_crop(np.zeros((300, 500, 3), np.uint8), 256, 224).shape
      (224, 224, 3)
    """
    height, width = image.shape[:2]
    short = min(height, width)
    resized_height, resized_width = (int(resize_size * side / short) for side in (height, width))
    top, left = round((resized_height - size) / 2), round((resized_width - size) / 2)
    if (resized_height, resized_width) == (height, width):
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    scale_y, scale_x = height / resized_height, width / resized_width
    box = (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    return _resize_with_pil(image, size, box)


def pad_crop_flip(
    image: np.ndarray, rng: np.random.Generator, *, padding: int = 4, flip: bool = True
) -> np.ndarray:
    """Pad with zeros, crop a random window of the old size, mirror half of the time.

    Args:
      image: uint8 (height, width, channels).
      rng: source of randomness.
      padding: pixels on every side; 0 leaves the crop out.
      flip: whether to mirror at all.

    Returns:
      uint8 (height, width, channels).
    """
    if padding:
        height, width = image.shape[:2]
        top, left = rng.integers(0, 2 * padding + 1, size=2)
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        image = padded[top : top + height, left : left + width]
    if flip and rng.random() < 0.5:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
