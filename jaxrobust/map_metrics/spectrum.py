"""How fine the structure of maps, images and filters is.

The power spectrum of a map is |DFT|² of the map less its mean (channel by channel), summed over
channels, without a window. A frequency (f_y, f_x), each from -1/2 to 1/2 cycles per pixel, has the
radial frequency sqrt(f_y² + f_x²): 1/2 is Nyquist along an axis, sqrt(1/2) the corner.
"""

import numpy as np

from jaxrobust.core.types import Images
from jaxrobust.map_metrics.arrays import check_maps, measured, unit

HALF_NYQUIST = 0.25
_CORNER = np.sqrt(0.5)


def _check_above(above: float, most: float) -> float:
    if not 0 <= float(above) < most:
        raise ValueError(
            f"above must be a frequency in [0, {most:.4g}) cycles per pixel, got {above}."
        )
    # Frequencies that equal the threshold are not above it, however they are rounded.
    return float(above) + 1e-9


def _radial_frequencies(height: int, width: int) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))


def _power(picture: np.ndarray) -> np.ndarray:
    """(h, w): the power spectrum of one (h, w, c), all channels together; 0 if it is constant."""
    varies = np.ptp(picture, axis=(0, 1)) > 0  # not the rounding of the mean
    centred = np.where(varies, picture - picture.mean((0, 1)), 0.0)
    return np.square(np.abs(np.fft.fft2(centred, axes=(0, 1)))).sum(-1)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


def spectral_centroid(maps: Images) -> float | np.ndarray:
    """The radial spectral centroid: the mean radial frequency, weighted by the power spectrum.

    Sum of (radial frequency x power) over all frequencies of the plane, divided by the sum of the
    power. White noise has 0.383, a sinusoid its own frequency.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.

    Returns:
      Cycles per pixel, in [0, 0.7072), a number or (n,); NaN for a map that is constant in every
      channel.

    Raises:
      TypeError, ValueError: for maps of another dtype or rank, or not finite.

    Example:
      >>> import numpy as np
      >>> wave = np.cos(2 * np.pi * np.arange(32) / 8)  # a period of 8 pixels
      >>> round(spectral_centroid(np.tile(wave[None, :, None], (32, 1, 3))), 6)
      0.125
    """

    def centroid(picture):
        power = _power(unit(picture))
        return _share((_radial_frequencies(*power.shape) * power).sum(), power.sum())

    return measured(centroid, check_maps(maps))


def high_frequency_share(maps: Images, *, above: float = HALF_NYQUIST) -> float | np.ndarray:
    """The share of the power at radial frequencies above a threshold.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      above: cycles per pixel, in [0, 0.7071); 0.25 is half Nyquist. White noise has 1 - pi above².

    Returns:
      A share in [0, 1], a number or (n,); NaN for a map that is constant in every channel.

    Raises:
      TypeError, ValueError: for maps or a threshold out of their range.

    Example:
      >>> import numpy as np
      >>> checkerboard = np.indices((8, 8)).sum(0) % 2.0
      >>> high_frequency_share(checkerboard[..., None])
      1.0
    """
    threshold = _check_above(above, _CORNER)

    def share(picture):
        power = _power(unit(picture))
        return _share(power[_radial_frequencies(*power.shape) > threshold].sum(), power.sum())

    return measured(share, check_maps(maps))


def _check_colours(images: Images) -> np.ndarray:
    images = check_maps(images, "images")
    if images.shape[-1] != 3:
        raise ValueError(f"images must have 3 colour channels, got {images.shape[-1]}.")
    return images


def _fine_chroma(picture: np.ndarray, threshold: float) -> float:
    power = _power(picture - picture.mean(-1, keepdims=True))
    fine = power[_radial_frequencies(*power.shape) > threshold].sum()
    return fine / power.size**2  # Parseval: the mean over pixels of the squares


