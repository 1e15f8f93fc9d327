"""`textured_shapes`: silhouettes filled with fine textures, drawn and stored as a TFDS data set.

The texture predicts the class perfectly but is small in amplitude; the shape is harder to learn but
strong in amplitude. So it is known exactly what an adversary of a given size can erase, and where a
model should look. In `train` and `test` the texture goes with the shape; in `cue_conflict` every
picture carries the texture of another shape.

The parameters of the generator were chosen so that the two cues compete, with the generator's seeds
0, 1 and 2019 and training seeds 0 to 10, and then frozen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxrobust.data.embedded import EmbeddedBuilder, encode_png
from jaxrobust.data.silhouettes import SHAPES, coverage

TEXTURES = (
    "fine_rows",
    "fine_columns",
    "rows",
    "columns",
    "rising_stripes",
    "falling_stripes",
    "fine_checks",
    "checks",
    "grain",
    "plain",
)
SIZES = (16, 32, 64, 224)
# Of the trainings that the generator's parameters were chosen with: no evidence for anything.
CHOOSING_SEEDS = tuple(range(11))


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the generator draws. Amplitudes are shares of the pixel range [0, 1].

    Attributes:
      texture_std: standard deviation of every texture but `plain`. Textures take the two values
        ±texture_std, so an l_inf adversary of that size can erase or invert them exactly.
      contrast: range of the difference of luminance between silhouette and background.
      chroma: largest deviation of a colour channel from the luminance.
      noise_std: standard deviation of the pixel noise.
      rotation: largest rotation, in radians, to either side; textures are not rotated.
      scale: range of the silhouette's circumradius, relative to half the image.
      shift: share of the room left around the silhouette that its centre may wander over.
      train_examples: number of pictures in `train`.
      test_examples: number of pictures in `test`.
      cue_conflict_examples: number of pictures in `cue_conflict`.
      seed: seed of all of it.
    """

    texture_std: float = 0.1
    contrast: tuple[float, float] = (0.27, 0.57)
    chroma: float = 0.08
    noise_std: float = 0.01
    rotation: float = np.pi
    scale: tuple[float, float] = (0.45, 0.75)
    shift: float = 0.5
    train_examples: int = 8_000
    test_examples: int = 1_000
    cue_conflict_examples: int = 1_000
    seed: int = 2020

    @property
    def examples(self) -> dict[str, int]:
        """Number of pictures by split."""
        return {
            "train": self.train_examples,
            "test": self.test_examples,
            "cue_conflict": self.cue_conflict_examples,
        }


PARAMETERS = Parameters()

_SPLIT_SEEDS = {"train": 0, "test": 1, "cue_conflict": 2}


