"""Many clips by class, for training: found, decoded in parallel, cached, served in balance."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import video
from vidsynth.clip import VideoSpec
from vidsynth.errors import NoSubjectFound, UnknownName, UnsupportedVideo
from vidsynth.files import cache_folder, cache_key, writing
from vidsynth.objectives import TrainBatch
from vidsynth.report import Reporter
from vidsynth.worlds import shapes

# B batch, T frames, N classes, S side in pixels

WORLD = "world:shapes"
"""In place of a folder: clips of that synthetic world."""
ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
WORLD_CLIPS, WORLD_TOTAL = 128, 2048
"""Of each class, and of all together; but at least WORLD_LEAST of each."""
WORLD_LEAST = 16
NAMED = 3
"""So many of the files that are left out are named; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """What is taken from a folder of clips.

    Attributes:
        fps: frames per second that all clips are brought to.
        classes: names of the classes that are learnt; empty for all there are.
        held_out: of captioned clips of a world, one combination of colour, shape and motion in so
            many is not learnt; 0 holds none out.
    """

    fps: float = 12.0
    classes: tuple[str, ...] = ()
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.held_out < 0 or self.held_out == 1:
            raise ValueError("held_out must be 0, or at least 2")
        if not 0 < self.fps <= 1000:
            raise ValueError("fps must be above 0 and at most 1000")


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A clip somewhere on the disk."""

    path: Path
    label: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Clips:
    """Clips at one size and frame rate, each of a class."""

    clips: tuple[Tensor, ...]
    """(T, 3, S, S) uint8 each, of different lengths; mapped from disk."""
    labels: Tensor
    """(len(clips),) int64: indices of `names`."""
    names: tuple[str, ...]
    spec: VideoSpec
    content: str
    """Hash of what was read: the same clips of the same classes have the same."""

    def longest_run(self) -> int:
        """Frames of the longest clip."""
        return max(map(len, self.clips))

    def starts(self, num_frames: int) -> Tensor:
        """Indices of clips of at least `num_frames` frames, every class as often as any other.

        Raises NoSubjectFound when there are none.
        """
        usable = torch.tensor([len(clip) >= num_frames for clip in self.clips])
        found = [((self.labels == n) & usable).nonzero()[:, 0] for n in range(len(self.names))]
        most = max(map(len, found))
        if not most:
            raise NoSubjectFound(
                f"no clip has {num_frames} frames at {float(self.spec.fps):g} fps; lower "
                "generator.num_frames, or raise clips.fps"
            )
        # The clips of a smaller class come up again until it has as many.
        return torch.cat([of_class.repeat(most)[:most] for of_class in found])

    def batch(
        self, starts: Tensor, num_frames: int, device: torch.device, *, num_recalled: int = 0
    ) -> TrainBatch:
        """Samples of the clips of these indices (B,), from where torch's generator draws."""
        samples = []
        for index in starts.tolist():
            room = len(self.clips[index]) - num_frames
            begin = int(torch.randint(room + 1, ()))
            samples.append(self.clips[index][begin : begin + num_frames])
        frames = torch.stack(samples).to(device).float().div_(127.5).sub_(1.0)
        shares = F.one_hot(self.labels[starts], len(self.names)).float().to(device)
        return TrainBatch(
            frames,
            shares[:, None, :, None, None].expand(-1, num_frames, -1, 1, 1),
            captions=tuple(self.names[n] for n in self.labels[starts].tolist()),
        )

    def of_class(self, index: int, num_frames: int, most: int) -> Tensor:
        """(n, num_frames, 3, S, S) uint8: the beginnings of up to `most` clips of a class."""
        chosen = [
            self.clips[n][:num_frames]
            for n in (self.labels == index).nonzero()[:, 0].tolist()
            if len(self.clips[n]) >= num_frames
        ]
        return torch.stack(chosen[:most])


def is_collection(path: Path) -> bool:
    """Whether it is clips by class: a folder of folders of them, a table, or a world."""
    if str(path) == WORLD or path.suffix.lower() == ".csv":
        return True
    return path.is_dir() and bool(_in_folder(path))


