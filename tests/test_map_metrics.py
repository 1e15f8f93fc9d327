import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.feature
import skimage.metrics

from jaxrobust import as_classifier, map_metrics

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((5, 32, 32, 3)).astype(np.float32)
OTHERS = MAPS + RNG.standard_normal(MAPS.shape).astype(np.float32)


def disc(size, row, column, radius):
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


MASKS = np.array([disc(32, 15, 12 + i, 5 + i) for i in range(5)])

MEASURES = {
    "spectral_centroid": lambda maps, others, masks: map_metrics.spectral_centroid(maps),
    "high_frequency_share": lambda maps, others, masks: map_metrics.high_frequency_share(maps),
    "chroma_energy": lambda maps, others, masks: map_metrics.chroma_energy(maps),
    "chroma_share": lambda maps, others, masks: map_metrics.chroma_share(maps),
    "energy_share": lambda maps, others, masks: map_metrics.energy_share(maps, masks),
    "band_share": lambda maps, others, masks: map_metrics.band_share(maps, masks),
    "rank_correlation": lambda maps, others, masks: map_metrics.rank_correlation(maps, others),
    "structural_similarity": (
        lambda maps, others, masks: map_metrics.structural_similarity(maps, others)
    ),
    "hog_similarity": lambda maps, others, masks: map_metrics.hog_similarity(maps, others),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_map_alone_equals_the_map_in_a_batch(name):
    measure = MEASURES[name]
    many = measure(MAPS, OTHERS, MASKS)
    assert many.shape == (5,)
    assert len(np.unique(many)) == 5
    for index in range(5):
        alone = measure(jnp.asarray(MAPS[index]), OTHERS[index], MASKS[index])
        assert isinstance(alone, float)
        assert alone == many[index]


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "chroma_energy"])
def test_shares_and_similarities_do_not_depend_on_scale(name):
    measure = MEASURES[name]
    np.testing.assert_allclose(
        measure(MAPS * np.float32(2.0**-100), OTHERS * np.float32(2.0**-90), MASKS),
        measure(MAPS, OTHERS, MASKS),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "chroma_energy"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_map_gives_nan_where_undefined(name, value):
    maps = MAPS.copy()
    maps[1] = value
    result = MEASURES[name](maps, OTHERS, MASKS)
    assert np.isfinite(np.delete(result, 1)).all()
    if "energy" in name or "band" in name:  # a flat map has energy, spread evenly
        region = MASKS[1] if name == "energy_share" else map_metrics.silhouette_band(MASKS[1])
        np.testing.assert_allclose(result[1], region.mean() if value else np.nan)
    else:
        assert np.isnan(result[1])


@pytest.mark.parametrize("name", MEASURES)
def test_bad_maps_are_refused(name):
    measure = MEASURES[name]
    with pytest.raises(TypeError, match=r"must be floating point, got dtype uint8\.$"):
        measure(np.zeros((32, 32, 3), np.uint8), OTHERS[0], MASKS[0])
    with pytest.raises(ValueError, match=r"must have shape \(height, .*, got \(32, 32\)\.$"):
        measure(MAPS[0, :, :, 0], OTHERS[0], MASKS[0])
    with pytest.raises(ValueError, match=r"must have shape .*, got \(0, 32, 32, 3\)\.$"):
        measure(MAPS[:0], OTHERS[:0], MASKS[:0])
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity\.$"):
        measure(np.where(MAPS > 2, np.nan, MAPS), OTHERS, MASKS)


# Spectrum


def wave(height, width, cycles_down, cycles_across, phase=0.3):
    rows, columns = np.mgrid[:height, :width]
    return np.cos(
        2 * np.pi * (cycles_down * rows / height + cycles_across * columns / width) + phase
    )


@pytest.mark.parametrize(
    ("height", "width", "down", "across"),
    [(32, 32, 4, 0), (32, 32, 3, 4), (24, 40, 6, 10), (15, 32, 0, 7), (32, 32, 16, 0)],
)
def test_centroid_of_a_sinusoid_is_its_frequency(height, width, down, across):
    picture = 5.0 + wave(height, width, down, across)[..., None]
    expected = np.hypot(down / height, across / width)
    assert map_metrics.spectral_centroid(picture) == pytest.approx(expected, abs=1e-9)
    assert map_metrics.high_frequency_share(picture, above=expected) == pytest.approx(0, abs=1e-9)
    below = expected - 0.01
    assert map_metrics.high_frequency_share(picture, above=below) == pytest.approx(1, abs=1e-9)


def test_power_is_summed_over_channels_and_frequencies():
    # Powers 4 at 4/32 and 9 at 12/32 cycles per pixel, in different channels on different means.
    picture = np.stack([2 * wave(32, 32, 4, 0), 7 + 3 * wave(32, 32, 0, 12)], axis=-1)
    centroid = (4 * 4 / 32 + 9 * 12 / 32) / 13
    assert map_metrics.spectral_centroid(picture) == pytest.approx(centroid)
    assert map_metrics.high_frequency_share(picture) == pytest.approx(9 / 13)
    assert map_metrics.high_frequency_share(picture, above=0.4) == pytest.approx(0, abs=1e-9)


def test_a_threshold_counts_what_lies_above_it_only():
    # (3, 4) cycles of 20 pixels: 1/4 cycles per pixel, but for the rounding.
    picture = wave(20, 20, 3, 4)[..., None]
    assert map_metrics.high_frequency_share(picture, above=0.25) == pytest.approx(0, abs=1e-9)


def test_white_noise_has_the_known_figures():
    noise = np.random.default_rng(1).standard_normal((20, 64, 64, 1))
    side = (np.arange(1000) + 0.5) / 2000
    mean_radius = np.hypot(side[:, None], side).mean()
    assert map_metrics.spectral_centroid(noise).mean() == pytest.approx(mean_radius, abs=0.002)
    share = map_metrics.high_frequency_share(noise).mean()
    assert share == pytest.approx(1 - np.pi / 16, abs=0.005)


def test_chroma_is_what_differs_between_channels():
    fine, coarse = wave(32, 32, 12, 0), wave(32, 32, 0, 2)
    grey, red_green = np.array([1.0, 1.0, 1.0]), np.array([1.0, -1.0, 0.0])
    # A cosine of amplitude a along a colour of squared length l has the mean square a² l / 2.
    picture = (
        0.5
        + 0.3 * fine[..., None] * grey
        + 0.2 * fine[..., None] * red_green
        + 0.4 * coarse[..., None] * red_green
    )
    assert map_metrics.chroma_energy(picture) == pytest.approx(0.2**2)
    total = 0.3**2 * 1.5 + 0.2**2 + 0.4**2
    assert map_metrics.chroma_share(picture) == pytest.approx(0.2**2 / total)
    assert map_metrics.chroma_energy(picture, above=0.01) == pytest.approx(0.2**2 + 0.4**2)
    assert map_metrics.chroma_energy(0.3 * fine[..., None] * grey) == pytest.approx(0, abs=1e-12)
    assert map_metrics.chroma_energy(np.full((8, 8, 3), 0.1)) == 0
    with pytest.raises(ValueError, match=r"images must have 3 colour channels, got 1\.$"):
        map_metrics.chroma_energy(picture[..., :1])


def corner_by_quadrature(taps, above):
    """Midpoint rule over the plane of the filter's continuous power spectrum."""
    frequencies = (np.arange(200) + 0.5) / 200 - 0.5
    down, across = (
        np.exp(-2j * np.pi * frequencies[:, None] * np.arange(size)) for size in taps.shape
    )
    power = np.abs(down @ taps @ across.T) ** 2
    corner = (np.abs(frequencies) > above)[:, None] & (np.abs(frequencies) > above)
    return power[corner].sum(), power.sum()


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (7, 7)])
@pytest.mark.parametrize("above", [0.25, 0.4])
def test_nyquist_corner_equals_the_integral_of_the_spectrum(size, above):
    kernels = np.random.default_rng(2).standard_normal((*size, 3, 4))
    parts = np.array(
        [
            [corner_by_quadrature(kernels[:, :, channel, i], above) for channel in range(3)]
            for i in range(4)
        ]
    ).sum(1)
    each = map_metrics.nyquist_corner_share(kernels, above=above, per_filter=True)
    np.testing.assert_allclose(each, parts[:, 0] / parts[:, 1], rtol=2e-3)
    together = map_metrics.nyquist_corner_share(kernels, above=above)
    assert together == pytest.approx(parts[:, 0].sum() / parts[:, 1].sum(), rel=2e-3)


