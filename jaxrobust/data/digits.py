"""`digits`: the handwritten digits that come with scikit-learn, as a TFDS data set.

1,797 scans of 8 x 8 pixels and 17 grey levels (UCI "Optical Recognition of Handwritten Digits"):
real data without a download.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import sklearn.datasets
import tensorflow_datasets as tfds

from jaxrobust.data.embedded import EmbeddedBuilder, encode_png

# The collection is in the order of its writers. Cut in that order, the test digits come (but for
# the writer at the cut) from other hands than the training digits; a random cut would mix them.
TRAIN_EXAMPLES = 1_437


class Digits(EmbeddedBuilder):
    """TFDS builder of `digits`: splits `train` (the first 1,437 scans) and `test` (360)."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            metadata=tfds.core.MetadataDict(train_examples=TRAIN_EXAMPLES),
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager
        return {
            "train": self._generate_examples(slice(None, TRAIN_EXAMPLES)),
            "test": self._generate_examples(slice(TRAIN_EXAMPLES, None)),
        }

    def _generate_examples(self, part: slice) -> Iterator[tuple[int, dict]]:
        digits = sklearn.datasets.load_digits()
        grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        images = np.repeat(grey[..., None], 3, axis=-1)[part]
        for index, (image, label) in enumerate(zip(images, digits.target[part], strict=True)):
            yield index, {"image": encode_png(image), "label": int(label)}
