"""Stylised copies of data sets, and decoders of one's own: python -m jaxrobust.stylization."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

_EPILOG = """
examples:
  python -m jaxrobust.stylization copy --path=pictures --split=validation --styles=paintings \\
      --encoder=vgg_normalised.pth --decoder=decoder.pth --output=pictures_stylized
  python -m jaxrobust.stylization train_decoder --encoder=runs/vgg/std/seed0 \\
      --dataset=textured_shapes --styles=textures --steps=4000 --workdir=runs/decoder
"""


def _parser() -> argparse.ArgumentParser:
    from jaxrobust.stylization.dataset_copy import FORMATS, stylize_dataset
    from jaxrobust.stylization.decoder_training import train_decoder

    parser = argparse.ArgumentParser(
        prog="python -m jaxrobust.stylization",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    copy = commands.add_parser(
        "copy", help="write the stylised copy of one split of a data set", allow_abbrev=False
    )
    training = commands.add_parser(
        "train_decoder", help="train the decoder of a frozen encoder", allow_abbrev=False
    )
    for command in (copy, training):
        add = command.add_argument
        add("--encoder", required=True, help="vgg_normalised.pth, or the workdir of a trained VGG")
        add("--layer", default="relu4_1", help="where the encoder ends (%(default)s)")
        add("--dataset", help="content: a name of jaxrobust.data.catalog")
        add("--path", help="content: an image folder, instead of --dataset")
        add("--data_dir", help="TFDS's folder (default: ~/tensorflow_datasets)")
        add("--image_size", type=int, help="side of the content pictures in pixels")
        add("--styles", required=True, help="a folder of pictures, or 'textures': drawn ones")
        add("--corrupt_images", default="stop", choices=("stop", "skip"))

    def options(command: argparse.ArgumentParser, function: Any, **helps: str) -> None:
        """The keyword options of a function, with its defaults."""
        for name, text in helps.items():
            default = inspect.signature(function).parameters[name].default
            kind = int if isinstance(default, int) else float
            command.add_argument(
                f"--{name}", type=kind, default=default, help=f"{text} (%(default)s)"
            )

    add = copy.add_argument
    add("--decoder", required=True, help="decoder.pth, or the workdir of train_decoder")
    add("--split", help="of the source (default: its evaluation split)")
    add("--output", required=True, help="folder of the copy")
    add("--output_split", help="train, validation, val or test (default: as --split)")
    add("--resize_size", type=int, help="shorter side before the central crop, in pixels")
    add("--style_size", type=int, help="side of the style pictures (default: as the content)")
    add("--batch_size", type=int, help="pictures at once over all devices (default: 16 a device)")
    add("--file_format", default="png", choices=FORMATS)
    options(
        copy,
        stylize_dataset,
        strength="from 0 to 1",
        seed="decides the style of every picture",
        log_every_seconds="seconds between two lines of progress",
    )
    add = training.add_argument
    add("--workdir", required=True, help="folder of checkpoints and of decoder.safetensors")
    add("--steps", type=int, required=True, help="number of steps")
    add("--train_split", help="of the content (default: its training split)")
    options(
        training,
        train_decoder,
        batch_size="content pictures a step, over all devices",
        learning_rate="Adam's, at the first step",
        learning_rate_decay="step t has learning_rate / (1 + learning_rate_decay t)",
        content_weight="weight of the content loss",
        style_weight="weight of the style loss",
        seed="of weights, order and styles",
        save_every="steps between two checkpoints",
        log_every_seconds="seconds between two lines of progress",
    )
    return parser


def _run(options: dict[str, Any]) -> str:
    """Run a command; what to say at its end."""
    from jaxrobust import stylization
    from jaxrobust.core.checks import check_that
    from jaxrobust.data.dataset_config import DatasetConfig
    from jaxrobust.stylization.weights import check_decoder
    from jaxrobust.training import checkpoints

    command = options.pop("command")
    encoder_path, layer = options.pop("encoder"), options.pop("layer")
    name, path, styles = options.pop("dataset"), options.pop("path"), options.pop("styles")
    exactly_one, given = (name is None) != (path is None), f"{name!r} and {path!r}"
    check_that(exactly_one, "exactly one of --dataset and --path", "be given", given)
    fields = [field.name for field in dataclasses.fields(DatasetConfig)]
    corrupt_images = options.pop("corrupt_images")
    dataset_config = DatasetConfig(
        **{key: options.pop(key) for key in fields if key in options},
        name=name or "image_folder",
        path=path,
        corrupt_images=corrupt_images if path else "stop",
    )
    if Path(encoder_path).is_dir():
        encoder = stylization.vgg_encoder(checkpoints.load(encoder_path), layer=layer)
    else:
        encoder = stylization.load_encoder(encoder_path, layer=layer)
    source: Any = stylization.StyleTextures()
    if styles != "textures":
        source = stylization.StyleFolder(styles, corrupt_images=corrupt_images)
    if command == "train_decoder":
        workdir = options.pop("workdir")
        stylization.train_decoder(encoder, dataset_config, source, workdir, **options)
        return f"written to {workdir}"
    decoder_path = options.pop("decoder")
    decoder = stylization.load_decoder(decoder_path)
    check_decoder(decoder_path, encoder)
    folder = stylization.stylize_dataset(
        encoder, decoder, dataset_config, source, options.pop("output"), **options
    )
    return f"written to {folder}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    logging.set_verbosity(logging.WARNING)  # what the libraries tell of themselves
    options = vars(_parser().parse_args(arguments))
    from jaxrobust.core import runtime
    from jaxrobust.stylization.dataset_copy import CopyStopped
    from jaxrobust.training import train

    runtime.prepare()
    try:
        print(_run(options))
    except (ValueError, TypeError, OSError, train.NotFinite) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command goes on from what is saved.")
    except (train.TrainingStopped, CopyStopped) as stopped:
        sys.exit(str(stopped))


if __name__ == "__main__":
    main()