def test_nyquist_corner_of_known_filters():
    checkerboard = (-1.0) ** np.indices((3, 3)).sum(0)
    stripes = (-1.0) ** np.indices((3, 3))[0]
    kernels = np.stack([checkerboard, stripes, np.ones((3, 3)), np.zeros((3, 3))], -1)[:, :, None]
    shares = map_metrics.nyquist_corner_share(kernels, per_filter=True)
    # One axis of three alternating taps: 1/2 + (4/3) sin(π/2)/π; the share of three equal ones is
    # the rest of it to 1.
    fine = 0.5 + 4 / 3 / np.pi
    np.testing.assert_allclose(shares, [fine**2, fine * (1 - fine), (1 - fine) ** 2, np.nan])
    assert map_metrics.nyquist_corner_share(kernels) == pytest.approx(shares[:3].mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: map_metrics.high_frequency_share(MAPS, above=0.8), r"got 0\.8\.$"),
        (lambda: map_metrics.chroma_share(MAPS, above=-0.1), r"got -0\.1\.$"),
        (lambda: map_metrics.chroma_energy(MAPS, above=float("nan")), r"got nan\.$"),
        (lambda: map_metrics.nyquist_corner_share(np.ones((3, 3, 1, 1)), above=0.5), "got 0.5"),
        (lambda: map_metrics.nyquist_corner_share(np.ones((1, 3, 1, 1))), "at least 2 x 2"),
        (lambda: map_metrics.nyquist_corner_share(np.ones((3, 3, 1))), r"got \(3, 3, 1\)\.$"),
    ],
)
def test_bad_options_of_the_spectrum_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Phases


