"""Pictures in the style of others: AdaIN, its networks, and the training of a decoder of one's own.

`stylize(encoder, decoder, images, style_images)` works on arrays. `train_decoder` fits a decoder to
any frozen encoder, and `stylize_dataset` makes the stylised copy of a data set; both are commands
as well: `python -m jaxrobust.stylization --help`.
"""

import importlib

from jaxrobust.stylization.networks import Decoder, Encoder, mirrored_decoder
from jaxrobust.stylization.style_transfer import EPSILON, adain, channel_statistics, stylize
from jaxrobust.stylization.weights import (
    fingerprint,
    load_decoder,
    load_encoder,
    save_decoder,
    vgg_encoder,
)

# Imported at first use: stylising arrays must not wait for the data libraries.
_LAZY = {
    "StyleFolder": "styles",
    "StyleTextures": "styles",
    "stylize_dataset": "dataset_copy",
    "train_decoder": "decoder_training",
}

__all__ = [
    "EPSILON",
    "Decoder",
    "Encoder",
    "StyleFolder",
    "StyleTextures",
    "adain",
    "channel_statistics",
    "fingerprint",
    "load_decoder",
    "load_encoder",
    "mirrored_decoder",
    "save_decoder",
    "stylize",
    "stylize_dataset",
    "train_decoder",
    "vgg_encoder",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f"jaxrobust.stylization.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'jaxrobust.stylization' has no attribute {name!r}")
