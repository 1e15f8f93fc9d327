"""A workdir of a PyTorch checkpoint, for the experiments: python -m jaxrobust.torch_weights."""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from absl import logging

_EPILOG = """
examples:
  python -m jaxrobust.torch_weights resnet50.pth --model=resnet50 --workdir=runs/public
  python -m jaxrobust.torch_weights imagenet_linf_4.pt --model=resnet50 --workdir=runs/public \\
      --epsilon=4/255
  python -m jaxrobust.experiments.figure2_sensitivity_maps --workdirs runs/public
"""


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"must be a number or fraction, got {text!r}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxrobust.torch_weights",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("file", help="state dict or checkpoint: .pth, .pt, .ckpt, .safetensors, …")
    add("--model", required=True, help="resnet50, wide_resnet50_2, alexnet, …")
    add("--workdir", required=True, help="gets <run>/seed<k>/; STD and ADV of a pair share it")
    add("--epsilon", type=_number, help="that it was trained against, in [0, 1] pixels, as 4/255")
    add("--norm", help="of epsilon: linf, l2 or l1 (default: linf)")
    add("--run", help="name of the training (default: adv with --epsilon, else std)")
    add("--seed", type=int, default=0, help="which of several trainings it is (%(default)s)")
    add("--dataset", help="that it classifies, a name of jaxrobust.data.catalog (imagenet2012)")
    add("--path", help="an image folder that it classifies, instead of --dataset")
    add("--data_dir", help="TFDS's folder (default: ~/tensorflow_datasets)")
    add("--image_size", type=int, help="side of its input in pixels (default: the data set's)")
    add("--num_classes", type=int, help="to check the file against")
    for name in ("mean", "std"):
        what = f"{name} that it normalises with, a number for each channel"
        add(f"--{name}", type=_number, nargs="+", help=what)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    logging.set_verbosity(logging.WARNING)  # what the libraries tell of themselves
    options = vars(_parser().parse_args(arguments))
    from jaxrobust.core.checks import check_that
    from jaxrobust.data.dataset_config import DatasetConfig
    from jaxrobust.training import imported

    file, folder = options.pop("file"), options.pop("workdir")
    epsilon, norm = options.pop("epsilon"), options.pop("norm")
    name, path = options.pop("dataset"), options.pop("path")
    try:
        given = f"{name!r} and {path!r}"
        check_that(not (name and path), "at most one of --dataset and --path", "be given", given)
        alone = norm and epsilon is None
        check_that(not alone, "--norm", "stand beside --epsilon", f"{norm!r} alone")
        attack = {"name": "pgd", "norm": norm or "linf", "epsilon": epsilon}
        dataset = DatasetConfig(
            name="image_folder" if path else name or "imagenet2012",
            path=path,
            data_dir=options.pop("data_dir"),
            image_size=options.pop("image_size"),
        )
        written = imported.write(
            file,
            options.pop("model"),
            folder,
            attack=None if epsilon is None else attack,
            dataset=dataset,
            **options,
        )
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    model, source = written["model"], written["source"]
    under = f" under {source['prefix']!r}" if source["prefix"] else ""
    print(
        f"{model['name']} of {model['num_classes']} classes, layout {source['layout']}{under}\n"
        f"mean {model['mean']} ({source['mean']}), std {model['std']} ({source['std']})\n"
        f"sha256 {source['sha256']}\n"
        f"written to {Path(folder) / written['run'] / ('seed' + str(written['seed']))}"
    )


if __name__ == "__main__":
    main()
