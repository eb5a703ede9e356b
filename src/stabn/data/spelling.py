"""How people spell classes and splits: what cannot be meant is evened out, what may be a slip is named."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import combinations

UNSPLIT = "unsplit"
"""The split of clips whose source does not say."""
IGNORED = "ignore"
"""The split of rows that are left out on purpose."""
_SYNONYMS = {
    "train": ("train", "training", "trn", "learn", "learning"),
    "validation": ("validation", "valid", "val", "validate", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_SPLITS = {synonym: split for split, synonyms in _SYNONYMS.items() for synonym in synonyms}
_IGNORED = ("ignore", "ignored", "exclude", "excluded", "skip", "unused")
_SUFFIX = re.compile(r"[\W_]*(set|split)$")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""Soft hyphens, zero-width spaces, marks of direction and byte order; joiners stay, since some scripts need them."""
_SHORTEST_SLIP = 4
"""Letters of a name below which another one that differs by a letter is no slip."""
_RARE = 4
"""A name is a slip for one that differs by a letter if it has at most a quarter of that one's clips."""


def normalise_label(name: str) -> str:
    """A class name in Unicode form NFC, without invisible characters, and with single plain spaces inside alone."""
    return " ".join(unicodedata.normalize("NFC", name.translate(_INVISIBLE)).split())


def known_split(name: str) -> str | None:
    """Which of train, validation and test a name means, in any case, also as "train set"; None if none."""
    folded = unicodedata.normalize("NFKC", normalise_label(name)).casefold()
    return _SPLITS.get(folded) or _SPLITS.get(_SUFFIX.sub("", folded))


def normalise_split(name: str) -> str:
    """train, validation or test for any of their usual names, `IGNORED` for its own; others without outer spaces."""
    name = normalise_label(name)
    return known_split(name) or (IGNORED if name.casefold() in _IGNORED else name)


def unusual_splits(counts: Mapping[str, int]) -> str | None:
    """Name the splits that no verb reads by itself, how many clips they have, and which split may be meant.

    Args:
        counts: clips by normalised split.

    Returns:
        As in "2 in 'trian' (train?), 1 in 'session 2'"; None if there are none.
    """
    others = {split: count for split, count in counts.items() if split not in (*_SYNONYMS, UNSPLIT, IGNORED)}
    parts = []
    for split, count in others.items():
        similar = get_close_matches(split.casefold(), _SPLITS, 1, 0.75)
        parts.append(f"{count} in {split!r}" + (f" ({_SPLITS[similar[0]]}?)" if similar else ""))
    return ", ".join(parts) or None


def near_doubles(counts: Mapping[str, int]) -> Iterator[str]:
    """Name the pairs of classes that may be one class in two spellings, with their clips.

    Two names are a pair if they differ in capitals, punctuation, spaces or the width of letters; or by one letter, and
    one of them has at most a quarter of the other's clips.

    Args:
        counts: clips by class name.
    """
    by_letters: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        by_letters[_letters(name) or name].append(name)
    for names in by_letters.values():
        for one, other in combinations(names, 2):
            pair = f"{_counted(one, counts)} and {_counted(other, counts)}"
            yield f"{pair} differ only in capitals, spaces or punctuation"
    by_rest: dict[str, set[str]] = defaultdict(set)
    for letters in by_letters:
        if len(letters) >= _SHORTEST_SLIP:
            by_rest[letters].add(letters)
            for i, sign in enumerate(letters):
                if sign.isalpha():  # "level 3" is no slip for "level 2"
                    by_rest[letters[:i] + letters[i + 1 :]].add(letters)
    pairs = {pair for similar in by_rest.values() for pair in combinations(sorted(similar), 2)}
    for first, second in sorted(pairs):
        one, other = sorted((by_letters[letters][0] for letters in (first, second)), key=lambda name: -counts[name])
        if 0 < _RARE * counts[other] <= counts[one]:
            yield f"{_counted(one, counts)} and {_counted(other, counts)} differ by a letter"


def _letters(name: str) -> str:
    """What two spellings of a name share: its letters, marks and digits, without case and width."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] in "LMN")


def _counted(name: str, counts: Mapping[str, int]) -> str:
    return f"{name!r} ({counts[name]} clip{'s' * (counts[name] != 1)})"