def grid_of(values, stride, row, column):
    """The values where a grid has its pixels, 0 elsewhere."""
    rows, columns = np.indices(values.shape[-3:-1])
    on_grid = (rows % stride == row) & (columns % stride == column)
    return values * on_grid[..., None]


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_phases_are_the_spectrum_of_the_squared_magnitude(stride):
    maps = RNG.standard_normal((3, 24, 36, 3)) * RNG.uniform(0.5, 2, (3, 24, 36, 1))
    shares = map_metrics.phase_shares(maps, stride=stride)
    spectra = np.fft.fft2((maps**2).sum(-1))
    at_multiples = spectra[:, :: 24 // stride, :: 36 // stride] / spectra[:, :1, :1]
    np.testing.assert_allclose(np.fft.fft2(shares), at_multiples, atol=1e-12)
    np.testing.assert_array_equal(map_metrics.phase_shares(maps[1], stride=stride), shares[1])
    np.testing.assert_allclose(shares.sum((1, 2)), 1.0)


@pytest.mark.parametrize("size", [(28, 28), (29, 31)])
def test_a_grid_lies_in_one_phase(size):
    values = RNG.choice([-1.0, 1.0], (*size, 3))
    shares = map_metrics.phase_shares(grid_of(values, 2, 1, 0), stride=2)
    assert shares.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    # A grid twice as wide lies in one phase of each; a map of one size has no grid, whatever sides.
    wide = grid_of(values, 4, 2, 3)
    assert map_metrics.phase_shares(wide, stride=4)[2, 3] == 1.0
    assert map_metrics.phase_shares(wide, stride=2)[0, 1] == 1.0
    np.testing.assert_allclose(map_metrics.phase_shares(values, stride=4), 1 / 16)
    # By hand: three phases of squares 1, and one of 4.
    mixed = values + grid_of(values, 2, 0, 1)
    expected = np.array([[1, 4], [1, 1]]) / 7
    np.testing.assert_allclose(map_metrics.phase_shares(mixed, stride=2), expected)


def test_white_noise_has_no_grid_and_its_spectrum_does_not_tell_one():
    noise = np.random.default_rng(1).standard_normal((20, 64, 64, 1))
    shares = map_metrics.phase_shares(noise, stride=2)
    # Of 1024 squares of normal values in a phase, each of variance 2, against three more phases.
    deviation = np.sqrt(2 / 1024 * 3 / 4) / 4
    assert np.abs(shares - 1 / 4).max() < 4.5 * deviation
    np.testing.assert_allclose(shares.mean(0), 1 / 4, atol=4.5 * deviation / np.sqrt(20))
    on_grid = grid_of(noise, 2, 0, 0)
    centroids = [map_metrics.spectral_centroid(maps).mean() for maps in (noise, on_grid)]
    assert centroids[0] == pytest.approx(centroids[1], abs=0.003)
    assert map_metrics.phase_shares(on_grid, stride=2)[:, 0, 0].min() == 1.0


def test_a_map_of_zeros_has_no_phases_and_a_tiny_one_has():
    maps = np.stack([MAPS[0], 0 * MAPS[0], np.float32(2.0**-100) * MAPS[0]])
    shares = map_metrics.phase_shares(jnp.asarray(maps), stride=2)
    assert np.isnan(shares[1]).all()
    np.testing.assert_array_equal(shares[2], shares[0])


@pytest.mark.parametrize(
    ("stride", "message"),
    [
        (33, r"stride must be at most 32, the maps' shorter side, got 33\.$"),
        (1, r"stride must be a whole number of at least 2, got 1\.$"),
        (2.0, r"stride must be a whole number"),
    ],
)
def test_bad_strides_are_refused(stride, message):
    with pytest.raises((TypeError, ValueError), match=message):
        map_metrics.phase_shares(MAPS, stride=stride)
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity\.$"):
        map_metrics.phase_shares(np.full((8, 8, 1), np.nan), stride=2)


# Silhouette


def brute_force_band(mask, width):
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    band = np.zeros_like(mask)
    for one, other in ((inside, outside), (outside, inside)):
        squared = ((one[:, None] - other[None]) ** 2).sum(-1).min(1)
        band[tuple(one[squared <= width**2].T)] = True
    return band


@pytest.mark.parametrize("width", [None, 1, 1.5, 3])
def test_band_equals_brute_force(width):
    masks = MASKS | (np.arange(32) < 4)  # one silhouette touches the border
    result = map_metrics.silhouette_band(masks, width=width)
    for band, mask in zip(result, masks, strict=True):
        np.testing.assert_array_equal(band, brute_force_band(mask, 2 if width is None else width))


def test_band_is_two_pixels_on_each_side_at_32():
    mask = np.zeros((32, 32), bool)
    mask[:, 10:] = True
    np.testing.assert_array_equal(
        map_metrics.silhouette_band(mask),
        np.broadcast_to(np.isin(np.arange(32), range(8, 12)), (32, 32)),
    )


def test_energy_is_shared_out_by_squares():
    maps = np.zeros((2, 32, 32, 2))
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True
    maps[0, 3, 20] = [1.0, -2.0]  # inside, away from the edge: 5
    maps[0, 3, 17] = [0.0, 3.0]  # inside, in the band: 9
    maps[0, 3, 14] = [1.0, 0.0]  # outside, in the band: 1
    maps[0, 3, 2] = [0.0, -1.0]  # outside: 1
    maps[1, 0, 0] = 1.0
    masks = np.array([mask, mask])
    np.testing.assert_allclose(map_metrics.energy_share(maps, masks), [14 / 16, 0])
    np.testing.assert_allclose(map_metrics.energy_share(maps, ~masks), [2 / 16, 1])
    np.testing.assert_allclose(map_metrics.band_share(maps, masks), [10 / 16, 0])
    np.testing.assert_allclose(map_metrics.band_share(maps, masks, width=1), [0, 0])
    assert map_metrics.energy_share(maps[0], np.zeros_like(mask)) == 0


@pytest.mark.parametrize("measure", [map_metrics.energy_share, map_metrics.band_share])
def test_bad_masks_are_refused(measure):
    with pytest.raises(TypeError, match=r"masks must be boolean, got dtype int64\.$"):
        measure(MAPS, MASKS.astype(np.int64))
    with pytest.raises(ValueError, match=r"as the maps have, got \(4, 32, 32\)\.$"):
        measure(MAPS, MASKS[:4])
    with pytest.raises(ValueError, match=r"as the maps have, got \(32, 32\)\.$"):
        measure(MAPS, MASKS[0])
    with pytest.raises(ValueError, match=r"must have shape .* got \(5, 32, 32, 1\)\.$"):
        measure(MAPS, MASKS[..., None])


def test_masks_without_an_edge_have_no_band():
    masks = MASKS.copy()
    masks[3] = False
    with pytest.raises(ValueError, match=r"but mask 3 covers nothing\.$"):
        map_metrics.band_share(MAPS, masks)
    with pytest.raises(ValueError, match=r"but the mask covers everything\.$"):
        map_metrics.silhouette_band(np.ones((32, 32), bool))
    with pytest.raises(ValueError, match=r"got 0\.5 \(a sixteenth of the height 8\)\.$"):
        map_metrics.silhouette_band(disc(8, 4, 4, 2))
    with pytest.raises(ValueError, match=r"width must be at least 1 pixel, got 0\.$"):
        map_metrics.band_share(MAPS, MASKS, width=0)


# Similarity


def reduced(picture, signed):
    return picture.astype(np.float64).sum(-1) if signed else np.abs(picture, dtype=float).sum(-1)


def shown(picture, signed, percentile=99):
    """What is compared, written with other functions."""
    values = reduced(picture, signed)
    top = np.percentile(np.abs(values), percentile)
    low = -top if signed else values.min()
    return np.interp(values, [-top if signed else low, top], [0, 1])


@pytest.mark.parametrize("signed", [False, True])
def test_rank_correlation_equals_scipys(signed):
    maps = MAPS.round(1)  # with ties
    expected = [
        scipy.stats.spearmanr(reduced(a, signed).round(9).ravel(), reduced(b, signed).ravel())[0]
        for a, b in zip(maps, OTHERS, strict=True)
    ]
    result = map_metrics.rank_correlation(maps, OTHERS, signed=signed)
    np.testing.assert_allclose(result, expected, rtol=1e-4)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("percentile", [99, 100, 80])
def test_structural_similarity_equals_the_definition(signed, percentile):
    def one(first, second):
        first, second = shown(first, signed, percentile), shown(second, signed, percentile)
        blur = functools.partial(scipy.ndimage.gaussian_filter, sigma=1.5, truncate=3.5)
        constants = 0.01**2, 0.03**2
        means = blur(first), blur(second)
        covariance = blur(first * second) - means[0] * means[1]
        variances = blur(first**2) - means[0] ** 2 + blur(second**2) - means[1] ** 2
        similarity = (2 * means[0] * means[1] + constants[0]) * (2 * covariance + constants[1])
        similarity /= (means[0] ** 2 + means[1] ** 2 + constants[0]) * (variances + constants[1])
        return similarity[5:-5, 5:-5].mean()

    expected = [one(first, second) for first, second in zip(MAPS, OTHERS, strict=True)]
    result = map_metrics.structural_similarity(
        MAPS, OTHERS, signed=signed, clip_percentile=percentile
    )
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("size", "given", "cell"), [(32, None, 4), (160, None, 16), (32, 8, 8)])
def test_hog_similarity_equals_the_correlation_of_descriptors(signed, size, given, cell):
    rng = np.random.default_rng(3)
    first = rng.standard_normal((size, size, 3))
    second = first + rng.standard_normal(first.shape)
    descriptors = [
        skimage.feature.hog(shown(values, signed), pixels_per_cell=(cell, cell))
        for values in (first, second)
    ]
    result = map_metrics.hog_similarity(first, second, signed=signed, pixels_per_cell=given)
    assert result == pytest.approx(np.corrcoef(*descriptors)[0, 1])


