"""What a subject remembers of its target's motion: its form, and whether a card has that form.

`retarget.summarise` writes it; who reads one that somebody may have sent checks it once, here, and
believes it afterwards.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from vidsynth.errors import BadSubject
from vidsynth.retarget_body import NUM_LIMBS

Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(gt=0, le=1 << 15)]
Two = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
Three = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
ABSENT: Any = None
LabelId = Annotated[int, Field(ge=0, le=255)]


class Bank(BaseModel, strict=True):
    """Frames of the training that stand for all of them."""

    rows: PositiveInt
    columns: PositiveInt
    float16: str
    spread: Above0


class Stance(BaseModel, strict=True):
    """Where and how large a person is, by one yardstick; pixels."""

    x: FiniteFloat
    line: FiniteFloat
    height: Above0
    far: FiniteFloat
    close: FiniteFloat
    height_far: Above0
    height_close: Above0
    x_min: FiniteFloat
    x_max: FiniteFloat
    y_min: FiniteFloat
    y_max: FiniteFloat
    limbs: Annotated[list[FiniteFloat | None], Field(min_length=NUM_LIMBS, max_length=NUM_LIMBS)]


class Neutral(BaseModel, strict=True):
    """A face at rest."""

    shape: Annotated[list[Three], Field(min_length=478, max_length=478)]
    rotation: Annotated[list[Three], Field(min_length=3, max_length=3)]
    translation: Two
    scale: Above0


class Bounds(BaseModel, strict=True):
    """Of one or several numbers."""

    min: list[FiniteFloat]
    low: list[FiniteFloat]
    high: list[FiniteFloat]
    max: list[FiniteFloat]


def _whole(bank: Bank) -> Bank:
    refuse_other_length(bank.float16, 2 * bank.rows * bank.columns)
    return bank


def refuse_other_length(text: str, count: int) -> None:
    """Raises ValueError where it is not the base64 of so many bytes."""
    held = len(base64.b64decode(text, validate=True))
    if held != count:
        raise ValueError(f"holds {held} bytes instead of {count}")


def _of_lengths(ranges: dict[str, Bounds]) -> dict[str, Bounds]:
    for name, count in {"turn": 3, "translation": 2, "scale": 1, "mouth": 1, "eyes": 1}.items():
        bounds = ranges.get(name)
        if bounds is None or {len(row) for _, row in bounds} != {count}:
            raise ValueError(f"{name} must have {count} numbers")
    return ranges


class Summary(BaseModel, strict=True):
    """Of bodies, faces and label maps; a kind has some of these, and others of its own."""

    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = ABSENT
    bank: Annotated[Bank, AfterValidator(_whole)] = ABSENT
    room: Two = ABSENT
    stances: dict[str, Stance] = ABSENT
    overhang: FiniteFloat = ABSENT
    neutral: Neutral = ABSENT
    ranges: Annotated[dict[str, Bounds], AfterValidator(_of_lengths)] = ABSENT
    num_classes: Annotated[int, Field(ge=1, le=255)] = ABSENT
    classes: list[LabelId] = ABSENT
    instances: bool = ABSENT
    members: list[Summary] = ABSENT
    """Of several kinds carried as one, each by itself."""


def check(summary: Mapping[str, Any], form: type[BaseModel] = Summary) -> None:
    """Whether it has this form; what the form does not name may be anything.

    Raises BadSubject.
    """
    try:
        form.model_validate(dict(summary))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"is damaged ({where}: {first['msg']})"
        if first["type"] == "missing":
            what = f"lacks {where!r}"
        raise BadSubject(f"the subject's summary {what}; train the subject again") from error
