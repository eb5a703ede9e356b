"""How many clips of each class a split has, what its figures therefore leave out, and weights that balance classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from stabn.errors import join_names


def count_classes(labels: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
    """(classes,) int64: how many of the labels, in 0..classes-1, are of each class."""
    return np.bincount(np.asarray(labels, dtype=np.int64), minlength=classes)


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """The weight n / (k n_c) of a clip of class c, with which every class that has clips weighs the same in a mean.

    n is the number of clips, k that of the classes with clips, and n_c that of the clips of class c: the weights that
    scikit-learn calls "balanced" (King and Zeng, Logistic Regression in Rare Events Data, 2001). Their mean over the
    clips is 1.

    Args:
        counts: (K,) clips of each class, not all 0.

    Returns:
        (K,) float64; 1 for a class without clips, of which only mirrored ones can occur.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 1.0)


def majority(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, str | float]:
    """What always answering the most frequent class would reach: {"class", "top1", "mean_class_accuracy"}, in 0..1.

    Args:
        counts: (K,) clips of each class, not all 0.
        class_names: K names.
    """
    return {
        "class": class_names[int(counts.argmax())],
        "top1": round(float(counts.max() / counts.sum()), 6),
        "mean_class_accuracy": round(float(1 / (counts > 0).sum()), 6),
    }


def without_clips(counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Names of the classes that have no clips."""
    return [name for name, count in zip(class_names, counts, strict=True) if not count]


def missing_class_notes(counts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[str]:
    """A sentence per split that has no clips of some classes.

    Args:
        counts: by split, (K,) clips of each class; of "train", if it is there, the network has learnt.
        class_names: K names.
    """
    notes = []
    for split, of_split in counts.items():
        missing = without_clips(of_split, class_names)
        if not missing:
            continue
        if split == "train":
            others = {name: int(of[of_split == 0].sum()) for name, of in counts.items() if name != "train"}
            found = "".join(f"; clips of them in split {name}: {count}" for name, count in others.items() if count)
            meaning = f"which the network cannot learn{found}"
        else:
            meaning = f"of which its figures say nothing: top-1 is that of the other {(of_split > 0).sum()}"
        notes.append(
            f"split {split}: no clips of {len(missing)} of {len(class_names)} classes ({join_names(missing, 5)}), "
            f"{meaning}"
        )
    return notes


def single_clip_notes(counts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[str]:
    """A sentence per split that has a single clip of some classes; arguments as for `missing_class_notes`."""
    singles = {split: [class_names[int(k)] for k in np.flatnonzero(of == 1)] for split, of in counts.items()}
    return [
        f"split {split}: a single clip of {len(names)} of {len(class_names)} classes ({join_names(names, 5)})"
        for split, names in singles.items()
        if names
    ]


def baseline_notes(
    split: str, top1: float, mean_class_accuracy: float, counts: np.ndarray, class_names: Sequence[str]
) -> list[str]:
    """A sentence per figure that is not above what always answering the most frequent class would reach.

    Args:
        split: that was measured.
        top1, mean_class_accuracy: of the network, in 0..1.
        counts: (K,) measured clips of each class, not all 0.
        class_names: K names.
    """
    trivial = majority(counts, class_names)
    return [
        f"split {split}: {title} {value:.1%} is not above {trivial[key]:.1%}, which always answering "
        f"{trivial['class']!r}, the most frequent class, would reach"
        for key, title, value in (
            ("top1", "top-1", top1),
            ("mean_class_accuracy", "mean class accuracy", mean_class_accuracy),
        )
        if round(value, 6) <= float(trivial[key])
    ]
