"""One HTML file that holds everything: tables, plots, pictures. Nothing is loaded, no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import drawing
from vidsynth.evaluation import pictures
from vidsynth.evaluation.cases import Case
from vidsynth.evaluation.plots import end_to_end, plot
from vidsynth.evaluation.results import EXPLAINED, HELD, Evaluation, Row, Table, number

# H, W pixels

PICTURE_PX, STRIP_PX = 400, 132
"""Pictures are at most so wide."""
FULL_SCALE = 64
"""Levels of 255: the difference that the error maps show at full brightness."""


def page(evaluation: Evaluation, cases: Sequence[Sequence[Case]]) -> str:
    """The whole report.

    Args:
        evaluation: what was found.
        cases: the films of each of its tables; those worth looking at are read again.
    """
    films = [film for table in evaluation.tables for film in table.films]
    title = f"How good is {_listed(dict.fromkeys(film.made for film in films))}?"
    versions = ", ".join(f"{name} {value}" for name, value in evaluation.versions.items())
    body = "".join(
        _section(table, theirs) for table, theirs in zip(evaluation.tables, cases, strict=True)
    )
    style = files("vidsynth.evaluation").joinpath("webreport.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>{body}"
        f"<footer>{escape(versions)}</footer></main></body></html>\n"
    )


def _section(table: Table, cases: Sequence[Case]) -> str:
    about = f"{EXPLAINED[table.kind].capitalize()}."
    return (
        f"<section><h2>{escape(table.kind.capitalize())}</h2>"
        f"<p>{escape(about)}</p>{_films(table)}{_numbers(table)}{_unmeasured(table)}"
        f"{_strips(cases)}{_moments(table, cases)}{_plots(table, cases)}{_protocols(table)}"
        "</section>\n"
    )


def _films(table: Table) -> str:
    items = "".join(
        f"<li><b>{escape(film.made)}</b> ({film.width}x{film.height} px, {film.frames} frames)"
        f" against {escape(_listed(dict.fromkeys(film.references.values())) or 'nothing')}</li>"
        for film in table.films
    )
    return f'<ul class="films">{items}</ul>'


def _numbers(table: Table) -> str:
    if not table.measured:
        return ""
    head = "<th>metric<th>value<th>unit<th>95 % interval<th>real vs real<th>N<th>remarks"
    bodies = []
    for words, rows in groupby(table.measured, key=lambda row: HELD[row.against]):
        title = f'<tr><th colspan="7" class="group">{words}</tr>'
        bodies.append(f"<tbody>{title}{''.join(map(_row, rows))}</tbody>")
    return (
        f'<table><thead><tr>{head}</tr></thead>{"".join(bodies)}</table><p class="small">'
        "↑ higher is better, ↓ lower is better. <b>Real vs real</b> is what real footage itself "
        "gets: a perfect film would get the same.</p>"
    )


def _row(row: Row) -> str:
    return (
        f'<tr><th scope="row" title="{escape(row.about)}">{escape(row.metric)} '
        f'<span class="arrow">{row.arrow}</span><td class="value">{number(row.value)}'
        f'<td class="unit">{escape(row.unit)}<td>{_interval(row)}<td>{number(row.floor)}'
        f"<td>{row.count}<td class='words'>{escape(_remarks(row))}</tr>"
    )


def _interval(row: Row) -> str:
    found = row.interval
    return f"{number(found.low)} to {number(found.high)}" if found else "-"


def _remarks(row: Row) -> str:
    no_floor = f"no floor: {row.floor_rule}" if row.floor is None else ""
    return "; ".join(part for part in (row.caveat, no_floor) if part)


def _unmeasured(table: Table) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in table.unmeasured)
    return items and f"<h3>Not measured</h3><ul class='small'>{items}</ul>"


def _strips(cases: Sequence[Case]) -> str:
    parts = []
    for case in cases[: pictures.STRIP_FILMS]:
        shown = pictures.frames_of(case, pictures.spread(case.made))
        rows = [(case.made.name, [s.made for s in shown.values()])]
        partner = pictures.compared(case)
        if partner is not None:
            rows.append((partner.name, [s.real for s in shown.values() if s.real is not None]))
        looks = case.references.get("looks")
        if looks is not None and looks is not partner:
            rows.append((looks.name, pictures.strip(looks)))
        for name, frames in rows:
            images = "".join(_image(frame, STRIP_PX, name) for frame in frames)
            parts.append(
                f'<figcaption>{escape(name)}</figcaption><div class="strip">{images}</div>'
            )
    return f"<h3>Through the film</h3><figure>{''.join(parts)}</figure>"


def _moments(table: Table, cases: Sequence[Case]) -> str:
    moments = pictures.worst_moments(table, cases)
    shown = {
        (i, frame): both
        for i, case in enumerate(cases)
        if (wanted := {m.local for m in moments if m.film == i})
        for frame, both in pictures.frames_of(case, wanted).items()
    }
    figures = [_moment(m, shown[m.film, m.local], cases[m.film], table) for m in moments]
    return f"<h3>Worst moments</h3>{''.join(figures)}" if figures else ""


def _moment(moment: pictures.Moment, shown: pictures.Shown, case: Case, table: Table) -> str:
    of = f"{table.films[moment.film].made}, " if len(table.films) > 1 else ""
    worst = ", ".join(
        f"{row.metric} ({number(value)} {row.unit}".strip() + ")" for row, value in moment.worst
    )
    images = [("made", shown.made)]
    truth = "truth" in case.references
    if shown.real is not None:
        images.append(("real" if truth else "the source, whose motion is meant", shown.real))
        if truth:
            levels = f"|difference|, white at {FULL_SCALE} levels or more"
            images.append((levels, _heat(pictures.difference(shown.made, shown.real))))
    cells = "".join(
        f"<div>{_image(image, PICTURE_PX, label)}<span>{escape(label)}</span></div>"
        for label, image in images
    )
    caption = f"{of}frame {moment.local}, {shown.second:.2f} s: at or near the worst of {worst}"
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="trio">{cells}</div></figure>'
    )


def _plots(table: Table, cases: Sequence[Case]) -> str:
    seconds = end_to_end([case.made.pts for case in cases])
    lengths = [film.frames for film in table.films]
    drawn = "".join(
        f"<figure><figcaption>{escape(row.metric)} {row.arrow} "
        f"<span class='small'>{escape(row.unit)}</span></figcaption>"
        f"{plot(row, seconds, lengths)}</figure>"
        for row in table.measured
        if row.per_frame is not None
    )
    if not drawn:
        return ""
    return (
        f'<h3>Over time</h3><div class="plots">{drawn}</div><p class="small">Dashed: the mean, '
        "with its interval; dotted: real vs real, where it is near; dot: the worst frame.</p>"
    )


def _protocols(table: Table) -> str:
    items = "".join(
        f"<dt>{escape(row.metric)}</dt><dd>{escape(row.about)}<br><code>{escape(row.protocol)}"
        f"</code><br>Real vs real: {escape(row.floor_rule)}."
        + (f" Interval: {escape(row.interval.rule)}." if row.interval else "")
        + "</dd>"
        for row in table.measured
    )
    return (
        "<h3>Protocols</h3><p class='small'>Numbers can be compared only where their protocols are "
        f"equal.</p><dl>{items}</dl>"
    )


def _heat(share: Tensor) -> Tensor:
    """(H, W) in [0, 1] as (3, H, W) colours, black to white over the scale of differences."""
    grey = (share * 255 / FULL_SCALE).clamp(0, 1).mul(255).byte().numpy()
    colours = cv2.applyColorMap(grey, cv2.COLORMAP_HOT)[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))


def _image(frame: Tensor, width: int, label: str) -> str:
    """(3, H, W) uint8 as an <img> that carries its bytes."""
    _, height, own = frame.shape
    if own > width:
        frame = drawing.resize(frame[None], max(1, round(height * width / own)), width)[0]
    bgr = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[:, :, ::-1])
    coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    data = base64.b64encode(coded).decode()
    return f'<img alt="{escape(label)}" src="data:image/jpeg;base64,{data}">'


def _listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and 3 more"."""
    known = list(names)
    if len(known) > 3:
        return f"{', '.join(known[:2])} and {len(known) - 2} more"
    return " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