SIMILARITIES = [
    map_metrics.rank_correlation,
    map_metrics.structural_similarity,
    map_metrics.hog_similarity,
]


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_signs_count_only_when_asked(measure):
    assert measure(MAPS[0], MAPS[0]) == pytest.approx(1)
    assert measure(MAPS[0], -MAPS[0]) == pytest.approx(1)
    assert measure(MAPS[0], MAPS[0], signed=True) == pytest.approx(1)
    if measure is not map_metrics.hog_similarity:  # orientations of gradients have no sign
        assert measure(MAPS[0], -MAPS[0], signed=True) < -0.7
    assert measure(MAPS[0], OTHERS[0]) == measure(OTHERS[0], MAPS[0])


@pytest.mark.parametrize("measure", SIMILARITIES[1:])
def test_a_map_that_is_clipped_away_is_nan(measure):
    sparse = np.zeros((32, 32, 1))
    sparse[4, 5] = 1.0
    assert np.isnan(measure(sparse, MAPS[0, :, :, :1]))
    assert np.isfinite(measure(sparse, MAPS[0, :, :, :1], clip_percentile=100))


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_bad_pairs_are_refused(measure):
    with pytest.raises(ValueError, match=r"shape of maps, \(5, 32, 32, 3\), got \(32, 32, 3\)\.$"):
        measure(MAPS, OTHERS[0])
    with pytest.raises(TypeError, match=r"others must be floating point"):
        measure(MAPS[0], np.zeros((32, 32, 3), int))
    if measure is not map_metrics.rank_correlation:
        with pytest.raises(ValueError, match=r"clip_percentile must lie in \(0, 100\], got 0\.$"):
            measure(MAPS, OTHERS, clip_percentile=0)
    if measure is map_metrics.structural_similarity:
        with pytest.raises(ValueError, match=r"at least 11 x 11 .*, got \(10, 32\)\.$"):
            measure(MAPS[:, :10], OTHERS[:, :10])


