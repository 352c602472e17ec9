"""Metric plugins over the films of a table: one that cannot go on never stops the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from vidsynth import __version__, loading, options, registry, weights
from vidsynth.errors import PluginError, UnknownName, VidsynthError
from vidsynth.evaluation.cases import FLOORS, Case
from vidsynth.evaluation.films import RESIZE_RULE
from vidsynth.evaluation.intervals import Interval, interval
from vidsynth.evaluation.results import HELD, FilmFacts, Row, Table, TableKind
from vidsynth.kinds import Against, Film, Measurement, Metric
from vidsynth.report import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A metric plugin that was asked for, ready to be built."""

    name: str
    plugin: type[Metric] | None
    """None where it could not be imported."""
    options: Any = None
    version: str = ""
    """The distribution it comes from, where that is not ours."""
    problem: str = ""

    @property
    def against(self) -> Against:
        return self.plugin.against if self.plugin else "nothing"

    def build(self) -> Metric:
        assert self.plugin is not None
        return self.plugin(self.options)


def choose(names: Sequence[str], settings: Mapping[str, Any]) -> list[Chosen]:
    """The metrics of these names, by default all that are installed.

    Args:
        names: of metric plugins.
        settings: options by the metric's name.

    Raises:
        UnknownName: a metric or an option that does not exist.
        BadOption: a value that its option cannot take.
        PluginError: there are no metrics, or one that was asked for by name cannot be imported.
    """
    wanted = list(dict.fromkeys(names)) or registry.names("metric")
    if not wanted:
        raise PluginError("no metric is installed; `pip install vidsynth` brings the first ones")
    for section in settings:
        if section not in wanted:
            raise UnknownName.among("metric", section, wanted)
    return [_chosen(name, settings.get(name, {}), by_name=bool(names)) for name in wanted]


def _chosen(name: str, values: Mapping[str, Any], *, by_name: bool) -> Chosen:
    about = registry.describe("metric", name)
    try:
        plugin: Any = loading.load("metric", name)
    except PluginError as error:
        if by_name:
            raise
        return Chosen(name=name, plugin=None, problem=str(error))
    built = options.build(plugin.Options, values, where=name)
    foreign = about.distribution not in ("vidsynth", "unknown")
    version = f"{about.distribution} {about.version}" if foreign else ""
    return Chosen(name=name, plugin=plugin, options=built, version=version)


def measure(
    kind: TableKind,
    cases: Sequence[Case],
    metrics: Iterable[Chosen],
    *,
    stride: int,
    may_download: bool,
    reporter: Reporter,
) -> Table:
    """Every metric over all cases, with its floor.

    Args:
        kind: of the table.
        cases: films and what they are held against, all of one kind.
        metrics: what to measure.
        stride: of the frames, for the protocol.
        may_download: whether weights that are not here may be fetched.
        reporter: told of progress.
    """
    trials = []
    lacking: dict[Against, list[str]] = {}
    for chosen in metrics:
        if chosen.against in cases[0].references:
            trials.append(_Trial(chosen))
        else:
            lacking.setdefault(chosen.against, []).append(chosen.name)
    trials.sort(key=lambda trial: list(HELD).index(trial.chosen.against))
    total = len(trials) * len(cases)
    staying = nullcontext() if may_download else weights.staying_offline()
    with staying, reporter.step("measuring", total=total, unit="metrics") as step:
        for done, case in enumerate(cases):
            films = case.kept()
            for i, trial in enumerate(trials):
                step.update(done * len(trials) + i, now=trial.chosen.name)
                trial.update(films)
        step.update(total)
    facts = [_facts(case) for case in cases]
    rule = _rule(cases, facts, stride)
    lengths = [film.frames for film in facts]
    block = round(cases[0].made.spec.fps)
    rows = [trial.row(rule, lengths, block) for trial in trials]
    notes = [f"{', '.join(names)}: {_NEEDS[against]}" for against, names in lacking.items()]
    return Table(kind=kind, films=facts, rows=rows, notes=notes)


_NEEDS: Mapping[Against, str] = {
    "truth": "need the same moments as they really look; name that film as REAL",
    "motion": "need the film whose motion is meant; name it with --source",
    "looks": "need a real film of the same person; name it with --target",
    "nothing": "",
}