def texture_pattern(texture: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A texture of the values -1 and +1 (all zero for `plain`): (size, size), float32.

    Stripes are whole pixels wide, so their amplitude is exact. The width grows with the square
    root of the size: at 224 px textures are finer in relation to the silhouette than at 32 px, as
    in photographs of higher resolution, yet not too fine for a network with a strided stem.
    """
    fine = max(1, round((size / 32) ** 0.5))
    coarse = max(fine + 1, round(2 * (size / 32) ** 0.5))
    phase_y, phase_x = rng.integers(0, 2 * coarse, size=2)
    y = np.arange(size)[:, None] + phase_y
    x = np.arange(size)[None, :] + phase_x
    name = TEXTURES[texture]
    if name == "plain":
        return np.zeros((size, size), np.float32)
    if name == "grain":
        blocks = -(-size // fine)
        bits = rng.integers(0, 2, size=(blocks, blocks), dtype=np.int8)
        parity = np.repeat(np.repeat(bits, fine, axis=0), fine, axis=1)[:size, :size]
    else:
        parity = {
            "fine_rows": lambda: y // fine + 0 * x,
            "fine_columns": lambda: x // fine + 0 * y,
            "rows": lambda: y // coarse + 0 * x,
            "columns": lambda: x // coarse + 0 * y,
            "rising_stripes": lambda: (x + y) // coarse,
            "falling_stripes": lambda: (x - y + 2 * coarse * size) // coarse,
            "fine_checks": lambda: y // fine + x // fine,
            "checks": lambda: y // coarse + x // coarse,
        }[name]()
    return (1 - 2 * (parity % 2)).astype(np.float32)


def cues(split: str, index: int, *, independent: bool = False) -> tuple[int, int]:
    """Shape and texture of a picture; both are balanced over a split.

    Args:
      split: "train", "test" or "cue_conflict".
      index: position of the picture in the split.
      independent: whether all pairs occur in train and test, instead of equal ones only.

    Returns:
      the shape and the texture, each in [0, 10).

    Example:
      >>> cues("train", 13), cues("cue_conflict", 13), cues("train", 13, independent=True)
      ((3, 3), (3, 5), (3, 1))
    """
    shape, turn = index % 10, index // 10
    if split == "cue_conflict":
        return shape, (shape + 1 + turn % 9) % 10
    return shape, turn % 10 if independent else shape


def draw(
    split: str,
    index: int,
    *,
    size: int = 32,
    independent: bool = False,
    parameters: Parameters = PARAMETERS,
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Draw one picture; the same arguments always give the same one.

    Args:
      split: "train", "test" or "cue_conflict".
      index: position of the picture in the split.
      size: height and width, in pixels.
      independent: as for `cues`.
      parameters: the generator's parameters.

    Returns:
      the image, uint8 (size, size, 3); the silhouette's mask, uint8 (size, size, 1), 255 where at
      least half of the pixel is covered, else 0; the shape; the texture.

    Example:
      >>> image, mask, shape, texture = draw("cue_conflict", 3)
      >>> image.shape, mask.shape, SHAPES[shape], TEXTURES[texture]
      ((32, 32, 3), (32, 32, 1), 'star', 'rising_stripes')
    """
    shape, texture = cues(split, index, independent=independent)
    rng = np.random.default_rng((parameters.seed, _SPLIT_SEEDS[split], index))
    radius = rng.uniform(*parameters.scale) * size / 2
    room = parameters.shift * (size / 2 - radius)
    centre = size / 2 + rng.uniform(-room, room, size=2)
    angle = rng.uniform(-parameters.rotation, parameters.rotation)
    contrast = rng.uniform(*parameters.contrast)
    # Texture and colour stay inside [0, 1] without clipping, which would weaken the texture.
    margin = contrast / 2 + parameters.texture_std + parameters.chroma
    middle = rng.uniform(min(margin, 0.5), max(1 - margin, 0.5))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    background, silhouette = middle - sign * contrast / 2, middle + sign * contrast / 2
    chroma = rng.uniform(-parameters.chroma, parameters.chroma, size=(2, 3)).astype(np.float32)

    covered = coverage(shape, size, centre, radius, angle)[..., None]
    pattern = parameters.texture_std * texture_pattern(texture, size, rng)[..., None]
    noise = rng.standard_normal((size, size, 3), dtype=np.float32) * parameters.noise_std
    inside = np.float32(silhouette) + chroma[1] + pattern
    outside = np.float32(background) + chroma[0]
    image = outside + covered * (inside - outside) + noise
    image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return image, np.where(covered >= 0.5, 255, 0).astype(np.uint8), shape, texture


class Pictures(NamedTuple):
    """Pictures as networks take them.

    Attributes:
      images: float32 (n, size, size, 3) in [0, 1].
      labels: int32 (n,), the silhouettes.
      textures: int32 (n,), the class whose texture each picture carries.
      masks: bool (n, size, size), True inside the silhouette.
      class_names: of the ten silhouettes.
    """

    images: np.ndarray
    labels: np.ndarray
    textures: np.ndarray
    masks: np.ndarray
    class_names: tuple[str, ...]


def draw_batch(split: str, indices: Iterable[int], *, size: int = 32) -> Pictures:
    """Draw pictures, without preparing the data set: a thousand take less than a second.

    They are the data set's own (its configs "shape16" … "shape224"), by the generator's numbers;
    on disk TFDS has them in another order.

    Args:
      split: "train", "test" or "cue_conflict".
      indices: positions in the split, at least one; ten in a row are one of each class.
      size: height and width, in pixels.

    Example:
      >>> pictures = draw_batch("cue_conflict", range(3))
      >>> pictures.images.shape, [pictures.class_names[label] for label in pictures.labels]
      ((3, 32, 32, 3), ['disc', 'square', 'triangle'])
    """
    drawn = [draw(split, index, size=size) for index in indices]
    images, masks, shapes, textures = (np.stack(part) for part in zip(*drawn, strict=True))
    return Pictures(
        images=images / np.float32(255),
        labels=shapes.astype(np.int32),
        textures=textures.astype(np.int32),
        masks=masks[..., 0] > 0,
        class_names=SHAPES,
    )


@dataclasses.dataclass(kw_only=True)
class TexturedShapesConfig(tfds.core.BuilderConfig):
    """One size and one meaning of the label ("shape", "texture" or "both")."""

    size: int = 32
    target: str = "shape"


class TexturedShapes(EmbeddedBuilder):
    """TFDS builder of `textured_shapes`; see the module's description."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        TexturedShapesConfig(
            name=f"{target}{size}", size=size, target=target, description=f"{target}, {size} px"
        )
        for target in ("shape", "texture", "both")
        for size in SIZES
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "shape32"

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        names = {
            "shape": SHAPES,
            "texture": TEXTURES,
            "both": [f"{shape}_{texture}" for shape in SHAPES for texture in TEXTURES],
        }[config.target]
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(config.size, config.size, 3)),
                    "label": tfds.features.ClassLabel(names=list(names)),
                    "shape": tfds.features.ClassLabel(names=list(SHAPES)),
                    "texture": tfds.features.ClassLabel(names=list(TEXTURES)),
                    "mask": tfds.features.Image(
                        shape=(config.size, config.size, 1), encoding_format="png"
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            # So that a set drawn with other parameters is recognised when it is opened.
            metadata=tfds.core.MetadataDict(dataclasses.asdict(PARAMETERS)),
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in PARAMETERS.examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        # Where the label is not the shape alone, the shape must not give the texture away.
        independent = config.target != "shape"
        for index in range(PARAMETERS.examples[split]):
            image, mask, shape, texture = draw(
                split, index, size=config.size, independent=independent
            )
            label = {"shape": shape, "texture": texture, "both": 10 * shape + texture}
            yield (
                index,
                {
                    "image": encode_png(image),
                    "label": label[config.target],
                    "shape": shape,
                    "texture": texture,
                    "mask": encode_png(mask),
                },
            )