@pytest.mark.parametrize(
    ("size", "cell", "message"),
    [
        (8, None, r"got 1 \(an eighth of 8 pixels\)\.$"),
        (32, 1.5, r"at least 2, got 1\.5\.$"),
        (32, 2.5, r"at least 2, got 2\.5\.$"),
        (32, 11, r"3 x 3 cells of 11 pixels, got \(32, 32\)\.$"),
    ],
)
def test_bad_cells_are_refused(size, cell, message):
    maps = np.random.default_rng(0).standard_normal((size, size, 3))
    with pytest.raises(ValueError, match=message):
        map_metrics.hog_similarity(maps, maps, pixels_per_cell=cell)


# Deletion and insertion

SHAPE = (4, 5, 3)
WEIGHTS = RNG.standard_normal((60, 3)).astype(np.float32)
IMAGES = RNG.uniform(size=(7, *SHAPE)).astype(np.float32)
LABELS = np.arange(7) % 3
MEAN = (0.4, 0.5, 0.6)


@functools.cache
def linear(mean=MEAN):
    """One object for all tests, so that its programs are compiled once."""
    std = None if mean is None else (1.0, 1.0, 1.0)
    return as_classifier(lambda w, image: image.reshape(-1) @ w, WEIGHTS, mean=mean, std=std)