def chroma_energy(images: Images, *, above: float = HALF_NYQUIST) -> float | np.ndarray:
    """The energy of colour at radial frequencies above a threshold: small colour clutter.

    Chroma is what differs between the channels of a pixel: the pixel less the mean of its three
    channels. Its energy is the mean over pixels of its squared length, of that part of the picture
    that varies faster than `above`; a grey picture has none.

    Args:
      images: (h, w, 3) or (n, h, w, 3) floats, as they are (an image of twice the contrast has four
        times the energy; `chroma_share` does not depend on contrast).
      above: cycles per pixel, in [0, 0.7071); 0.25 is half Nyquist.

    Returns:
      Squared pixel units, at least 0, a number or (n,).

    Raises:
      TypeError, ValueError: for images or a threshold out of their range.

    Example:
      >>> import numpy as np
      >>> checkerboard = np.indices((8, 8)).sum(0)[..., None] % 2.0
      >>> grey, red = checkerboard * [1.0, 1.0, 1.0], checkerboard * [1.0, 0.0, 0.0]
      >>> chroma_energy(grey), round(chroma_energy(red), 4)  # ±(1/3, -1/6, -1/6)
      (0.0, 0.1667)
    """
    threshold = _check_above(above, _CORNER)
    return measured(lambda image: _fine_chroma(image, threshold), _check_colours(images))


def chroma_share(images: Images, *, above: float = HALF_NYQUIST) -> float | np.ndarray:
    """`chroma_energy` as a share of all energy, grey and colour, that the image has about its mean.

    Args:
      images: (h, w, 3) or (n, h, w, 3) floats.
      above: cycles per pixel, in [0, 0.7071); 0.25 is half Nyquist.

    Returns:
      A share in [0, 1], a number or (n,); NaN for an image that is constant in every channel.

    Raises:
      TypeError, ValueError: for images or a threshold out of their range.

    Example:
      >>> import numpy as np
      >>> checkerboard = np.indices((8, 8)).sum(0)[..., None] % 2.0
      >>> round(chroma_share(checkerboard * [1.0, 0.0, 0.0]), 4)  # a third of red is grey
      0.6667
    """
    threshold = _check_above(above, _CORNER)

    def share(image):
        image = unit(image)
        return _share(_fine_chroma(image, threshold), _power(image).sum() / image[..., 0].size ** 2)

    return measured(share, _check_colours(images))


def _above_threshold(size: int, threshold: float) -> np.ndarray:
    """The quadratic form v -> energy of v at |f| > threshold, for v of this many samples."""
    distance = np.arange(size)[:, None] - np.arange(size)
    return np.eye(size) - 2 * threshold * np.sinc(2 * threshold * distance)


def nyquist_corner_share(
    kernels: Images, *, above: float = HALF_NYQUIST, per_filter: bool = False
) -> float | np.ndarray:
    """The share of filter energy at the Nyquist corner, where a checkerboard has its energy.

    The corner is the part of the frequency plane where both |f_y| and |f_x| exceed `above`. A
    filter has a continuous spectrum, K(f) = sum over taps of k[x] exp(-2 pi i f x) (a DFT of its
    own few taps would have no Nyquist frequency when their number is odd); the energy is the
    integral of |K|² over the corner and over the plane, computed exactly. The mean of a filter
    counts as energy like the rest. With 0.25, white noise has a share of 1/4, an alternating 3x3
    checkerboard 0.85 and a flat 3x3 filter 0.006.

    Args:
      kernels: (kh, kw, input channels, filters) floats, as convolutions hold them.
      above: cycles per pixel, in [0, 0.5); 0.25 is half Nyquist.
      per_filter: one share for each filter rather than one for all their energy together. Filters
        that died in training then count as much as the others.

    Returns:
      A share in [0, 1], or (filters,) of them; NaN where all taps are zero.

    Raises:
      TypeError, ValueError: for kernels of another dtype or rank, of a single tap, not finite, or
        for a threshold out of its range.

    Example:
      >>> import numpy as np
      >>> checkerboard = np.array([[1.0, -1.0], [-1.0, 1.0]])
      >>> round(nyquist_corner_share(checkerboard[:, :, None, None]), 3)
      0.67
    """
    kernels = np.asarray(kernels)
    if kernels.ndim != 4:
        raise ValueError(
            "kernels must have shape (height, width, input channels, filters), "
            f"got {kernels.shape}."
        )
    kernels = check_maps(kernels, "kernels").astype(np.float64)
    height, width = kernels.shape[:2]
    if min(height, width) < 2:
        raise ValueError(
            f"kernels must be at least 2 x 2 to have spatial structure, got {height} x {width}."
        )
    threshold = _check_above(above, 0.5)
    kernels = unit(kernels)
    rows, columns = _above_threshold(height, threshold), _above_threshold(width, threshold)
    corner = np.einsum("yxcf,yv,xu,vucf->f", kernels, rows, columns, kernels, optimize=True)
    total = np.square(kernels).sum((0, 1, 2))
    if per_filter:
        return np.array([_share(part, whole) for part, whole in zip(corner, total, strict=True)])
    return float(_share(corner.sum(), total.sum()))