class _Trial:
    """One metric over the cases, beside its own floor; remembers the first thing that stops it."""

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self.problem, self.floor_problem = chosen.problem, ""
        if chosen.plugin is not None:
            self._metric, self._floor = chosen.build(), chosen.build()

    def update(self, case: Case) -> None:
        if self.problem:
            return
        try:
            with _named(self.chosen.name):
                self._metric.update(case.made, case.references[self.chosen.against])
        except VidsynthError as error:
            self.problem = str(error)
            return
        if not self.floor_problem:
            self._update_floor(case.floors.get(self.chosen.against))

    def _update_floor(self, films: tuple[Film, Film | None] | None) -> None:
        if films is None:
            self.floor_problem = "no real film to take it from"
            return
        try:
            with _named(self.chosen.name):
                self._floor.update(*films)
        except VidsynthError as error:
            self.floor_problem = str(error)

    def row(self, rule: str, lengths: Sequence[int], block: int) -> Row:
        """What came out, `rule` completing the metric's own protocol."""
        name, plugin = self.chosen.name, self.chosen.plugin
        if plugin is None:
            return Row(metric=name, problem=self.problem)
        found = None
        if not self.problem:
            try:
                with _named(name):
                    found = self._metric.compute()
                _check(name, found, sum(lengths))
            except VidsynthError as error:
                self.problem = str(error)
        shared: dict[str, Any] = {
            "metric": name,
            "about": " ".join((plugin.__doc__ or "").split("\n\n")[0].split()),
            "unit": plugin.unit,
            "higher_is_better": plugin.higher_is_better,
            "against": plugin.against,
        }
        if found is None or self.problem:
            return Row(**shared, problem=self.problem)
        floor = self._measured_floor()
        protocol = [found.protocol, rule, f"N = {found.count}", self.chosen.version]
        return Row(
            **shared,
            value=found.value,
            interval=_interval(found, lengths, block),
            floor=floor,
            floor_rule=self.floor_problem or FLOORS[plugin.against],
            count=found.count,
            protocol="; ".join(part for part in protocol if part),
            caveat=found.caveat,
            per_frame=found.per_frame,
        )

    def _measured_floor(self) -> float | None:
        if self.floor_problem:
            return None
        try:
            with _named(self.chosen.name):
                return self._floor.compute().value
        except VidsynthError as error:
            self.floor_problem = str(error)
            return None


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What goes wrong within a metric, of whatever kind, as an error of ours that names it."""
    try:
        yield
    except VidsynthError:
        raise
    except Exception as error:  # foreign code: the other metrics go on
        raise PluginError(
            f"metric {name!r} failed ({type(error).__name__}: {error}); report it to the plugin's "
            "author"
        ) from error


def _check(name: str, found: Measurement, frames: int) -> None:
    if not isinstance(found, Measurement) or not math.isfinite(found.value):
        raise PluginError(
            f"metric {name!r} gave {found!r:.80} and no number; report it to the plugin's author"
        )
    if found.per_frame is not None and len(found.per_frame) != frames:
        raise PluginError(
            f"metric {name!r} gave {len(found.per_frame)} values for {frames} frames; report it to "
            "the plugin's author"
        )


def _interval(found: Measurement, lengths: Sequence[int], block: int) -> Interval | None:
    """Only where the value is the mean of its frames: of another statistic it would say nothing."""
    if found.per_frame is None:
        return None
    mean = float(found.per_frame.double().nanmean())
    if not math.isclose(mean, found.value, rel_tol=1e-5, abs_tol=1e-9):
        return None
    return interval(found.per_frame, lengths, block=block)


def _facts(case: Case) -> FilmFacts:
    return FilmFacts(
        made=case.made.name,
        references={key: film.name for key, film in case.references.items() if film},
        frames=len(case.made),
        height=case.made.spec.height,
        width=case.made.spec.width,
    )


def _rule(cases: Sequence[Case], facts: Sequence[FilmFacts], stride: int) -> str:
    """What the evaluation adds to every protocol."""
    sizes = ", ".join(dict.fromkeys(f"{film.width}x{film.height}" for film in facts))
    frames, films = sum(film.frames for film in facts), len(facts)
    return "; ".join(
        [
            f"{sizes} px, others resized to it ({RESIZE_RULE})",
            f"{frames} frames of {films} film{'s' * (films > 1)}, stride {stride}",
            ", ".join(dict.fromkeys(case.pairing for case in cases)),
            f"vidsynth {__version__}",
        ]
    )
