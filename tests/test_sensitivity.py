import jax
import numpy as np
import pytest
import scipy.stats

from jaxrobust import Classifier, saliency
from jaxrobust.experiments import sensitivity, trained
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures
from tests import tiny
from tests.test_figure2_sensitivity_maps import write_workdir

SHAPE = (16, 16, 3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data_dir):
    """One seed of STD and ADV."""
    return write_workdir(tmp_path_factory.mktemp("digits"), data_dir, seeds=(3,))


@pytest.mark.parametrize("name", ["smoothgrad", "grad_cam"])
def test_a_map_depends_on_its_own_image_alone(name, digits):
    one = trained.find(digits)[0]
    classifier = one.load()
    pictures = evaluation_pictures(one.config, 6)
    few = Pictures(
        images=pictures.images[[4, 1]],
        labels=pictures.labels[[4, 1]],
        masks=None,
        class_names=pictures.class_names,
        index=pictures.index[[4, 1]],
    )
    maps = sensitivity.maps_of(classifier, name, pictures, seed=5)
    assert maps.shape == pictures.images.shape
    alone = sensitivity.maps_of(classifier, name, few, seed=5)
    tiny.assert_equal_to_rounding(alone, maps[[4, 1]], share=0.99)
    if name == "smoothgrad":
        other = sensitivity.maps_of(classifier, name, few, seed=6)
        assert np.abs(other - alone).max() > 1e-3 * np.abs(alone).max()


def test_models_of_one_architecture_share_their_programs(digits):
    one = trained.find(digits)[0]
    pictures = evaluation_pictures(one.config, 3)
    classifiers = [found.load() for found in trained.find(digits)]
    other = jax.tree.map(lambda leaf: 2 * leaf, classifiers[1].variables)
    classifiers.append(Classifier(classifiers[1].model, other))
    for name in saliency.PAPER_METHODS:
        sensitivity.maps_of(classifiers[0], name, pictures, seed=0)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "compile" in event else None
    )
    try:
        for classifier in classifiers[1:]:
            for name in saliency.PAPER_METHODS:
                sensitivity.maps_of(classifier, name, pictures, seed=1)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def test_similarities_of_a_map_with_itself_and_its_negative():
    maps = np.random.default_rng(0).standard_normal((3, *SHAPE))
    for values in sensitivity.similarities(maps, maps).values():
        np.testing.assert_allclose(values, 1.0)
    turned = sensitivity.similarities(maps, -maps)
    np.testing.assert_allclose(turned.pop("signed_rank_correlation"), -1.0)
    for values in turned.values():
        np.testing.assert_allclose(values, 1.0)
    other = np.random.default_rng(1).standard_normal((3, *SHAPE))
    expected = [
        scipy.stats.spearmanr(np.abs(a).sum(-1).ravel(), np.abs(b).sum(-1).ravel()).statistic
        for a, b in zip(maps, other, strict=True)
    ]
    found = sensitivity.similarities(maps, other)
    np.testing.assert_allclose(found["rank_correlation"], expected)
    assert max(np.abs(values).max() for values in found.values()) < 0.7
