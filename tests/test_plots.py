import itertools
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxrobust import plots

RNG = np.random.default_rng(0)


def pictures(rows, columns, size):
    return RNG.integers(0, 256, (rows, columns, size, size, 3), dtype=np.uint8)


def saved(figure, path):
    plots.save(figure, path)
    return np.asarray(Image.open(path).convert("RGB"))


def page_of(figure):
    """All pictures of a grid, as one."""
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


def enlargements(page, picture):
    """Whole factor, top and left of each exact enlargement of a picture whose pixels all differ."""
    same = np.pad((page == picture[0, 0]).all(-1), 1)
    places = []
    for top, left in np.argwhere(same[1:, 1:] & ~same[:-1, 1:] & ~same[1:, :-1]):
        factor = int(same[top + 1, left + 1 :].argmin())
        block = picture.repeat(factor, 0).repeat(factor, 1)
        height, width, _ = block.shape
        if np.array_equal(page[top : top + height, left : left + width], block):
            places.append((factor, int(top), int(left)))
    return places


def overlap(first, second):
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return min(width, height) > 1


def assert_apart(figure, boxes):
    """Boxes lie on the sheet, and none on another."""
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1
    for first, second in itertools.combinations(boxes, 2):
        assert not overlap(first, second)


def texts_of(figure):
    """The texts of a grid that are not empty."""
    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in texts if text.get_text()]


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def extent(page, color):
    """The box of all pixels of a colour, from the lower left corner as matplotlib's."""
    rows, columns = np.nonzero((page == color).all(-1))
    height = len(page)
    top, bottom = height - rows.min(), height - rows.max() - 1
    return matplotlib.transforms.Bbox([[columns.min(), bottom], [columns.max() + 1, top]])


def colored(rows, columns):
    """Pictures of one colour each, and the colours."""
    colors = [[(9 + 40 * r, 9 + 40 * c, 200) for c in range(columns)] for r in range(rows)]
    return [[np.full((8, 8, 3), color, np.uint8) for color in row] for row in colors], colors


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


def test_overlay_shows_where_a_map_is_positive():
    # Positive energy 100, of which 2 % may saturate: sorted, 0 0 3 3 94 reaches 98 at the last.
    summed = np.array([[0.0, -50.0, 3.0], [0.0, 3.0, 94.0]])
    maps = np.stack([summed, 2 * summed, -2 * summed], -1)
    heat = plots.overlay(np.zeros((2, 3, 3)), maps, alpha=1.0)
    expected = matplotlib.colormaps["inferno"](np.maximum(summed, 0) / 94)[..., :3]
    np.testing.assert_allclose(heat, expected, atol=1e-6)
    # Of 100 equal pixels and one of twice their size, that one is less than 2 % of the energy.
    for equal, levels in ((100, 1), (10, 2)):
        energy = np.array([*[1.0] * equal, 2.0]).reshape(1, -1, 1)
        heat = plots.overlay(np.zeros_like(energy), energy, alpha=1.0)
        assert len(np.unique(heat[0], axis=0)) == levels
    nothing = plots.overlay(np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)), alpha=1.0)
    assert np.ptp(nothing.reshape(-1, 3), axis=0).max() == 0


def test_overlay_is_the_weighted_mean():
    images = RNG.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    maps = RNG.normal(size=(2, 6, 6, 1))
    heat = plots.overlay(images, maps, alpha=1)
    mixed = plots.overlay(images, maps, alpha=0.25)
    np.testing.assert_allclose(mixed, 0.75 * images / 255 + 0.25 * heat, atol=1e-6)
    np.testing.assert_allclose(plots.overlay(images, maps, alpha=0), images / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(1, 1, 32), (3, 5, 32), (2, 2, 7), (1, 3, 224), (4, 10, 28)]
)
def test_saved_pixels_are_the_pictures(tmp_path, rows, columns, size):
    shown = pictures(rows, columns, size)
    titles = {"row_titles": ["row"] * rows, "title": "A title"} if rows > 1 else {}
    figure = plots.grid(shown, **titles)
    page = saved(figure, tmp_path / "folder" / "figure.png")
    assert page.shape[:2] == (round(figure.bbox.height), round(figure.bbox.width))
    assert Image.open(tmp_path / "folder" / "figure.png").info["dpi"][0] >= 150
    places = np.array([[enlargements(page, picture) for picture in row] for row in shown])
    assert places.shape == (rows, columns, 1, 3)  # each once
    factors, tops, lefts = np.moveaxis(places[:, :, 0], -1, 0)
    assert len(np.unique(factors)) == 1
    side = factors[0, 0] * size
    # In rows and columns at equal distances, nothing between them.
    assert (np.ptp(tops, axis=1) == 0).all()
    assert (np.ptp(lefts, axis=0) == 0).all()
    for starts in (tops[:, 0], lefts[0]):
        assert len(np.unique(np.diff(starts))) <= 1
        assert (np.diff(starts) > side).all()
    for top, left in zip(tops.ravel(), lefts.ravel(), strict=True):
        frame = page[top - 1 : top + side + 1, left - 1 : left + side + 1].copy()
        frame[1:-1, 1:-1] = 255
        assert (frame == 255).all()