def find_clips(source: Path) -> list[ClipFile]:
    """The clips of a folder with one folder for each class, or of a table.

    A table (.csv) has a path, relative to itself, and a class in each row; it may have a heading.

    Raises UnsupportedVideo when there is none.
    """
    if not source.exists():
        raise UnsupportedVideo(f"{source}: no such folder or table; check the path")
    found = _in_folder(source) if source.is_dir() else _in_table(source)
    if not found:
        raise UnsupportedVideo(
            f"{source}: holds no clips; put them into one folder for each class, like "
            f"{source}/walking/one.mp4, or give a .csv of paths and classes"
        )
    return found


def _in_folder(folder: Path) -> list[ClipFile]:
    return [
        ClipFile(path, inner.name)
        for inner in sorted(p for p in folder.iterdir() if p.is_dir())
        for path in sorted(inner.rglob("*"))
        if path.suffix.lower() in ENDINGS
    ]


def _in_table(table: Path) -> list[ClipFile]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnsupportedVideo(
            f"{table}: cannot be read as a table ({error}); give rows of path,class"
        ) from error
    found = []
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise UnsupportedVideo(
                f"{table}: row {number} has {len(row)} column; each needs a path and a class"
            )
        path, label = row[0].strip(), row[1].strip()
        if number == 1 and Path(path).suffix.lower() not in ENDINGS:
            continue  # a heading
        found.append(ClipFile(table.parent / path, label))
    return found


def prepare_clips(
    source: Path,
    wanted: ClipOptions,
    *,
    size: int,
    num_frames: int,
    find: Callable[[Path], list[ClipFile]] = find_clips,
    reporter: Reporter | None = None,
) -> Clips:
    """Clips ready for training: square, `size` px, `wanted.fps`.

    What cannot be read, and what is shorter than `num_frames`, is left out, counted and told, as
    are classes of which nothing is left.

    Args:
        source: a folder of folders, a table, or WORLD.
        wanted: classes and frame rate.
        size: pixels each way; longer sides are cut off evenly.
        num_frames: of a training sample.
        find: tells what clips a source holds, and the label of each.

    Raises:
        UnsupportedVideo: there are no clips, or none can be used.
        UnknownName: a class that is not there.
    """
    reporter = reporter or Reporter()
    fps = Fraction(wanted.fps).limit_denominator(1001)
    if str(source) == WORLD:
        return _of_world(wanted, size, num_frames, fps)
    files = _chosen(find(source), wanted.classes)
    decoded = _decoded(files, size, fps, reporter)
    kept = {f: clip for f, clip in decoded.items() if isinstance(clip, Read)}
    bad = [str(error) for error in decoded.values() if isinstance(error, UnsupportedVideo)]
    short = [f for f, clip in kept.items() if len(clip.frames) < num_frames]
    _tell_left_out(bad, short, num_frames, fps, reporter)
    used = {f: clip for f, clip in kept.items() if f not in short}
    if not used:
        raise UnsupportedVideo(
            f"{source}: none of {len(files)} clips can be used ({len(bad)} unreadable, "
            f"{len(short)} shorter than {num_frames} frames at {float(fps):g} fps); give others, "
            "or lower generator.num_frames"
        )
    names = tuple(sorted({f.label for f in used}))
    if gone := sorted({f.label for f in files} - set(names)):
        reporter.warn(f"nothing is left of the classes {', '.join(gone)}: they are not learnt")
    if len(used) == 1:
        reporter.warn("there is one clip only: it will be learnt by heart")
    digest = sha256("".join(sorted(f"{f.label} {c.content}\n" for f, c in used.items())).encode())
    return Clips(
        clips=tuple(clip.frames for clip in used.values()),
        labels=torch.tensor([names.index(f.label) for f in used]),
        names=names,
        spec=VideoSpec(height=size, width=size, fps=fps),
        content=digest.hexdigest()[:32],
    )


def _chosen(files: Sequence[ClipFile], classes: Sequence[str]) -> list[ClipFile]:
    known = {f.label for f in files}
    for name in classes:
        if name not in known:
            raise UnknownName.among("class", name, known)
    return [f for f in files if not classes or f.label in classes]


