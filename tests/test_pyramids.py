import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.attacks import pyramids


def naive_rectangle(rows, columns):
    """As the authors' code adds them up: a pyramid of rings, of norm 1."""
    image = np.zeros((rows, columns))
    top, left = rows // 2, columns // 2
    for ring in range(max(rows, columns) // 2 + 1):
        for row in range(max(top - ring, 0), min(top + ring + 1, rows)):
            for column in range(max(left - ring, 0), min(left + ring + 1, columns)):
                image[row, column] += 1 / (ring + 1) ** 2
    return image / np.linalg.norm(image) if image.size else image


def naive_pair(side):
    upper, lower = naive_rectangle(side // 2, side), naive_rectangle(side - side // 2, side)
    pair = np.concatenate([upper, -lower])
    return pair / np.linalg.norm(pair)


@pytest.mark.parametrize("transposed", [False, True])
def test_pyramids_equal_naive_loops(transposed):
    sides = np.array([1, 2, 3, 4, 5, 8, 9, 29])
    table = pyramids.of_sides(sides)
    for index, side in enumerate(sides):
        expected = np.zeros((31, 34))
        pair = naive_pair(side)
        expected[2 : 2 + side, 4 : 4 + side] = pair.T if transposed else pair
        image = pyramids.in_square(table, index, jnp.array([2, 4]), transposed, (31, 34))
        np.testing.assert_allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "side", "margins"),
    [((28, 28, 3), 5, (1, 1)), ((14, 33, 1), 2, (0, 0)), ((3, 4, 2), 1, (0, 0))],
)
def test_tiles_are_pairs_of_pyramids_from_edge_to_edge(shape, side, margins):
    tiled = np.asarray(pyramids.tiles(jax.random.key(0), shape))
    kinds = [sign * turned for turned in (naive_pair(side), naive_pair(side).T) for sign in (1, -1)]
    seen = set()
    rows, columns = (length // side for length in shape[:2])
    for row, column, channel in np.ndindex(rows, columns, shape[2]):
        top, left = margins[0] + row * side, margins[1] + column * side
        tile = tiled[top : top + side, left : left + side, channel]
        equal = [np.allclose(tile, kind, atol=1e-6) for kind in kinds]
        assert any(equal)
        seen.add(equal.index(True))
    assert len(seen) == (4 if side > 1 else 2)
    np.testing.assert_allclose(np.sum(tiled**2), rows * columns * shape[2], rtol=1e-5)
