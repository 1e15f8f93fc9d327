"""Sentences on what makes a robust accuracy doubtful: the warnings of AutoAttack."""

from collections.abc import Sequence

import numpy as np

# The share of images that the black-box attack alone may break without a word.
_BY_CHANCE = 0.002


def of_few_classes(names: Sequence[str], classes: int) -> list[str]:
    """Sentences on what is chosen where a loss or a number of targets is not defined."""
    said = []
    if "apgd-dlr" in names and classes < 3:
        said.append(
            f"With {classes} classes the difference of logits ratio is not defined: apgd-dlr "
            "raises the margin."
        )
    if "apgd-t" in names and classes < 4:
        said.append(
            f"With {classes} classes the targeted difference of logits ratio is not defined: "
            "apgd-t raises the target's lead over the label."
        )
    return said


def of_clean_images(logits, again, zero, standing) -> list[str]:
    """Sentences on what, in the clean images, makes a robust accuracy doubtful."""
    said = []
    if not np.array_equal(logits[: len(again)], again):
        said.append(
            "The outputs change from call to call: attacks that see one output at a time do not "
            "judge a randomised classifier."
        )
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1.0, atol=1e-4):
        said.append(
            "The outputs look like probabilities, not logits: gradients through a second softmax "
            "are small, and the robust accuracy may be too high."
        )
    if (zero & standing).any():
        said.append(
            f"The gradient of the cross-entropy is zero for {(zero & standing).sum()} of "
            f"{standing.sum()} images: gradients are masked or vanish, and the robust accuracy may "
            "be too high."
        )
    return said


def of_verdicts(names: Sequence[str], broken_by: np.ndarray) -> list[str]:
    """When the attack that sees no gradient breaks what those with gradients did not."""
    alone = (broken_by == "square").sum()
    # A few of thousands fall to chance, as AutoAttack's authors have it as well.
    if alone <= _BY_CHANCE * len(broken_by) or len(names) == 1:
        return []
    return [
        f"Only the black-box attack breaks {alone} of {len(broken_by)} images: the gradients seem "
        "to be masked, and stronger attacks may break more."
    ]


def of_broken_images(logits: np.ndarray) -> list[str]:
    """When images count as broken because the classifier says nothing of them."""
    infinite = (~np.isfinite(logits)).any(axis=1).sum()
    if not infinite:
        return []
    return [
        f"The logits of {infinite} of {len(logits)} images that attacks broke are not finite: they "
        "count as misclassified, and the robust accuracy may be too low."
    ]
