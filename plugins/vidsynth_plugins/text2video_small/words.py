"""Words as numbers: what a text model knows, and what it says of words that it does not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vidsynth.errors import BadOption

# B texts, L tokens

BEGIN, END = 0, 1
MARKS = 2
"""Numbers below this are no words: the beginning, and the end, which fills what is left over."""
LENGTH = 16
"""Tokens of every text, beginning and end included."""
TOLD = 60
"""So many of the words that are known are told; the others are counted."""


def words_in(text: str) -> list[str]:
    """A text's words in small letters, without the marks between them."""
    return re.findall(r"[^\s.,;:!?\"()]+", text.lower())


def vocabulary(texts: Iterable[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """All words of the texts: those `known` in their order, then the others by the alphabet."""
    found = {word for text in texts for word in words_in(text)}
    return (*known, *sorted(found - set(known)))


def numbered(texts: Sequence[str], known: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens of each text (B, LENGTH) int64, and where each ends (B,).

    Raises BadOption for a word that is not `known`, and for a text of too many words: nothing is
    left out silently.
    """
    numbers = {word: n for n, word in enumerate(known, MARKS)}
    rows, ends = [], []
    for text in texts:
        words = words_in(text)
        strange = [word for word in words if word not in numbers]
        if strange:
            raise BadOption(
                f"this model knows no {', '.join(map(repr, strange))}; it was taught "
                f"{len(known)} words, use these: {told(known)}; or generate with --model NAME, a "
                "large model that knows any (vidsynth generate --help)"
            )
        if len(words) > LENGTH - 2:
            raise BadOption(
                f"the prompt has {len(words)} words, and this model takes at most {LENGTH - 2}; "
                "say it in fewer"
            )
        rows.append([BEGIN, *(numbers[word] for word in words)])
        ends.append(len(words) + 1)
    filled = [row + [END] * (LENGTH - len(row)) for row in rows]
    return torch.tensor(filled), torch.tensor(ends)


def told(known: Sequence[str]) -> str:
    """The words for a message, not all of them where there are many."""
    more = f" and {len(known) - TOLD} more" if len(known) > TOLD else ""
    return ", ".join(known[:TOLD]) + more
