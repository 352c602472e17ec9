"""The extractor `several`: what other extractors see, as one conditioning."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vidsynth import loading, options
from vidsynth.clip import Clip
from vidsynth.errors import BadOption, UnknownName
from vidsynth.kinds import Extractor
from vidsynth.several import Several, several


@dataclass(frozen=True, kw_only=True)
class SeveralOptions:
    """Which extractors, and how each is set.

    Attributes:
        extractors: names of extractor plugins; the first says where the subject is.
        settings: their options, by name of the extractor.
        person: which person by size, 1 (or none given) being the largest; told those that follow
            somebody.
    """

    extractors: tuple[str, ...] = ("pose", "labels")
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    person: int | None = None

    def __post_init__(self) -> None:
        if len(set(self.extractors)) != len(self.extractors) or len(self.extractors) < 2:
            raise ValueError("extractors must name two or more, each once")


class SeveralExtractor(Extractor):
    """Several extractors over the same frames; their maps are drawn one after the other."""

    Options = SeveralOptions
    weights_licence = "those of the extractors that it runs"
    produces = Several
    checked: ClassVar = {
        "options": {"extractors": ("labels", "face")},
        "world": "puppet",
        "height": 160,
        "width": 160,
    }
    options: SeveralOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        for name in self.options.settings:
            if name not in self.options.extractors:
                raise UnknownName.among("extractor to set", name, self.options.extractors)
        self._members = [self._built(name) for name in self.options.extractors]
        self._kind = several(*(member.produces for member in self._members))
        self.produces = self._kind  # pyright: ignore[reportAttributeAccessIssue] - by its options

    def _built(self, name: str) -> Extractor:
        plugin: Any = loading.load("extractor", name)
        values = dict(self.options.settings.get(name, {}))
        if "person" in {option.name for option in dataclasses.fields(plugin.Options)}:
            values.setdefault("person", self.options.person)
        built: Extractor = plugin(options.build(plugin.Options, values, where=f"settings.{name}"))
        if built.reads_files:
            raise BadOption(
                f"the extractor {name!r} reads maps from files, which does not go with others; set "
                f"extractor.settings.{name} so that it looks at the pictures"
            )
        return built

    def extract(self, clips: Iterator[Clip]) -> Iterator[Several]:
        """One Several per clip; a clip is held until the slowest extractor has seen it."""
        for name, member in zip(self.options.extractors, self._members, strict=True):
            member.notes = self.notes.part(name)
        shares = _shared(clips, len(self._members))
        seen = (member.extract(share) for member, share in zip(self._members, shares, strict=True))
        for members in zip(*seen, strict=True):
            yield self._kind(members=members)


def _shared(clips: Iterator[Clip], count: int) -> list[Iterator[Clip]]:
    """The clips, so many times; `itertools.tee` would keep dozens that all have seen."""
    waiting: list[deque[Clip]] = [deque() for _ in range(count)]

    def share(mine: deque[Clip]) -> Iterator[Clip]:
        while True:
            if not mine:
                clip = next(clips, None)
                if clip is None:
                    return
                for others in waiting:
                    others.append(clip)
                del clip
            yield mine.popleft()

    return [share(mine) for mine in waiting]