def test_kinds_of_pictures():
    grey = RNG.permutation(np.linspace(0, 1, 16)).reshape(4, 4)
    colour = np.repeat(grey[..., None], 3, -1)
    levels = np.rint(255 * colour).astype(np.uint8)
    rows = [
        [grey, grey[..., None], colour, None],
        [colour.astype(np.float32), jnp.asarray(colour), levels, colour[:, :2]],
    ]
    page = page_of(plots.grid(rows))
    whole, half = enlargements(page, levels), enlargements(page, levels[:, :2])
    assert len(whole) == 6
    assert {factor for factor, _, _ in whole + half} == {whole[0][0]}
    assert len({place[1:] for place in whole + half}) == 7


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
        cell_size=0.5,
    ),
    "line breaks": dict(shape=(2, 2), row_titles=["a\nb", "c"], column_titles=["d\ne\nf", "g"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("size", [32, 224])
def test_titles_are_inside_and_apart(case, size):
    options = dict(LAYOUTS[case])
    rows, columns = options.pop("shape")
    picture = np.zeros((size, size, 3), np.uint8)
    figure = plots.grid([[picture] * columns] * rows, **options)
    texts = texts_of(figure)
    assert_apart(figure, [text.get_window_extent() for text in texts])
    # No text, which is dark grey, lies on a picture, which is black.
    assert (rendered(figure) == 0).all(-1).sum() == (page_of(figure) == 0).all(-1).sum()
    words = " ".join(text.get_text() for text in texts).split()
    asked = [options.get("title"), options.get("note")]
    asked += options.get("row_titles", []) + options.get("column_titles", [])
    asked += [head for key in ("row_groups", "column_groups") for head, _ in options.get(key, [])]
    asked += [caption for row in options.get("captions", []) for caption in row]
    assert sorted(words) == sorted(" ".join(filter(None, asked)).split())


def test_titles_stand_beside_what_they_name():
    shown, colors = colored(2, 3)
    figure = plots.grid(
        shown,
        row_titles=["r0", "r1"],
        column_titles=["c0", "c1", "c2"],
        captions=[["a", "b", "c"], ["d", "e", "f"]],
        column_groups=[("g0", 2), ("g1", 1)],
        title="t",
        note="n",
    )
    place = {text.get_text(): text.get_window_extent() for text in texts_of(figure)}
    page = rendered(figure)
    cells = [[extent(page, color) for color in row] for row in colors]
    for name, cell in zip(["c0", "c1", "c2"], cells[0], strict=True):
        assert place[name].x0 + place[name].x1 == pytest.approx(cell.x0 + cell.x1, abs=4)
        assert cell.y1 <= place[name].y0 + 1 < cell.y1 + 30
    for name, (cell, *_) in zip(["r0", "r1"], cells, strict=True):
        assert place[name].y0 + place[name].y1 == pytest.approx(cell.y0 + cell.y1, abs=6)
        assert cell.x0 - 30 < place[name].x1 <= cell.x0
    for name, cell in zip("abcdef", itertools.chain(*cells), strict=True):
        assert place[name].x0 + place[name].x1 == pytest.approx(cell.x0 + cell.x1, abs=4)
        assert cell.y0 - 30 < place[name].y1 <= cell.y0 + 1
    middle = cells[0][0].x0 + cells[0][1].x1
    assert place["g0"].x0 + place["g0"].x1 == pytest.approx(middle, abs=4)
    assert place["t"].y0 > place["g0"].y0 > place["c0"].y1
    assert place["n"].y1 < place["f"].y0
    gaps = [cells[0][column + 1].x0 - cells[0][column].x1 for column in (0, 1)]
    assert gaps[1] > 2 * gaps[0]  # groups stand apart


def test_frames_show_where_white_pictures_end():
    white = np.full((2, 3, 8, 8, 3), 255, np.uint8)
    assert (page_of(plots.grid(white)) == 255).all()
    lines = (page_of(plots.grid(white, frames=True)) < 200).all(-1)
    side = lines.any(1).sum() // 2
    # Six squares of lines, a pixel wide, which is all there is.
    assert lines.sum() == 6 * (4 * side - 4)
    assert set(lines.sum(1)) == {0, 6, 3 * side}
    assert set(lines.sum(0)) == {0, 4, 2 * side}


def test_rows_without_captions_have_no_room_for_them():
    def distances(captions):
        shown, colors = colored(4, 2)
        page = rendered(
            plots.grid(
                shown,
                row_titles=["a", "b", "c", "d"],
                row_groups=[("", 2), ("", 2)],
                captions=captions,
            )
        )
        return -np.diff([extent(page, color).y1 for color, _ in colors])

    without = distances(None)
    some = distances([["one", None], ["", ""], ["two", "one"], ["", ""]])
    every = distances([["one", "two"]] * 4)
    room = every[0] - without[0]
    assert room > 10
    np.testing.assert_array_equal(some - without, room * np.array([1, 0, 1]))


BAD_GRIDS = {
    "ragged": (lambda: plots.grid([[PICTURE], [PICTURE] * 2]), "of one length of at least 1, got"),
    "no row": (lambda: plots.grid([]), "got no row"),
    "all empty": (lambda: plots.grid([[None]]), "at least one picture, got None in every cell"),
    "flat list": (lambda: plots.grid([PICTURE]), "a list of rows, each a list of pictures"),
    "rank": (lambda: plots.grid(np.zeros((2, 8, 8, 3))), r"got a row of shape \(8, 8, 3\)"),
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
    "infinite maps": (
        lambda: plots.overlay(PICTURE, PICTURE * np.inf),
        "maps must be finite, got infinity",
    ),
    "flat maps": (lambda: plots.to_picture(np.zeros((4, 4))), r"got \(4, 4\)"),
    "deviations": (lambda: plots.to_picture(PICTURE, deviations=0), "deviations must be"),
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
    "inset": (lambda: plots.filters({"a": PICTURE[None]}, inset={"a": 1}), r"in \[0, 1\), got 1"),
    "inset name": (
        lambda: plots.filters({"a": PICTURE[None]}, inset={"b": 0}),
        "inset must name models of a, got 'b'",
    ),
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
    figure = plots.filters(
        models, inset=dict.fromkeys(models, 4), title="First layer", path=tmp_path / "f.png"
    )
    assert (tmp_path / "f.png").exists()
    texts = [text.get_text() for text in texts_of(figure)]
    assert texts.count("filter 4") == 2
    assert set(models) < set(texts)
    assert any("−1" in text and "white 1" in text for text in texts)
    page, lefts = page_of(figure), []
    for scale, color in ((1.0, plots.STD_COLOR), (0.25, plots.ADV_COLOR)):
        shown = np.rint(255 * (0.5 + 0.5 * scale * kernels)).astype(np.uint8)
        assert [len(enlargements(page, kernel)) for kernel in shown] == [1] * 4 + [2] + [1] * 5
        small, large = sorted(enlargements(page, shown[4]))
        assert large[0] >= 2 * small[0]
        factor, top, left = small
        for beside in (page[top - 1, left], page[top, left - 1], page[top, left + 3 * factor]):
            np.testing.assert_allclose(beside / 255, matplotlib.colors.to_rgb(color), atol=1 / 255)
        (plain,) = enlargements(page, shown[3])
        assert (page[plain[1] - 1, plain[2]] == 255).all()
        lefts.append(small[2])
    assert lefts[0] < lefts[1]


@pytest.mark.parametrize("count", [1, 7, 64])
def test_every_filter_is_shown(count):
    kernels = RNG.uniform(-1, 1, size=(count, 5, 5, 1))
    shown = page_of(plots.filters({"a": kernels}))[..., 0]
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
    # Of one colour, but of different markers.
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
        note = LONG if count > 1 else None
        figure = plots.curves([0, 1, 2], series, title=LONG + " " + LONG, note=note, **LABELS)
        figure.canvas.draw()
        assert len(figure.axes) == count
        assert_apart(figure, parts_of(figure))
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 3
        assert legend.get_title().get_text().replace("\n", " ") == (note or "")
        # The lowest panel of each column says what x is.
        named = [axes.get_xlabel() == "x" for axes in figure.axes]
        assert named == [index >= count - {1: 1, 2: 2, 4: 2, 5: 3}[count] for index in range(count)]


def parts_of(figure):
    """The boxes of panels, title and legend."""
    parts = [axes.get_tightbbox() for axes in figure.axes]
    parts.append(figure.legends[0].get_window_extent())
    if figure.get_suptitle():
        parts.append(figure._suptitle.get_window_extent())
    return parts


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
    assert_apart(figure, parts_of(figure))


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
    shown = figure.axes
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
    texts = [text for axes in shown for text in (axes.title, *axes.texts)]
    assert_apart(figure, [text.get_window_extent() for text in texts])
    assert_apart(figure, parts_of(figure))
    note = figure.legends[0].get_title().get_text()
    assert note.replace("\n", " ") == LONG + " " + LONG


def test_positions_have_names():
    names = ["layer4_0/conv2"] * 4
    lines = {"STD": np.arange(4.0)}
    figure = plots.curves(
        [0, 1, 2, 5], {"first": lines, "second": lines, "third": lines}, x_ticks=names, **LABELS
    )
    figure.canvas.draw()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == names
        np.testing.assert_array_equal(axes.get_xticks(), [0, 1, 2, 5])
        assert all(label.get_rotation() == 45 for label in labels)  # so that they lie apart
    assert_apart(figure, parts_of(figure))


def test_colors_are_always_the_same():
    colors = plots.line_colors(["a", "alexnet_adv", "STD", "ADV+ADV", "STD+STD", "standard"])
    assert colors["alexnet_adv"] == plots.ADV_COLOR
    assert colors["STD"] == plots.STD_COLOR
    assert len(set(colors.values())) == 6


def test_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = plots.save(plots.grid([[PICTURE]]), tmp_path / "a.png")
    before = path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]

    def full_disk(target, content):
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="No space"):
            plots.save(plots.grid([[PICTURE / 2]]), path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match=r"path must end in one of .*png.*got '.*a.jpgg'"):
        plots.save(plots.grid([[PICTURE]]), tmp_path / "a.jpgg")


def test_equal_input_gives_equal_files(tmp_path):
    def draw(name):
        plots.grid([[PICTURE]], title="t", captions=[["c"]], path=tmp_path / f"{name}_grid.png")
        plots.curves([0, 1], {"STD": [1, 2]}, **LABELS, path=tmp_path / f"{name}_curves.png")
        bars = {"p": {"g": {"STD": (1.0, 0.5)}}}
        plots.bars(bars, y_label="y", path=tmp_path / f"{name}_bars.png")

    draw("first")
    draw("second")
    for kind in ("grid", "curves", "bars"):
        first, second = ((tmp_path / f"{name}_{kind}.png") for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_figures_need_no_display_and_show_themselves():
    figure = plots.grid([[PICTURE]])
    assert figure._repr_png_().startswith(b"\x89PNG")
    code = "import sys, jaxrobust.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_users_defaults_do_not_crop_or_blacken(tmp_path):
    def draw(name):
        figures = (
            plots.grid([[PICTURE / 2]], title="$5 of $_x", row_titles=["$\\frac$"]),
            plots.curves([0, 1], {"STD": [1, 2]}, **LABELS),
            plots.bars({"$": {"$_": {"STD": (1.0, 0.5)}}}, y_label="y"),
        )
        return [saved(figure, tmp_path / name) for figure in figures]

    expected = draw("a.png")
    black = dict.fromkeys(["figure.facecolor", "axes.facecolor"], "black")
    white = dict.fromkeys(["text.color", "axes.labelcolor", "xtick.color", "ytick.color"], "white")
    layout = {"savefig.bbox": "tight", "figure.dpi": 50, "figure.constrained_layout.use": True}
    with matplotlib.rc_context(black | white | layout):
        for before, after in zip(expected, draw("b.png"), strict=True):
            np.testing.assert_array_equal(after, before)