def _of_world(wanted: ClipOptions, size: int, num_frames: int, fps: Fraction) -> Clips:
    known = shapes.class_names()
    names = wanted.classes or known
    for name in names:
        if name not in known:
            raise UnknownName.among(f"class of {WORLD}", name, known)
    each = max(WORLD_LEAST, min(WORLD_CLIPS, WORLD_TOTAL // len(names)))
    films = [
        shapes.film(name, seed, 2 * num_frames, float(fps), size)
        for name in names
        for seed in range(each)
    ]
    return Clips(
        clips=tuple(films),
        labels=torch.arange(len(names)).repeat_interleave(each),
        names=tuple(names),
        spec=VideoSpec(height=size, width=size, fps=fps),
        content=cache_key(WORLD, names),
    )


def _tell_left_out(
    bad: Sequence[str],
    short: Sequence[ClipFile],
    num_frames: int,
    fps: Fraction,
    reporter: Reporter,
) -> None:
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        reporter.warn(f"{len(bad)} clips cannot be read and are left out: {bad[0]}{more}")
    if short:
        named = ", ".join(f.path.name for f in short[:NAMED]) + ("..." if short[NAMED:] else "")
        reporter.warn(
            f"{len(short)} clips are shorter than {num_frames} frames at {float(fps):g} fps and "
            f"are left out: {named}"
        )


# Decoding


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A clip as it was decoded."""

    frames: Tensor
    """(T, 3, S, S) uint8"""
    content: str
    """Hash of the file."""


def _decoded(
    files: Sequence[ClipFile], size: int, fps: Fraction, reporter: Reporter
) -> dict[ClipFile, Read | UnsupportedVideo]:
    """Every file's frames, or why there are none; several files at a time."""

    def read(file: ClipFile) -> Read | UnsupportedVideo:
        try:
            return read_clip(file.path, size=size, fps=fps)
        except UnsupportedVideo as error:
            return error

    found: dict[ClipFile, Read | UnsupportedVideo] = {}
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
        reporter.step("reading clips", total=len(files), unit="clips") as step,
    ):
        for file, clip in zip(files, pool.map(read, files), strict=True):
            found[file] = clip
            step.update(len(found))
    return found


def read_clip(path: Path, *, size: int, fps: Fraction) -> Read:
    """One clip, square and at this frame rate; from the cache where it was read before.

    Raises UnsupportedVideo.
    """
    content = video.content_hash(path)
    stored = cache_folder("clips") / f"{cache_key(content, size, str(fps))}.rgb"
    if not stored.exists():
        frames = _resampled(path, size, fps)
        with writing(stored) as temporary:
            temporary.write_bytes(frames.contiguous().numpy().tobytes())
    shape = (-1, 3, size, size)
    length = stored.stat().st_size
    mapped = torch.from_file(str(stored), shared=False, size=length, dtype=torch.uint8)
    return Read(mapped.view(shape), content)


def _resampled(path: Path, size: int, fps: Fraction) -> Tensor:
    spec = video.probe(path).spec
    scale = size / min(spec.height, spec.width)
    height, width = (max(size, round(side * scale)) for side in (spec.height, spec.width))
    top, left = (height - size) // 2, (width - size) // 2
    frames, pts = [], []
    for chunk in video.read_chunks(path, size=(height, width), chunk=32, note=lambda _: None):
        assert chunk.clip is not None
        frames.append(chunk.clip.frames[:, :, top : top + size, left : left + size].clone())
        pts.append(chunk.pts)
    return torch.cat(frames)[nearest_frames(torch.cat(pts), fps)]


def nearest_frames(pts: Tensor, fps: Fraction) -> Tensor:
    """Indices of the frames that are on show at every 1 / fps, from the first on.

    Args:
        pts: (T,) seconds, increasing; the last frame lasts as long as frames do on average.
        fps: wanted frames per second.
    """
    pts = pts - pts[0]
    usual = float(pts[-1]) / max(1, len(pts) - 1)
    count = max(1, math.floor((float(pts[-1]) + usual) * fps + 1e-6))
    wanted = torch.arange(count, dtype=torch.float64) / float(fps)
    # Half a frame's tolerance would be nearest; what is on show is the last that has begun.
    return (torch.searchsorted(pts, wanted + 1e-6, right=True) - 1).clamp(min=0)