def curve_by_hand(image, label, salience, other, counts, *, insert):
    """Pixel by pixel, in NumPy."""
    start, end = (other, image) if insert else (image, other)
    current = np.array(start, np.float64).reshape(-1, 3)
    order = sorted(range(20), key=lambda pixel: -salience.reshape(-1)[pixel])
    curve = []
    for previous, count in zip([0, *counts], counts, strict=False):
        for pixel in order[previous:count]:
            current[pixel] = np.reshape(end, (-1, 3))[pixel]
        logits = (current - MEAN).reshape(-1) @ WEIGHTS.astype(np.float64)
        curve.append(np.exp(logits[label]) / np.exp(logits).sum())
    return curve


@functools.cache
def saliency_maps():
    return np.random.default_rng(5).standard_normal((7, *SHAPE)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("insert", "steps", "signed"),
    [(False, 1, False), (False, 3, True), (False, 20, False), (True, 3, False), (True, 20, True)],
)
def test_curves_of_a_linear_classifier_equal_numpy(insert, steps, signed):
    method = map_metrics.insertion_curve if insert else map_metrics.deletion_curve
    counts = [k * 20 // steps for k in range(steps + 1)]
    expected = [
        curve_by_hand(
            image,
            label,
            reduced(saliency_map, signed),
            np.broadcast_to(MEAN, SHAPE),
            counts,
            insert=insert,
        )
        for image, label, saliency_map in zip(IMAGES, LABELS, saliency_maps(), strict=True)
    ]
    options = dict(steps=steps, signed=signed, baseline="mean")
    result = method(linear(), IMAGES, LABELS, saliency_maps(), **options)
    assert result.shape == (7, steps + 1)
    np.testing.assert_allclose(result, expected, rtol=2e-5)
    for index in (0, 6):
        alone = method(linear(), IMAGES[index], LABELS[index], saliency_maps()[index], **options)
        np.testing.assert_allclose(alone, result[index], rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 17])
