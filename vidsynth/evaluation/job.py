"""The job of `vidsynth eval`: find what to compare, measure it, write it down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from vidsynth.choosing import Settings, nested
from vidsynth.errors import BadOption, CannotWrite, NotMeasurable, UnsupportedVideo
from vidsynth.evaluation import webreport
from vidsynth.evaluation.cases import Case, Timing, crossed, reenacted
from vidsynth.evaluation.films import Recording, recording
from vidsynth.evaluation.heldout import rendered_tail
from vidsynth.evaluation.measuring import choose, measure
from vidsynth.evaluation.results import Evaluation, Table, TableKind
from vidsynth.files import check_free, writing
from vidsynth.given import as_given
from vidsynth.kinds import Given
from vidsynth.report import Reporter
from vidsynth.subject import CARD

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".gif")


def evaluate(
    made: str | Path,
    real: str | Path | None = None,
    *,
    source: str | Path | None = None,
    target: str | Path | None = None,
    labels: str | Path | None = None,
    instances: str | Path | None = None,
    metrics: Sequence[str] = (),
    size: int | None = None,
    start: float | None = None,
    end: float | None = None,
    stride: int = 1,
    device: str = "auto",
    output: str | Path | None = None,
    json_file: str | Path | None = None,
    overwrite: bool = False,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure made videos against real ones.

    Args:
        made: a made video, a folder of them, or a subject folder.
        real: what shows the same moments as they really look: a video, a folder whose files have
            the names of the made ones, or the video that the subject was trained on, whose
            held-out tail is then rendered and compared.
        source: the video whose motion `made` should show.
        target: a real video of the person whose looks `made` should show.
        labels: the label maps that the subject `made` was trained on, if it was.
        instances: the instance maps likewise.
        metrics: names of metric plugins; by default all, without downloading any weights.
        size: shorter side in pixels at which films are compared; by default the made film's.
        start, end: seconds; the part of `real`, or of `source`, that `made` shows.
        stride: compare every so manieth frame.
        device: where a subject is rendered: "auto", "cpu", "cuda", "cuda:1" or "mps".
        output: also write this .html report.
        json_file: also write this .json file; see `vidsynth.evaluation.results`.
        overwrite: replace outputs that exist.
        settings: options of metrics, as {"fvd": {...}} or "fvd.option=value" strings.
        reporter: told of progress.

    Raises:
        NotMeasurable: no metric could be measured; says why for each.
        VidsynthError: see vidsynth.errors.
    """
    reporter = reporter or Reporter()
    made = Path(made)
    real, source, target, output, json_file = (
        None if path is None else Path(path) for path in (real, source, target, output, json_file)
    )
    _check_outputs(output, json_file, overwrite)
    _check_films(made, real, source, target)
    given = as_given(labels, instances)
    if given is not None and not (made / CARD).exists():
        raise BadOption(f"--labels go with a subject folder, and {made} is none; leave them out")
    chosen = choose(metrics, nested(settings))
    timing = Timing(start=start, end=end, stride=stride)

    with TemporaryDirectory(prefix="vidsynth-eval-") as name:
        folder = Path(name)
        opened = cache(partial(recording, reporter=reporter))
        found: list[tuple[TableKind, list[Case]]] = []
        if real is not None:
            pairs = _pairs(made, real, given, opened, timing, device, folder, reporter)
            cases = [
                reenacted(
                    ours,
                    truth,
                    size=size,
                    timing=timing,
                    folder=folder,
                    reporter=reporter,
                    index=index,
                )
                for ours, truth, index in pairs
            ]
            found.append(("self-reenactment", cases))
        if source is not None or target is not None:
            case = crossed(
                opened(made),
                source and opened(source),
                target and opened(target),
                size=size,
                timing=timing,
                folder=folder,
                reporter=reporter,
            )
            found.append(("cross-reenactment", [case]))
        tables = []
        for kind, cases in found:
            # What needs the truth has its place in the first table where there are two.
            wanted = [c for c in chosen if not tables or c.against in cases[0].references]
            tables.append(
                measure(
                    kind,
                    cases,
                    wanted,
                    stride=stride,
                    may_download=bool(metrics),
                    reporter=reporter,
                )
            )
        evaluation = Evaluation(tables=tables)
        if json_file is not None:
            with writing(json_file) as temporary:
                text = json.dumps(evaluation.to_dict(), indent=1, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
            reporter.say(f"wrote {json_file}")
        if output is not None:
            with writing(output) as temporary:
                text = webreport.page(evaluation, [cases for _, cases in found])
                temporary.write_text(text, encoding="utf-8")
            reporter.say(f"wrote {output}")
    _require_a_value(tables)
    return evaluation


def _pairs(
    made: Path,
    real: Path,
    given: Given | None,
    opened: Callable[[Path], Recording],
    timing: Timing,
    device: str,
    folder: Path,
    reporter: Reporter,
) -> list[tuple[Recording, Recording, Tensor | None]]:
    """Made films, the truth, and which of its frames they are where that is known."""
    if (made / CARD).exists():
        if timing.start is not None or timing.end is not None:
            raise BadOption("--start and --end go with films; a subject is measured on its tail")
        return [rendered_tail(made, real, folder, given=given, device=device, reporter=reporter)]
    files = _paired(made, real, reporter) if made.is_dir() else [(made, real)]
    return [(opened(ours), opened(theirs), None) for ours, theirs in files]


def _paired(made: Path, real: Path, reporter: Reporter) -> list[tuple[Path, Path]]:
    """Films of two folders that have the same name, whatever their suffix."""
    ours, theirs = _films_in(made), _films_in(real)
    both = [stem for stem in ours if stem in theirs]
    if not both:
        raise BadOption(
            f"no film in {made} ({', '.join(ours)}) has the name of one in {real} "
            f"({', '.join(theirs)}); give the made films the names of the real ones"
        )
    for there, mine, others in ((real, ours, theirs), (made, theirs, ours)):
        alone = [path.name for stem, path in mine.items() if stem not in others]
        if alone:
            reporter.warn(f"left out, with no film of that name in {there}: {', '.join(alone)}")
    return [(ours[stem], theirs[stem]) for stem in both]


def _films_in(folder: Path) -> dict[str, Path]:
    """The videos of a folder by their names without suffix, sorted."""
    films = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    twice = [stem for stem, n in Counter(p.stem for p in films).items() if n > 1]
    if not films:
        raise UnsupportedVideo(f"{folder}: holds no videos; name a folder of videos, or a video")
    if twice:
        raise BadOption(
            f"{folder} holds several films named {', '.join(twice)}; films are paired by name, so "
            "keep one of each"
        )
    return {path.stem: path for path in films}


def _check_outputs(output: Path | None, json_file: Path | None, overwrite: bool) -> None:
    for path, suffix in ((output, ".html"), (json_file, ".json")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise CannotWrite(f"{path}: name it with {suffix}, which is what it will be")
        check_free(path, overwrite)


def _check_films(made: Path, real: Path | None, source: Path | None, target: Path | None) -> None:
    """Whether what was named can be compared at all."""
    if real is None and source is None and target is None:
        raise BadOption(
            f"{made} is held against nothing: name the real film of the same moments, or --source "
            "and --target"
        )
    is_subject = (made / CARD).exists()
    if made.is_dir() and (source or target):
        raise BadOption(
            f"--source and --target go with one made film, and {made} is a folder; name a film"
        )
    if made.is_dir() and not is_subject and real and real.is_file():
        raise BadOption(
            f"{made} is a folder without {CARD} and {real} is a file: name a film and a film, two "
            "folders, or a subject folder and the video it was trained on"
        )
    for path in (made, real, source, target):
        if path is not None and not path.exists():
            raise UnsupportedVideo(f"{path}: no such file or folder; check the path")


def _require_a_value(tables: Sequence[Table]) -> None:
    if any(table.measured for table in tables):
        return
    reasons = dict.fromkeys(reason for table in tables for reason in table.unmeasured)
    raise NotMeasurable("nothing could be measured; " + "; ".join(reasons))
