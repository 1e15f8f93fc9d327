"""What mypy and an editor see of the public functions."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxrobust import attacks, feature_visualization, filters, guided, map_metrics, saliency

# Every method: what it takes and, by assert_type, that it gives an array rather than Any.
SCRIPT = """\
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import Classifier, attacks, feature_visualization, filters, map_metrics, models
from jaxrobust import saliency
from jaxrobust.guided import guided

key = jax.random.key(0)
classifier = Classifier.init(key, models.create("alexnet", num_classes=10), (64, 64, 3))
images, labels = jnp.zeros((4, 64, 64, 3)), jnp.zeros(4, int)
pixels, classes = np.zeros((2, 64, 64, 3)), [0, 1]

assert_type(
    attacks.pgd(classifier, images, labels, key=key, epsilon=0.1, steps=3), jax.Array
)
assert_type(attacks.fgsm(classifier, images, labels, epsilon=0.1), jax.Array)
attacks.fgsm(lambda image: image.mean((0, 1)), pixels, classes, epsilon=np.float32(0.1))
attacks.fgsm(classifier, images, labels=labels, epsilon=0.1, loss=attacks.margin, batch_size=2)
attacks.get("pgd")(classifier, images, labels, key=key, epsilon=0.1, steps=3)

assert_type(saliency.vanilla_gradient(classifier, images, labels), jax.Array)
assert_type(saliency.loss_gradient(classifier, images, labels), jax.Array)
assert_type(saliency.guided_backprop(classifier, images, labels), jax.Array)
assert_type(saliency.input_times_gradient(classifier, images, labels), jax.Array)
assert_type(saliency.grad_cam(classifier, images, labels, layer="conv5"), jax.Array)
assert_type(saliency.guided_grad_cam(classifier, images, labels), jax.Array)
assert_type(
    saliency.smoothgrad(classifier, images, labels, key=key, samples=3), jax.Array
)
saliency.smoothgrad(classifier, images, labels, key=key, method=saliency.guided_backprop)
assert_type(saliency.integrated_gradients(classifier, images[0], 3, baseline=0.0), jax.Array)

assert_type(guided(classifier)(images), jax.Array)
assert_type(saliency.vanilla_gradient(guided(classifier), pixels, classes), jax.Array)

assert_type(filters.gaussian_blur(images, sigma=1.5), jax.Array)
assert_type(filters.median_filter(pixels, times=2), jax.Array)
assert_type(filters.reverse_colors(images, mean=(0.5, 0.5, 0.5)), jax.Array)

maps = saliency.vanilla_gradient(classifier, images, labels)
curve = map_metrics.deletion_curve(classifier, images, labels, maps)
assert_type(curve, jax.Array)
assert_type(map_metrics.insertion_curve(classifier, images, labels, maps), jax.Array)
assert_type(map_metrics.area_under_curve(curve), float | np.ndarray)
assert_type(map_metrics.spectral_centroid(maps), float | np.ndarray)
assert_type(map_metrics.energy_share(maps, jnp.ones((4, 64, 64), bool)), float | np.ndarray)

assert_type(
    feature_visualization.maximize(
        classifier, "conv1", [0, 1], key=key, image_shape=(64, 64, 3), parameterization="fourier"
    ),
    jax.Array,
)
"""
MISTAKES = {
    "    attacks.pgd(classifier, images, labels, key": "    attacks.pgd(classifier, images, key",
    "key=key, samples=3)": "key=key, sampels=3)",
    "attacks.fgsm(classifier, images, labels, epsilon=0.1)": (
        'attacks.fgsm(classifier, images, labels, epsilon="0.1")'
    ),
}


@pytest.mark.slow
def test_mypy_reports_three_mistakes_and_nothing_else(tmp_path):
    pytest.importorskip("mypy")
    mistaken = SCRIPT
    for right, wrong in MISTAKES.items():
        assert mistaken.count(right) == 1
        mistaken = mistaken.replace(right, wrong)
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(mistaken)
    finished = subprocess.run(
        # Silent on what is imported, as mypy is on installed packages.
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "right.py", "wrong.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    reported = re.findall(r"^(\w+\.py):(\d+): error", finished.stdout, re.MULTILINE)
    pairs = zip(SCRIPT.splitlines(), mistaken.splitlines(), strict=True)
    expected = [("wrong.py", str(i)) for i, (right, wrong) in enumerate(pairs, 1) if right != wrong]
    assert len(expected) == 3
    assert reported == expected, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    "module",
    [
        attacks,
        attacks.norms,
        feature_visualization,
        filters,
        guided,
        map_metrics,
        saliency,
    ],
    ids=lambda module: module.__name__,
)
def test_public_functions_say_what_they_take_and_give(module):
    functions = [
        function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__.startswith(module.__name__)
        and not name.startswith("_")
    ]
    assert functions
    for function in functions:
        signature = inspect.signature(function)
        taken = [parameter.annotation for parameter in signature.parameters.values()]
        for vague in (inspect.Signature.empty, Callable):
            assert vague not in [*taken, signature.return_annotation], function
        assert signature.return_annotation is not Any, function