@pytest.mark.parametrize("method", [map_metrics.deletion_curve, map_metrics.insertion_curve])
def test_batch_size_does_not_change_curves(method, batch_size):
    arguments = (linear(), IMAGES, LABELS, saliency_maps())
    expected = method(*arguments, steps=7)
    result = method(*arguments, steps=7, batch_size=batch_size)
    np.testing.assert_allclose(result, expected, rtol=2e-5)


def test_batch_size_bounds_memory():
    classifier = as_classifier(
        lambda weights, image: (image * weights).sum((0, 1)), jnp.ones((64, 64, 1))
    )
    images = jnp.zeros((64, 64, 64, 3))

    def temporary(batch_size, steps):
        def curves(images, labels, maps):
            return map_metrics.deletion_curve(
                classifier,
                images,
                labels,
                maps,
                baseline="blur",
                steps=steps,
                batch_size=batch_size,
            )

        lowered = jax.jit(curves).lower(images, jnp.zeros(64, int), images)
        compiled = lowered.compile({"xla_backend_optimization_level": 0})
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(8, 32) < 0.5 * temporary(512, 32)
    assert temporary(8, 256) < 1.1 * temporary(8, 32)


def test_blur_and_functions_as_baselines():
    image = np.random.default_rng(6).uniform(size=(24, 20, 3)).astype(np.float32)
    # The probability of class 0 tells the whole picture: the first pixel's red value.
    classifier = as_classifier(lambda _, image: jnp.stack([image[7, 2, 0], 0.0]), 0)

    def red(probability):
        return np.log(probability / (1 - probability))

    blurred = scipy.ndimage.gaussian_filter(image[..., 0], 5.0, mode="mirror", truncate=1.0)
    curve = map_metrics.insertion_curve(classifier, image, 0, image, steps=1)
    np.testing.assert_allclose(red(curve), [blurred[7, 2], image[7, 2, 0]], atol=1e-5)
    curve = map_metrics.deletion_curve(classifier, image, 0, image, steps=1, baseline=reversed_)
    np.testing.assert_allclose(red(curve), [image[7, 2, 0], 1 - image[7, 2, 0]], atol=1e-5)


