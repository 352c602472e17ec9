"""Clips with captions, for training: found beside their texts, or drawn from a world as needed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth.clip import VideoSpec
from vidsynth.clips import ENDINGS, NAMED, WORLD, ClipFile, ClipOptions, Clips, prepare_clips
from vidsynth.errors import UnknownName, UnsupportedVideo
from vidsynth.files import cache_key
from vidsynth.objectives import TrainBatch
from vidsynth.worlds import shapes

# B batch, T frames, S side in pixels

TABLE = "captions.csv"
"""In a folder of clips: rows of a path, relative to it, and a caption."""
MOST_SEED = 1 << 40


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Films:
    """Captioned clips of the world of shapes, none of which comes twice: each is drawn anew."""

    names: tuple[str, ...]
    """Captions, one for each of `classes`."""
    classes: tuple[str, ...]
    spec: VideoSpec
    content: str

    def __len__(self) -> int:
        return len(self.names)

    def longest_run(self) -> int:
        """The films have no end."""
        return 1 << 20

    def starts(self, num_frames: int) -> Tensor:
        """One for each class."""
        return torch.arange(len(self.classes))

    def batch(
        self, starts: Tensor, num_frames: int, device: torch.device, *, num_recalled: int = 0
    ) -> TrainBatch:
        """Films of these classes (B,), as torch's generator draws them, each said in one of the
        ways to say it."""
        films, texts = [], []
        for index in starts.tolist():
            name, seed = self.classes[index], int(torch.randint(MOST_SEED, ()))
            films.append(self._film(name, seed, num_frames))
            ways = shapes.captions(name)
            texts.append(ways[int(torch.randint(len(ways), ()))])
        frames = torch.stack(films).to(device).float().div_(127.5).sub_(1.0)
        empty = frames.new_zeros(len(films), num_frames, 1, 1, 1)
        return TrainBatch(frames, empty, captions=tuple(texts))

    def of_class(self, index: int, num_frames: int, most: int) -> Tensor:
        """(most, num_frames, 3, S, S) uint8: films with one of the captions."""
        name = self.classes[index]
        return torch.stack([self._film(name, seed, num_frames) for seed in range(most)])

    def every_text(self) -> tuple[str, ...]:
        """All that the films may be said to show."""
        return tuple(text for name in self.classes for text in shapes.captions(name))

    def _film(self, name: str, seed: int, num_frames: int) -> Tensor:
        return shapes.film(name, seed, num_frames, float(self.spec.fps), self.spec.height)


def has_captions(source: Path) -> bool:
    """Whether a folder holds captions: a table, or a text beside a clip."""
    if not source.is_dir():
        return False
    return (source / TABLE).exists() or any(
        path.with_suffix(".txt").exists() for path in _clips_in(source)
    )


def find_captioned(source: Path) -> list[ClipFile]:
    """The clips of a folder with their captions as labels: from its captions.csv, or for each clip
    from a text of the same name (.txt); or those of a .csv given itself.

    Raises UnsupportedVideo for a caption without a clip, a clip without a caption, an empty one.
    """
    if not source.exists():
        raise UnsupportedVideo(f"{source}: no such folder or table; check the path")
    table = source / TABLE if source.is_dir() else source
    found = _of_table(table) if table.exists() else _of_texts(source)
    if not found:
        raise UnsupportedVideo(
            f"{source}: holds no captioned clips; put {TABLE} beside them, with rows of "
            "path,caption, or a text of the same name beside each"
        )
    if empty := [f.path.name for f in found if not f.label]:
        raise UnsupportedVideo(
            f"{source}: {_named(empty)} with an empty caption; say what it shows, or leave it out"
        )
    return found


def prepare_captioned(
    source: Path, wanted: ClipOptions, *, size: int, num_frames: int, **how: Any
) -> Clips | Films:
    """Captioned clips ready for training; arguments and errors as of `clips.prepare_clips`."""
    if str(source) == WORLD:
        return films_of_world(wanted, size=size)
    return prepare_clips(
        source, wanted, size=size, num_frames=num_frames, find=find_captioned, **how
    )


def films_of_world(wanted: ClipOptions, *, size: int) -> Films:
    """Films of the classes that are wanted and not held out. Raises UnknownName."""
    known = shapes.class_names()
    for name in wanted.classes:
        if name not in known:
            raise UnknownName.among(f"class of {WORLD}", name, known)
    names = wanted.classes or known
    left_out = shapes.held_out(names, wanted.held_out)
    classes = tuple(name for name in names if name not in left_out)
    return Films(
        names=tuple(shapes.captions(name)[0] for name in classes),
        classes=classes,
        spec=VideoSpec(height=size, width=size, fps=Fraction(wanted.fps).limit_denominator(1001)),
        content=cache_key(WORLD, "captions", classes),
    )


def every_text(clips: Clips | Films) -> tuple[str, ...]:
    """All captions that training will meet."""
    return clips.every_text() if isinstance(clips, Films) else clips.names


def _clips_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def _of_texts(folder: Path) -> list[ClipFile]:
    clips = _clips_in(folder)
    without = [path.name for path in clips if not path.with_suffix(".txt").exists()]
    if clips and without:
        raise UnsupportedVideo(
            f"{folder}: {_named(without)} without a caption; write one into a text of the same "
            f"name (.txt), or all into {TABLE}"
        )
    return [ClipFile(path, _read(path.with_suffix(".txt")).strip()) for path in clips]


def _of_table(table: Path) -> list[ClipFile]:
    try:
        rows = list(csv.reader(_read(table).splitlines()))
    except csv.Error as error:
        raise UnsupportedVideo(
            f"{table}: cannot be read as a table ({error}); give rows of path,caption"
        ) from error
    found = []
    for number, row in enumerate(rows, 1):
        if not any(cell.strip() for cell in row):
            continue
        path = Path(row[0].strip())
        if number == 1 and path.suffix.lower() not in ENDINGS:
            continue  # a heading
        if len(row) != 2:
            raise UnsupportedVideo(
                f"{table}: row {number} has {len(row)} columns; each needs a path and a caption, "
                "and a caption with a comma needs quotes around it"
            )
        if not (table.parent / path).exists():
            raise UnsupportedVideo(
                f"{table}: row {number} names {path}, which is not there; correct the row, or "
                "take it out"
            )
        found.append(ClipFile(table.parent / path, row[1].strip()))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnsupportedVideo(f"{path}: cannot be read ({error}); save it as UTF-8") from error


def _named(files: Sequence[str]) -> str:
    more = f" and {len(files) - NAMED} more are" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + (more or (" is" if len(files) == 1 else " are"))
