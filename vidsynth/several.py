"""Several kinds of conditioning of the same frames, carried as one.

So whatever can be trained on one kind can be trained on several: their maps are drawn one after
the other. The first leads: it says who is seen, where, and how alike two frames are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vidsynth.conditioning import Conditioning
from vidsynth.correspondence import Warp

# T frames, C channels, H, W pixels


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Several(Conditioning):
    """Members in pixels of one picture; `several` makes the class for given kinds of them."""

    kind: ClassVar[str] = "several"
    kinds: ClassVar[tuple[type[Conditioning], ...]] = ()
    """Of the members, in order."""
    per_frame: ClassVar[tuple[str, ...]] = ("members",)

    members: tuple[Conditioning, ...]
    """Of T frames each."""

    @property
    def lead(self) -> Conditioning:
        return self.members[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.lead.size

    def draw(self, height: int, width: int) -> Tensor:
        return torch.cat([member.draw(height, width) for member in self.members], dim=1)

    def tensors(self) -> list[Tensor]:
        return [tensor for member in self.members for tensor in member.tensors()]

    def each(self, change: Callable[[Any], Any]) -> Self:
        """With `change` applied to every member."""
        return replace(self, members=tuple(map(change, self.members)))

    def __len__(self) -> int:
        return len(self.lead)

    def __getitem__(self, key: slice | Tensor) -> Self:
        return self.each(lambda member: member[key])

    @classmethod
    def concat(  # pyright: ignore[reportIncompatibleMethodOverride] - Self, as declared
        cls, parts: Sequence[Self]
    ) -> Self:
        spans = zip(*(part.members for part in parts), strict=True)
        return cls(members=tuple(type(span[0]).concat(span) for span in spans))

    def crop(self, box: tuple[int, int, int, int]) -> Self:
        return self.each(lambda member: member.crop(box))

    def rescale(self, height: int, width: int) -> Self:
        return self.each(lambda member: member.rescale(height, width))

    def steadied(self, pts: Tensor, rest_seconds: float) -> Self:
        return self.each(lambda member: member.steadied(pts, rest_seconds))

    def present(self) -> Tensor:
        return self.lead.present()

    def silhouette(self, height: int, width: int) -> Tensor | None:
        return self.lead.silhouette(height, width)

    def core(self, height: int, width: int) -> Tensor | None:
        return self.lead.core(height, width)

    def regions(self) -> Mapping[str, Tensor]:
        return self.lead.regions()

    def features(self) -> Tensor:
        return self.lead.features()

    def part_features(self) -> Tensor | None:
        return self.lead.part_features()

    def posture(self) -> Tensor | None:
        return self.lead.posture()

    def warp_to(  # pyright: ignore[reportIncompatibleMethodOverride] - Self, as declared
        self,
        other: Several,
        height: int,
        width: int,
        *,
        device: torch.device | str = "cpu",
        outlines: Tensor | None = None,
    ) -> Warp:
        known = {} if outlines is None else {"outlines": outlines}
        return self.lead.warp_to(other.lead, height, width, device=device, **known)

    def outlines(self, cover: Tensor) -> Tensor | None:
        return self.lead.outlines(cover)

    def packed(self) -> tuple[dict[str, Tensor], Any]:
        tensors: dict[str, Tensor] = {}
        plain = []
        for number, member in enumerate(self.members):
            theirs, words = member.packed()
            tensors |= {f"{number}/{name}": value for name, value in theirs.items()}
            plain.append(words)
        return tensors, plain

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], plain: Any) -> Self:
        members = []
        for number, (kind, words) in enumerate(zip(cls.kinds, plain, strict=True)):
            start = f"{number}/"
            theirs = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            members.append(kind.unpacked(theirs, words))
        return cls(members=tuple(members))


@cache
def several(*kinds: type[Conditioning]) -> type[Several]:
    """The kind of conditioning whose members are of these, like "pose+labels"."""
    name = "+".join(kind.kind for kind in kinds)
    return type(f"Several[{name}]", (Several,), {"__slots__": (), "kind": name, "kinds": kinds})
