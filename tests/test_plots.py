import itertools
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxrobust import plots

RNG = np.random.default_rng(0)


def pictures(rows, columns, size=8, channels=3):
    return RNG.integers(0, 256, (rows, columns, size, size, channels), dtype=np.uint8)


def saved(figure, path):
    plots.save(figure, path)
    return np.asarray(Image.open(path).convert("RGB"))


def boxes(figure):
    """Text and bounding box in pixels of every text of a figure, and the boxes of its axes."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        texts += [text for text in axes.texts if text.get_text()]
    return (
        [(text.get_text(), text.get_window_extent(renderer)) for text in texts],
        [axes.get_window_extent(renderer) for axes in figure.axes],
    )


def overlap(first, second):
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return min(width, height) > 1


def assert_readable(figure):
    texts, cells = boxes(figure)
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
        assert not any(overlap(box, cell) for cell in cells), text
    for (first, one), (second, other) in itertools.combinations(texts, 2):
        assert not overlap(one, other), (first, second)
    for one, other in itertools.combinations(cells, 2):
        assert not overlap(one, other)
    return texts


def test_to_picture_by_hand():
    # Eight values of mean 0 and variance (4·1 + 4·9) / 8 = 5.
    values = np.array([1.0, -1, 1, -1, 3, -3, 3, -3])
    picture = plots.to_picture(values.reshape(2, 4, 1), deviations=1.0)
    expected = 0.5 + 0.5 * np.clip(values / np.sqrt(5), -1, 1)
    np.testing.assert_allclose(picture.ravel(), expected, rtol=1e-6)
    assert picture.dtype == np.float32
    # Two spikes far beyond 3σ in a map of zeros.
    spikes = np.zeros((10, 10, 3))
    spikes[2, 3, 1], spikes[7, 7, 0] = 5.0, -5.0
    picture = plots.to_picture(spikes)
    assert (picture[2, 3, 1], picture[7, 7, 0], picture[0, 0, 0]) == (1.0, 0.0, 0.5)
    # The limit itself is the end of the range, and half of it is half of the way.
    sigma = 5 * np.sqrt(2 / 300)
    for deviations, shown in ((5 / sigma, 1.0), (10 / sigma, 0.75)):
        assert plots.to_picture(spikes, deviations=deviations)[2, 3, 1] == pytest.approx(shown)


@pytest.mark.parametrize(("value", "grey"), [(0.0, 0.5), (0.1, 2 / 3), (-7.0, 1 / 3)])
def test_a_constant_map_has_the_grey_of_its_sign(value, grey):
    """Its deviation about 0 is its own size, a third of what is white."""
    picture = plots.to_picture(np.full((5, 7, 3), value, np.float32))
    np.testing.assert_allclose(picture, grey, rtol=1e-6)


def test_each_map_has_its_own_scale():
    maps = RNG.normal(size=(2, 3, 6, 5, 3)).astype(np.float32)
    together = plots.to_picture(
        maps * np.array([1e-30, 1.0], np.float32)[:, None, None, None, None]
    )
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(together[index], plots.to_picture(maps[index]), atol=1e-6)
    np.testing.assert_allclose(plots.to_picture(jnp.asarray(maps)), plots.to_picture(maps))
    assert plots.to_picture(jnp.asarray(maps, jnp.bfloat16)).shape == maps.shape


def test_heatmap_by_hand():
    summed = np.array([[0.0, -50.0, 1.0], [2.0, 3.0, 94.0]])  # positive energy 100
    maps = np.stack([summed, 2 * summed, -2 * summed], -1)
    # 5 % of the energy may saturate: sorted, 0 0 1 2 3 94 reaches 95 at the largest.
    for outliers, limit in ((5.0, 94.0), (94.5, 3.0)):
        heat = plots.heatmap(maps, outliers=outliers)
        share = np.clip(np.maximum(summed, 0) / limit, 0, 1)
        luminance = heat @ np.array([0.2126, 0.7152, 0.0722])
        order = np.argsort(share.ravel())
        assert (np.diff(luminance.ravel()[order]) >= 0).all()  # perceptually ordered
        np.testing.assert_array_equal(heat[0, 0], heat[0, 1])  # negative is nothing
        assert (share == 1).sum() == (luminance == luminance.max()).sum()
    negative = plots.heatmap(maps, sign="negative", outliers=0)
    assert np.unravel_index(negative.sum(-1).argmax(), summed.shape) == (0, 1)
    absolute = plots.heatmap(maps, sign="absolute", outliers=0)
    np.testing.assert_array_equal(absolute, plots.heatmap(np.abs(maps[..., :1]), outliers=0))
    nothing = plots.heatmap(np.zeros((2, 4, 4, 3)))
    assert np.ptp(nothing.reshape(-1, 3), axis=0).max() == 0


def test_overlay_is_the_weighted_mean():
    images = RNG.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    maps = RNG.normal(size=(2, 6, 6, 1))
    mixed = plots.overlay(images, maps, alpha=0.25, sign="absolute")
    expected = 0.75 * images / 255 + 0.25 * plots.heatmap(maps, sign="absolute")
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    np.testing.assert_allclose(plots.overlay(images, maps, alpha=0), images / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(1, 1, 32), (3, 5, 32), (2, 2, 7), (2, 3, 224), (4, 10, 28)]
)
def test_saved_pixels_are_the_pictures(tmp_path, rows, columns, size):
    shown = pictures(rows, columns, size)
    figure = plots.grid(shown, row_titles=["row"] * rows, title="A title")
    page = saved(figure, tmp_path / "folder" / "figure.png")
    assert page.shape[:2] == (round(figure.bbox.height), round(figure.bbox.width))
    assert Image.open(tmp_path / "folder" / "figure.png").info["dpi"][0] >= 150
    for axes, picture in zip(figure.axes, shown.reshape(-1, size, size, 3), strict=True):
        box = axes.get_window_extent()
        left, top = round(box.x0), page.shape[0] - round(box.y1)
        block = page[top : top + round(box.height), left : left + round(box.width)]
        factor = len(block) // size
        assert factor * size == len(block)
        enlarged = picture.repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(block, enlarged)
        # Nothing of it beyond the box.
        assert (page[top - 1, left : left + len(block)] == 255).all()


def test_kinds_of_pictures(tmp_path):
    grey = np.linspace(0, 1, 16).reshape(4, 4)
    colour = np.repeat(grey[..., None], 3, -1)
    levels = np.rint(255 * colour).astype(np.uint8)
    rows = [
        [grey, grey[..., None], colour, None],
        [
            colour.astype(np.float32),
            jnp.asarray(colour),
            np.rint(255 * colour).astype(np.uint8),
            colour[:, :2],
        ],
    ]
    figure = plots.grid(rows)
    assert len(figure.axes) == 7
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for each in drawn[:6]:
        np.testing.assert_array_equal(each, levels)
    whole, half = (figure.axes[i].get_window_extent() for i in (0, 6))
    assert half.height == pytest.approx(whole.height)
    assert half.width == pytest.approx(whole.width / 2, abs=1)


METHODS = ["vanilla gradient", "loss gradient", "guided backprop", "SmoothGrad"]
METHODS += ["integrated gradients", "input × gradient"]
LONG = "a rather long title of one row or column that must wrap somewhere"
LAYOUTS = {
    "one": dict(shape=(1, 1), title="A title that is far longer than the only picture is wide"),
    "one long word": dict(shape=(1, 1), title="Supercalifragilisticexpialidociousnesses" * 2),
    "methods": dict(
        shape=(3, 6),
        row_titles=["image", "STD", "ADV"],
        column_titles=[
            "vanilla gradient",
            "loss gradient",
            "guided backprop",
            "SmoothGrad",
            "integrated gradients",
            "input × gradient",
        ],
        title="Sensitivity maps",
        note="Each map is clipped at three of its standard deviations.",
    ),
    "long": dict(shape=(2, 3), row_titles=[LONG, "b"], column_titles=[LONG, "b", LONG]),
    "long words": dict(
        shape=(2, 10),
        row_titles=["Incomprehensibilities", "b"],
        column_titles=["Incomprehensibilities"] * 10,
    ),
    "many": dict(
        shape=(20, 10),
        row_titles=[f"ResNet-{k} ADV seed {k}" for k in range(20)],
        column_titles=[f"class {k}" for k in range(10)],
    ),
    "groups": dict(
        shape=(4, 6),
        row_titles=["STD", "ADV"] * 2,
        column_titles=["random", "STD", "ADV"] * 2,
        row_groups=[("guided backprop", 2), ("vanilla", 2)],
        column_groups=[("ResNet-50", 3), ("AlexNet", 3)],
        title="Groups",
        captions=[[f"similarity {k / 7:.2f}" for k in range(6)]] * 4,
    ),
    "narrow groups": dict(
        shape=(2, 4),
        column_groups=[("an architecture of long name", 1), ("ResNet-50", 2), ("AlexNet", 1)],
        row_groups=[("an architecture of long name", 1), ("b", 1)],
        captions=[["a", None, "caption", "b"], [None, "d", "e", "f"]],
        captions_above=True,
        cell_size=0.5,
    ),
    "line breaks": dict(shape=(2, 2), row_titles=["a\nb", "c"], column_titles=["d\ne\nf", "g"]),
}


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("size", [32, 224])
def test_titles_are_inside_and_apart(case, size):
    options = dict(LAYOUTS[case])
    rows, columns = options.pop("shape")
    picture = np.zeros((size, size, 3), np.uint8)
    figure = plots.grid([[picture] * columns] * rows, **options)
    texts = assert_readable(figure)
    words = " ".join(text for text, _ in texts).split()
    asked = [options.get("title"), options.get("note")]
    asked += options.get("row_titles", []) + options.get("column_titles", [])
    asked += [head for key in ("row_groups", "column_groups") for head, _ in options.get(key, [])]
    asked += [caption for row in options.get("captions", []) for caption in row]
    assert sorted(words) == sorted(" ".join(filter(None, asked)).split())


def test_titles_stand_beside_what_they_name():
    figure = plots.grid(
        pictures(2, 3), row_titles=["r0", "r1"], column_titles=["c0", "c1", "c2"], title="t"
    )
    texts, cells = boxes(figure)
    place = dict(texts)
    for column in range(3):
        box, cell = place[f"c{column}"], cells[column]
        assert (box.x0 + box.x1) / 2 == pytest.approx((cell.x0 + cell.x1) / 2, abs=2)
        assert cell.y1 <= box.y0 + 1 < cell.y1 + 30
    for row in range(2):
        box, cell = place[f"r{row}"], cells[3 * row]
        assert (box.y0 + box.y1) / 2 == pytest.approx((cell.y0 + cell.y1) / 2, abs=3)
        assert cell.x0 - 30 < box.x1 <= cell.x0
    assert place["t"].y0 > place["c0"].y1


def test_frames_show_where_white_pictures_end(tmp_path):
    white = np.full((2, 3, 8, 8, 3), 255, np.uint8)
    for frames in (False, True):
        figure = plots.grid(white, frames=frames)
        page = saved(figure, tmp_path / "a.png")
        for axes in figure.axes:
            box = axes.get_window_extent()
            left, top = round(box.x0), page.shape[0] - round(box.y1)
            right, bottom = left + round(box.width), top + round(box.height)
            sides = [page[top:bottom, x - 1 : x + 2] for x in (left, right)]
            sides += [page[y - 1 : y + 2, left:right].swapaxes(0, 1) for y in (top, bottom)]
            for side in sides:  # a line along all of it, and nothing within
                assert ((side.min((1, 2)) < 230) == frames).all()
            assert (page[top + 3 : bottom - 3, left + 3 : right - 3] == 255).all()
        assert_readable(figure)


@pytest.mark.parametrize("above", [False, True])
def test_rows_without_captions_have_no_room_for_them(above):
    def distances(captions):
        figure = plots.grid(
            pictures(4, 2),
            row_titles=["a", "b", "c", "d"],
            row_groups=[("", 2), ("", 2)],
            captions=captions,
            captions_above=above,
        )
        texts = assert_readable(figure)
        tops = [box.y1 for box in boxes(figure)[1][::2]]
        cells = boxes(figure)[1][::2]
        for title, cell in zip("abcd", cells, strict=True):
            middle = (dict(texts)[title].y0 + dict(texts)[title].y1) / 2
            assert middle == pytest.approx((cell.y0 + cell.y1) / 2, abs=3)
        return -np.diff(tops)

    without = distances(None)
    # Where a row with captions begins (above) or ends (below), the distance is larger.
    some = distances([["one", None], ["", ""], ["two", "one"], ["", ""]])
    every = distances([["one", "two"]] * 4)
    larger = [0, 1, 0] if above else [1, 0, 1]
    room = every[0] - without[0]
    assert room > 10
    np.testing.assert_allclose(some - without, room * np.array(larger), atol=0.1)


BAD_GRIDS = {
    "ragged": (lambda: plots.grid([[PICTURE], [PICTURE] * 2]), "of one length of at least 1, got"),
    "no row": (lambda: plots.grid([]), "got no row"),
    "all empty": (lambda: plots.grid([[None]]), "at least one picture, got None in every cell"),
    "flat list": (lambda: plots.grid([PICTURE]), "a list of rows, each a list of pictures"),
    "rank": (lambda: plots.grid(np.zeros((2, 8, 8, 3))), r"got shape \(2, 8, 8, 3\)"),
    "row titles": (
        lambda: plots.grid([[PICTURE]], row_titles=["a", "b"]),
        "row_titles must be 1 titles, got 2",
    ),
    "one string": (
        lambda: plots.grid([[PICTURE]], column_titles="a"),
        "column_titles must be 1 titles, got 'a'",
    ),
    "groups": (
        lambda: plots.grid([[PICTURE]], column_groups=[("a", 2)]),
        r"column_groups must be .* add up to 1, got \[2\]",
    ),
    "captions": (lambda: plots.grid([[PICTURE]], captions=[["a", "b"]]), "captions must be 1 rows"),
    "cell size": (lambda: plots.grid([[PICTURE]], cell_size=0.0), "cell_size must be at least 0.2"),
    "signed": (
        lambda: plots.grid([[PICTURE, -PICTURE]]),
        r"row 0, column 1 must lie in \[0, 1\], got values from -1 to -1 \(to_picture",
    ),
    "nan": (lambda: plots.grid([[PICTURE * np.nan]]), "must be finite, got NaN"),
    "channels": (lambda: plots.grid([[np.zeros((4, 4, 2))]]), r"got \(4, 4, 2\)"),
    "integers": (lambda: plots.grid([[PICTURE.astype(int)]]), "or uint8, got int64"),
    "integer maps": (lambda: plots.to_picture(np.zeros((4, 4, 3), int)), "signed floats, got int"),
    "nan maps": (lambda: plots.to_picture(PICTURE * np.nan), "maps must be finite, got NaN"),
    "infinite maps": (lambda: plots.heatmap(PICTURE * np.inf), "must be finite, got infinity"),
    "flat maps": (lambda: plots.to_picture(np.zeros((4, 4))), r"got \(4, 4\)"),
    "deviations": (lambda: plots.to_picture(PICTURE, deviations=0), "deviations must be"),
    "sign": (lambda: plots.heatmap(PICTURE, sign="both"), "sign must be positive, negative or"),
    "outliers": (lambda: plots.heatmap(PICTURE, outliers=100), r"outliers must be in \[0, 100\)"),
    "colors": (lambda: plots.heatmap(PICTURE, colors="rainbows"), "got 'rainbows'"),
    "alpha": (
        lambda: plots.overlay(PICTURE, PICTURE, alpha=2),
        r"alpha must be in \[0, 1\], got 2",
    ),
    "other size": (lambda: plots.overlay(PICTURE, PICTURE[:4]), r"got \(8, 8, 3\) and \(4, 8, 3\)"),
    "no filters": (lambda: plots.filters({}), "at least one model, got none"),
    "kernel rank": (lambda: plots.filters({"a": PICTURE}), r"kernels of 'a' .*got \(8, 8, 3\)"),
    "kernel nan": (
        lambda: plots.filters({"a": PICTURE[None] * np.nan}),
        "kernels of 'a' must be finite, got NaN",
    ),
    "inset": (lambda: plots.filters({"a": PICTURE[None]}, inset=1), r"in \[0, 1\), got 1"),
    "inset name": (
        lambda: plots.filters({"a": PICTURE[None]}, inset={"b": 0}),
        "inset must name models of a, got 'b'",
    ),
    "limit": (lambda: plots.filters({"a": PICTURE[None]}, limit=0.0), "limit must be"),
    "curve length": (
        lambda: plots.curves([0, 1], {"STD": [[1, 2, 3]]}, **LABELS),
        r"'STD' must have shape \(seeds, 2\) or \(2,\), got \(1, 3\)",
    ),
    "curve nan": (
        lambda: plots.curves([0, 1], {"STD": [1, np.nan]}, **LABELS),
        "'STD' must be finite, got NaN",
    ),
    "x ticks": (
        lambda: plots.curves([0, 1], {"STD": [1, 2]}, x_ticks=["a"], **LABELS),
        r"x_ticks must be 2 names, one a position, got \['a'\]",
    ),
    "x": (lambda: plots.curves([1, 0], {"STD": [1, 2]}, **LABELS), "increasing finite numbers"),
    "no curves": (lambda: plots.curves([0, 1], {}, **LABELS), "at least one line, got none"),
    "panels": (
        lambda: plots.curves([0], {"p": {"STD": [1]}}, dashed={"q": {"a": [1]}}, **LABELS),
        "dashed must have the panels of series, got 'q'",
    ),
    "filled between": (
        lambda: plots.curves(
            [0],
            {"p": {"STD": [1], "ADV": [2]}, "q": {"STD": [1]}},
            filled_between=("STD", "ADV"),
            **LABELS,
        ),
        "filled_between must name two lines of the panel 'q', got 'ADV'",
    ),
    "x of panels": (
        lambda: plots.curves({"p": [0]}, {"p": {"STD": [1]}, "q": {"STD": [1]}}, **LABELS),
        "x must have the panels of series, p, q, got p",
    ),
    "no bars": (lambda: plots.bars({"p": {}}, y_label="y"), "each hold at least one bar, got none"),
    "bar nan": (
        lambda: plots.bars({"p": {"g": {"STD": (1.0, np.nan)}}}, y_label="y"),
        "bars must be finite, got 1.0 and the spread nan",
    ),
    "pale": (
        lambda: plots.bars({"p": {"g": {"STD": (1.0, None)}}}, y_label="y", pale=["q"]),
        "pale must name panels, p, got 'q'",
    ),
}
PICTURE = np.ones((8, 8, 3))
LABELS = dict(x_label="x", y_label="y")


@pytest.mark.parametrize("case", BAD_GRIDS)
def test_bad_input(case):
    call, message = BAD_GRIDS[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert str(caught.value).count("\n") == 0


def test_filters_have_one_scale(tmp_path):
    kernels = RNG.uniform(-1, 1, size=(10, 3, 3, 3))
    kernels[4, 0, 0] = 1.0, -1.0, 0.0
    models = {"ResNet-50 STD": kernels, "ResNet-50 ADV": kernels / 4}
    figure = plots.filters(models, inset=4, title="First layer", path=tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()
    texts = [text for text, _ in boxes(figure)[0]]
    assert texts.count("filter 4") == 2
    assert any("−1" in text and "white 1" in text for text in texts)
    std, adv = (np.asarray(axes.images[0].get_array(), int) for axes in figure.axes)
    for axes, picture, scale in zip(figure.axes, (std, adv), (1.0, 0.25), strict=True):
        small, large = (patch.get_bbox().get_points() + 0.5 for patch in axes.patches)
        for (left, top), (right, bottom) in (small, large):
            part = picture[int(top) : int(bottom), int(left) : int(right)]
            unit = len(part) // 3
            centres = part[unit // 2 :: unit, unit // 2 :: unit]
            expected = 255 * (0.5 + 0.5 * scale * kernels[4])
            np.testing.assert_allclose(centres, expected, atol=0.51)
            # Enlarged without interpolation.
            np.testing.assert_array_equal(centres.repeat(unit, 0).repeat(unit, 1), part)
        assert large[1, 0] - large[0, 0] >= 2 * (small[1, 0] - small[0, 0])
    colors = [axes.patches[0].get_edgecolor() for axes in figure.axes]
    assert colors[0] != colors[1]


@pytest.mark.parametrize("count", [1, 7, 64])
def test_every_filter_is_shown(count):
    kernels = RNG.uniform(-1, 1, size=(count, 5, 5, 1))
    (axes,) = plots.filters({"a": kernels}).axes
    shown = np.asarray(axes.images[0].get_array())[..., 0]
    limit = np.abs(kernels).max()
    wanted = {int(np.rint(255 * (0.5 + 0.5 * value / limit))) for value in kernels.ravel()}
    assert wanted <= set(shown.ravel().tolist())


def test_curves_show_mean_and_spread(tmp_path):
    x = np.arange(6) / 2
    values = RNG.normal(size=(3, 6))
    figure = plots.curves(
        x,
        {"ResNet-50 STD": values, "ResNet-50 ADV": 2 * values, "fused": values[:1]},
        dashed={"published STD": values[0] + 1},
        title="A title",
        path=tmp_path / "c.png",
        **LABELS,
    )
    (axes,) = figure.axes
    lines = {handle.get_label(): handle for handle in axes.lines}
    assert len(lines) == 4
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values.mean(0))
    (band, _) = axes.collections  # one seed has no band
    corners = band.get_paths()[0].vertices
    spread = values.std(0, ddof=1)
    for offset in (spread, -spread):
        for point in np.stack([x, values.mean(0) + offset], 1):
            assert np.isclose(corners, point).all(1).any()
    assert axes.lines[0].get_color() == axes.lines[3].get_color() == plots.STD_COLOR
    assert axes.lines[1].get_color() == plots.ADV_COLOR
    assert axes.lines[3].get_linestyle() == "--"
    # Of one colour, but of other markers.
    assert axes.lines[0].get_marker() != axes.lines[3].get_marker()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ResNet-50 STD",
        "ResNet-50 ADV",
        "fused",
        "published STD",
    ]


def test_panels_are_inside_and_apart():
    lines = {"STD": np.ones((2, 3)), "ADV": np.zeros((2, 3)), "STD+ADV": np.ones(3)}
    for count in (1, 2, 4, 5):
        series = {f"data set {k}": lines for k in range(count)}
        figure = plots.curves([0, 1, 2], series, title=LONG + " " + LONG, **LABELS)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert len(shown) == count
        parts = [axes.get_tightbbox(renderer) for axes in shown]
        parts.append(figure.legends[0].get_window_extent(renderer))
        parts.append(figure._suptitle.get_window_extent(renderer))
        for part in parts:
            assert part.x0 >= -1
            assert part.y0 >= -1
            assert part.x1 <= figure.bbox.width + 1
            assert part.y1 <= figure.bbox.height + 1
        for one, other in itertools.combinations(parts, 2):
            assert not overlap(one, other)
        assert len(figure.legends[0].get_texts()) == 3


def test_the_area_between_two_lines_has_the_colour_of_the_upper_one():
    # They cross at 1.5, in the middle between two points.
    first, second = np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    figure = plots.curves(
        np.arange(4),
        {"STD": first, "ADV": second, "other": first + 9},
        filled_between=("STD", "ADV"),
        **LABELS,
    )
    (axes,) = figure.axes
    expected = (
        (plots.STD_COLOR, {(0, 4), (1, 3), (1.5, 2.5), (1, 2), (0, 1)}),
        (plots.ADV_COLOR, {(3, 4), (2, 3), (1.5, 2.5), (2, 2), (3, 1)}),
    )
    for area, (color, corners) in zip(axes.collections, expected, strict=True):
        assert matplotlib.colors.to_hex(area.get_facecolor()[0]).upper() == color
        (path,) = area.get_paths()
        assert {tuple(corner) for corner in path.vertices.tolist()} == corners
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "STD",
        "ADV",
        "other",
        "STD above ADV",
        "ADV above STD",
    ]


def test_panels_may_have_positions_of_their_own():
    series = {
        "blur": {"STD": np.arange(5.0), "ADV": np.ones((2, 5))},
        "median": {"STD": np.arange(3.0), "ADV": np.ones((2, 3))},
    }
    x = {"median": [0, 2, 4], "blur": np.arange(5) / 2}
    figure = plots.curves(
        x,
        series,
        x_label={"blur": "pixels", "median": "times"},
        y_label="%",
        filled_between=("STD", "ADV"),
    )
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["blur", "median"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["pixels", "times"]
    for axes, name in zip(figure.axes, series, strict=True):
        for line in axes.lines:
            np.testing.assert_allclose(line.get_xdata(), x[name])
    parts = [axes.get_tightbbox() for axes in figure.axes]
    parts.append(figure.legends[0].get_window_extent())
    for one, other in itertools.combinations(parts, 2):
        assert not overlap(one, other)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_bars_say_their_numbers(count, tmp_path):
    group = {"STD": (100.0, 0.04), "ADV": (85.6, 5.5)}
    ours = dict.fromkeys(("Standard", "Reversed", "Cue conflict", "Stylized"), group)
    panels = {f"{LONG} {number}": ours for number in range(count)}
    panels["theirs"] = {"Standard": {"ADV": (7.0, None)}}
    figure = plots.bars(
        panels,
        y_label="%",
        pale=["theirs"],
        title=LONG,
        note=LONG + " " + LONG,
        path=tmp_path / "b.png",
    )
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title().replace("\n", " ") for axes in shown] == list(panels)
    for axes in shown[:-1]:
        assert [text.get_text() for text in axes.texts] == ["100.0", "85.6"] * 4
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == [100.0, 85.6] * 4
        bounds = [lines.get_segments()[0][:, 1] for lines in axes.collections]
        np.testing.assert_allclose(bounds, [[99.96, 100.04], [80.1, 91.1]] * 4)
        assert matplotlib.colors.to_hex(axes.patches[1].get_facecolor()).upper() == plots.ADV_COLOR
    (pale,) = shown[-1].patches
    assert pale.get_facecolor()[3] < 1 == shown[0].patches[0].get_facecolor()[3]
    assert not shown[-1].collections
    # Nothing is outside, nothing lies on anything else.
    numbers = [text.get_window_extent() for axes in shown for text in axes.texts]
    for one, other in itertools.combinations(numbers, 2):
        assert not overlap(one, other)
    note = figure.texts[-1]
    assert note.get_text().replace("\n", " ") == LONG + " " + LONG
    parts = [axes.get_tightbbox() for axes in shown]
    parts += [figure.legends[0].get_window_extent(), figure._suptitle.get_window_extent()]
    parts.append(note.get_window_extent())
    for part in parts:
        assert part.x0 >= -1
        assert part.y0 >= -1
        assert part.x1 <= figure.bbox.width + 1
        assert part.y1 <= figure.bbox.height + 1
    for one, other in itertools.combinations(parts, 2):
        assert not overlap(one, other)


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["layer4_0/conv2"] * 4])
def test_positions_have_names(names):
    lines = {"STD": np.arange(4.0)}
    figure = plots.curves(
        [0, 1, 2, 5], {"one": lines, "two": lines, "three": lines}, x_ticks=names, **LABELS
    )
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == names
        np.testing.assert_array_equal(axes.get_xticks(), [0, 1, 2, 5])
        boxes_of_labels = [label.get_window_extent(renderer) for label in labels]
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes_of_labels)
        slanted = labels[0].get_rotation() != 0
        assert slanted == (len(names[0]) > 1)
        if not slanted:
            assert not any(overlap(*pair) for pair in itertools.pairwise(boxes_of_labels))


def test_colors_are_always_the_same():
    colors = plots.line_colors(["a", "alexnet_adv", "STD", "ADV+ADV", "STD+STD", "standard"])
    assert colors["alexnet_adv"] == plots.ADV_COLOR
    assert colors["STD"] == plots.STD_COLOR
    assert len(set(colors.values())) == 6


def test_save_is_whole_or_not_at_all(tmp_path):
    figure = plots.grid([[PICTURE]])
    path = plots.save(figure, tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*_, **__):
        (target, *_rest) = _
        target.write_bytes(b"half a")
        raise OSError("No space left on device")

    figure.savefig = fail
    with pytest.raises(OSError, match="No space"):
        plots.save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"path must end in one of .*png.*got '.*a.jpgg'"):
        plots.save(plots.grid([[PICTURE]]), tmp_path / "a.jpgg")


def test_figures_need_no_display_and_show_themselves():
    figure = plots.grid([[PICTURE]])
    assert figure._repr_png_().startswith(b"\x89PNG")
    code = "import sys, jaxrobust.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_users_defaults_do_not_crop_or_blacken(tmp_path):
    def draw(name):
        figure = plots.grid([[PICTURE / 2]], title="$5 of $_x", row_titles=["$\\frac$"])
        return saved(figure, tmp_path / name)

    expected = draw("a.png")
    changed = {"savefig.bbox": "tight", "figure.facecolor": "black", "figure.dpi": 50}
    with matplotlib.rc_context(changed):
        np.testing.assert_array_equal(draw("b.png"), expected)


def test_saving_lets_pyplot_go_of_its_figure(tmp_path):
    from matplotlib import pyplot

    figure = pyplot.figure()
    plots.save(figure, tmp_path / "a.png")
    assert not pyplot.fignum_exists(figure.number)