def reversed_(image):
    return 1 - image


def test_the_right_map_beats_its_opposite():
    classifier = linear()
    right = WEIGHTS[:, 0].reshape(SHAPE) * (IMAGES[0] - np.array(MEAN)) + 10
    areas = {}
    for name, saliency_map in (("right", right), ("wrong", 20 - right)):
        for method in (map_metrics.deletion_curve, map_metrics.insertion_curve):
            curve = method(
                classifier, IMAGES[0], 0, saliency_map.astype(np.float32), baseline="mean", steps=20
            )
            areas[name, method.__name__] = map_metrics.area_under_curve(curve)
    assert areas["right", "deletion_curve"] < areas["wrong", "deletion_curve"]
    assert areas["right", "insertion_curve"] > areas["wrong", "insertion_curve"]


def test_equal_pixels_go_row_by_row_and_a_flat_map_gives_nan():
    maps = np.zeros((2, *SHAPE), np.float32)
    maps[0, 2, 2] = 1.0  # all others are equal
    result = map_metrics.deletion_curve(linear(), IMAGES[:2], LABELS[:2], maps, steps=20)
    salience = maps[0, :, :, 0].copy()
    salience[salience == 0] = np.linspace(0.5, 0.1, 19)
    expected = curve_by_hand(
        IMAGES[0], 0, salience, np.broadcast_to(MEAN, SHAPE), range(21), insert=False
    )
    np.testing.assert_allclose(result[0], expected, rtol=2e-5)
    assert np.isnan(result[1]).all()
    assert np.isnan(map_metrics.area_under_curve(result)).tolist() == [False, True]


def test_area_is_the_trapezoids():
    curves = np.array([[1.0, 0.5, 0.25], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(map_metrics.area_under_curve(curves), [0.5625, 0.25])
    assert map_metrics.area_under_curve(curves[0]) == 0.5625
    for bad in (np.zeros(1), np.zeros((2, 2, 2)), 1.0):
        with pytest.raises(ValueError, match="curves must have shape"):
            map_metrics.area_under_curve(bad)


def refuse(message, error=ValueError, classifier=None, **changes):
    arguments = dict(
        classifier=classifier or linear(),
        images=IMAGES,
        labels=LABELS,
        saliency_maps=saliency_maps(),
        steps=4,
        baseline="zeros",
    )
    for method in (map_metrics.deletion_curve, map_metrics.insertion_curve):
        with pytest.raises(error, match=message):
            method(**(arguments | changes))


def test_bad_input_of_the_curves_is_refused():
    refuse(r"steps must be a whole number of at least 1, got 0\.$", steps=0)
    refuse(r"steps must be a whole number of at least 1, got 2\.5\.$", steps=2.5)
    refuse(r"steps must be at most the number of pixels, 20, got 21\.", steps=21)
    refuse(r"one of mean, zeros, blur, got 'black'\.$", baseline="black")
    refuse(r"baseline must return an image of shape", baseline=jnp.sum)
    refuse(r"the mean image of a", classifier=linear(None), baseline="mean")
    refuse(r"signed must be True or False", error=TypeError, signed="yes")
    refuse(r"images must be floating point", error=TypeError, images=np.zeros((7, *SHAPE), int))
    refuse(r"saliency_maps must have the images' shape", saliency_maps=saliency_maps()[:3])
    refuse(r"labels must lie in \[0, 3\)", labels=LABELS + 1)
    refuse(r"batch_size must be a whole number", batch_size=0)
