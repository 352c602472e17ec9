"""A tracked target made ready for training: cropped, drawn, cached, split, served in batches."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vidsynth import drawing, exemplars, video
from vidsynth.clip import VideoSpec
from vidsynth.conditioning import Conditioning, FaceSequence
from vidsynth.errors import BadOption, CannotWrite, NoSubjectFound, UnsupportedVideo
from vidsynth.exemplars import Before, Gallery, Plan
from vidsynth.files import cache_folder, cache_key, writing
from vidsynth.following import Following, Seen, learn
from vidsynth.kinds import Conditions
from vidsynth.objectives import Recalled, TrainBatch
from vidsynth.plate import cut_out, estimate_plate
from vidsynth.report import Reporter
from vidsynth.stages import average_rate
from vidsynth.stream import Chunk
from vidsynth.tracking import Tracked

# N frames of the video, T frames of a sample, B batch, C channels, H, W pixels

Box = tuple[int, int, int, int]

MIN_USABLE_FRAMES = 24
HELD_OUT_SHARE = 0.1
HELD_OUT_FRAMES = (6, 120)
GAP_SECONDS = 0.5
"""Between training and held-out frames, so that neighbours do not leak."""
STRAY_SHARE = 0.3
"""Of the exemplars in training: any image of the gallery instead of the best. Another person's
motion asks for what the target never did, and then even the best is a poor one."""
LEARNT_FROM = 400
"""Training frames from which it is learnt how exemplars follow."""
IN_MEMORY_BYTES = 1 << 30
"""Drawings that take more are made again whenever they are asked for."""
LARGE_PX, MOST_ENLARGED = 512, 4
"""Outputs above this size are at most so many times as large as what they are made from."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Footage:
    """The target's frames and conditioning, as the generator will see them."""

    pictures: Tensor
    """(N, 3, height, width) uint8: whole output frames, mapped from disk."""
    drawings: Drawings
    """The conditioning as the generator's pictures of it."""
    regions: Mapping[str, Tensor]
    """Boxes (N, 4) in pixels of the window."""
    signal: Conditioning
    """N frames, in pixels of the whole output frame."""
    pts: Tensor
    """(N,) seconds."""
    spec: VideoSpec
    """Of the whole output frame."""
    window: Box
    """Where the generator works in the output frame."""
    plate: Tensor | None
    """(3, height, width) uint8 still background of the whole output frame."""
    crop: Box
    """The part of the target's picture that is the output frame, in tracking pixels."""
    training: Tensor
    """(N,) bool: usable for training."""
    held_out: slice
    """Consecutive usable frames at the end, never trained on."""
    gallery: Gallery | None = None
    """Training frames to paint from, with that option."""
    plan: Plan | None = None
    """Which of them stand in for each frame, N frames; never one of the same moment."""

    @property
    def frames(self) -> Tensor:
        """(N, 3, H, W) uint8: the window of every output frame."""
        x0, y0, x1, y1 = self.window
        return self.pictures[:, :, y0:y1, x0:x1]

    @property
    def window_spec(self) -> VideoSpec:
        x0, y0, x1, y1 = self.window
        return VideoSpec(height=y1 - y0, width=x1 - x0, fps=self.spec.fps)

    def longest_run(self) -> int:
        """Most consecutive frames usable for training."""
        breaks = torch.cat([torch.tensor([-1]), (~self.training).nonzero()[:, 0]])
        return int(breaks.diff(append=torch.tensor([len(self.training)])).max()) - 1

    def starts(self, num_frames: int) -> Tensor:
        """Indices at which `num_frames` consecutive training frames begin.

        Raises NoSubjectFound when there are none.
        """
        whole = self.training.unfold(0, num_frames, 1).all(dim=1)
        if not whole.any():
            raise NoSubjectFound(
                f"the target is never seen in {num_frames} consecutive frames; use a video in "
                "which it stays in the picture"
            )
        return whole.nonzero()[:, 0]

    def as_gallery(self, index: Tensor) -> Gallery:
        """These frames (N,) as pictures to paint from."""
        x0, y0, x1, y1 = self.window
        images, signal = self.pictures[index][:, :, y0:y1, x0:x1], self.signal[index]
        signal = signal.crop(self.window)
        if self.plate is not None:
            around = signal.silhouette(y1 - y0, x1 - x0)
            cover = cut_out(images, self.plate[:, y0:y1, x0:x1], around)
            images = torch.cat([images, cover], dim=1)
        pictures = Gallery(images=images, signal=signal, pts=self.pts[index])
        if self.gallery is None:
            return pictures
        return replace(pictures, following=self.gallery.following, outlines=self.gallery.outlines)

    def batch(
        self, starts: Tensor, num_frames: int, device: torch.device, *, num_recalled: int = 0
    ) -> TrainBatch:
        """The samples that begin at `starts` (B,), on the device.

        The last `num_recalled` frames of each come with exemplars, some of which are drawn at
        random, by torch's generator.
        """
        index_BT = starts[:, None] + torch.arange(num_frames)

        def unit(bytes_BTCHW: Tensor) -> Tensor:
            return bytes_BTCHW.to(device).float().div_(255.0)

        maps, weights = self.drawings.of(index_BT)
        return TrainBatch(
            frames_BTCHW=unit(self.frames[index_BT]).mul_(2).sub_(1),
            maps_BTCHW=unit(maps),
            background_CHW=None if self.plate is None else self._plate(device),
            weights_BT1HW=None if weights is None else unit(weights),
            recalled=self._recalled(index_BT[:, num_frames - num_recalled :], device),
            regions={name: boxes[index_BT].to(device) for name, boxes in self.regions.items()},
        )

    def _recalled(self, index_BT: Tensor, device: torch.device) -> Recalled | None:
        if self.gallery is None or self.plan is None or not index_BT.shape[1]:
            return None
        index = index_BT.flatten()
        signal = self.signal[index].crop(self.window)
        chosen = self.gallery.stray(self.plan[index], STRAY_SHARE)
        before = None
        if self.drawings.conditions.carry:  # a sample begins with nothing made before
            follows = torch.arange(index_BT.shape[1]).expand(index_BT.shape) > 0
            earlier = self.signal[(index - 1).clamp_min(0)].crop(self.window)
            before = Before(earlier, follows.flatten())
        found = self.gallery.recall(signal, chosen, device, before=before)
        return Recalled.of(found, device).each(lambda x: x.unflatten(0, index_BT.shape))

    def _plate(self, device: torch.device) -> Tensor:
        assert self.plate is not None
        x0, y0, x1, y1 = self.window
        return self.plate[:, y0:y1, x0:x1].to(device).float().div_(127.5).sub_(1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Conditioning as pictures: drawn once where all fit in memory, else whenever asked for."""

    signal: Conditioning
    """N frames, in pixels of the window."""
    pts: Tensor
    """(N,) seconds."""
    conditions: Conditions
    kept: tuple[Tensor, Tensor | None] | None
    """What `of` gives for every frame."""

    @staticmethod
    def made(
        signal: Conditioning, pts: Tensor, conditions: Conditions, reporter: Reporter
    ) -> Drawings:
        """Ready to be asked; N frames of signal and `pts`."""
        wanted = Drawings(signal, pts, conditions, None)
        if len(pts) * (conditions.channels + 1) * math.prod(signal.size) > IN_MEMORY_BYTES:
            return wanted
        maps, weights = (
            None if one is None else one.new_empty(len(pts), *one.shape[1:])
            for one in wanted.of(torch.zeros(1, dtype=torch.long))
        )
        assert maps is not None
        with reporter.step("drawing conditioning maps", total=len(pts)) as step:
            for index in torch.arange(len(pts)).split(32):
                maps[index], drawn = wanted.of(index)
                if weights is not None and drawn is not None:
                    weights[index] = drawn
                step.update(int(index[-1]) + 1)
        return replace(wanted, kept=(maps, weights))

    def of(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps (..., C, H, W) and the subject (..., 1, H, W), None where the signal does not tell
        it; uint8, 255 on it. `index` is (...) int64."""
        if self.kept is not None:
            maps, weights = self.kept
            return maps[index], None if weights is None else weights[index]
        flat = index.flatten()
        part = self.signal[flat]
        maps = self.conditions.draw(Chunk(self.pts[flat]).with_signal(part), *part.size)
        weights = part.silhouette(*part.size)
        shape = index.shape
        return maps.unflatten(0, shape), None if weights is None else weights.unflatten(0, shape)


def prepare(
    tracked: Tracked,
    conditions: Conditions,
    *,
    size: int,
    background: bool,
    gallery: int = 0,
    reporter: Reporter | None = None,
) -> Footage:
    """Decode, crop, draw and split a tracked target.

    Args:
        tracked: the target and what its extractor saw.
        conditions: what the generator will be conditioned on.
        size: pixels of the output's shorter side.
        background: look for a still background plate.
        gallery: so many training frames are kept to paint from, where `conditions` has exemplars.

    Raises:
        NoSubjectFound: too few usable frames.
        BadOption: `size` is far beyond what the target shows.
        CannotWrite: the cache has no room for the frames.
    """
    tracked.require_subject(at_least=MIN_USABLE_FRAMES)
    reporter = reporter or Reporter()
    crop = _output_crop(tracked.signal)
    _refuse_blow_up(tracked, crop, size)
    height, width = _output_size(crop, size)
    spec = VideoSpec(height=height, width=width, fps=average_rate(tracked.pts))
    frames = _decoded(tracked, crop, spec, reporter)
    signal = tracked.signal.crop(crop).rescale(height, width)
    plate = None
    if background:
        plate = estimate_plate(
            frames,
            lambda i: signal[i].silhouette(height, width),
            lambda i: signal[i].core(height, width),
        )
        if plate is None:
            reporter.say("the camera moves or the subject hides most of it: no background plate")
    window = _window(signal, spec) if plate is not None else (0, 0, width, height)
    inside = signal.crop(window)
    training, held_out = split(signal.present(), tracked.pts)
    drawings = Drawings.made(inside, tracked.pts, conditions, reporter)
    footage = Footage(
        pictures=frames,
        drawings=drawings,
        regions=inside.regions(),
        signal=signal,
        pts=tracked.pts,
        spec=spec,
        window=window,
        plate=plate,
        crop=crop,
        training=training,
        held_out=held_out,
    )
    if not conditions.exemplars:
        return footage
    usable = training.nonzero()[:, 0]
    kept = footage.as_gallery(usable[exemplars.cover(inside[usable].features(), gallery)])
    planned = exemplars.plan(kept, inside, conditions.exemplars, at=tracked.pts)
    if plate is not None:
        kept = replace(kept, outlines=kept.signal.outlines(kept.images[:, 3:]))
    kept = replace(kept, following=_learnt(footage, kept, planned, usable, reporter))
    return replace(footage, gallery=kept, plan=planned)


def _learnt(
    footage: Footage, gallery: Gallery, plan: Plan, usable: Tensor, reporter: Reporter
) -> Following | None:
    """How the gallery follows, from some of the usable frames: each with the image that stands in
    for it, and with any one."""
    some = usable[torch.linspace(0, len(usable) - 1, min(LEARNT_FROM, len(usable))).long()]
    anyhow = torch.Generator().manual_seed(0)
    strays = torch.randint(len(gallery.images), some.shape, generator=anyhow)
    frame = torch.arange(len(some))
    pairs = torch.stack([torch.cat([plan.chosen[some, 0], strays]), frame.repeat(2)], dim=1)
    wanted = Seen(footage.frames[some], footage.signal[some].crop(footage.window))
    return learn(Seen(gallery.images, gallery.signal), wanted, pairs, reporter=reporter)


def _output_crop(signal: Conditioning) -> Box:
    """Bodies keep the whole picture; a small face gets a square around every place it visits."""
    height, width = signal.size
    whole = (0, 0, width, height)
    if not isinstance(signal, FaceSequence):
        return whole
    boxes = signal.regions()["subject"][signal.present()]
    x0, y0 = boxes[:, :2].amin(0).tolist()
    x1, y1 = boxes[:, 2:].amax(0).tolist()
    side = 1.25 * max(x1 - x0, y1 - y0)
    if side > 0.7 * min(height, width):
        return whole
    left = min(max(0.0, (x0 + x1 - side) / 2), width - side)
    top = min(max(0.0, (y0 + y1 - side) / 2), height - side)
    return (round(left), round(top), round(left + side), round(top + side))


def _refuse_blow_up(tracked: Tracked, crop: Box, size: int) -> None:
    """Pixels that the target never had cost memory and time, and show nothing."""
    spec = video.probe(tracked.path).spec
    scale = min(spec.height, spec.width) / min(tracked.signal.size)
    own = round(min(crop[2] - crop[0], crop[3] - crop[1]) * scale)
    if size > max(LARGE_PX, MOST_ENLARGED * own):
        raise BadOption(
            f"size {size} is far beyond the {own} px at which {tracked.path} shows its subject; "
            f"choose at most {max(LARGE_PX, MOST_ENLARGED * own)}"
        )


def _output_size(crop: Box, size: int) -> tuple[int, int]:
    """Even numbers, the shorter side `size` px."""
    height, width = crop[3] - crop[1], crop[2] - crop[0]
    scale = size / min(height, width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def _decoded(tracked: Tracked, crop: Box, spec: VideoSpec, reporter: Reporter) -> Tensor:
    """All output frames, (N, 3, H, W) uint8, mapped from a file in the cache."""
    num_frames = len(tracked.pts)
    shape = (num_frames, 3, spec.height, spec.width)
    key = cache_key(video.content_hash(tracked.path), crop, shape, tracked.pts[[0, -1]].tolist())
    stored = cache_folder("frames") / f"{key}.rgb"
    if not stored.exists() or stored.stat().st_size != math.prod(shape):
        _check_room(stored.parent, math.prod(shape), spec)
        with (
            writing(stored) as temporary,
            temporary.open("wb") as file,
            reporter.step(f"decoding {tracked.path.name}", total=num_frames) as step,
        ):
            done = 0
            for chunk in video.read_chunks(tracked.path, note=lambda _: None):  # told by `track`
                assert chunk.clip is not None
                cut = _cut(chunk.clip.frames, crop, tracked.signal.size)
                pictures = drawing.resize(cut, spec.height, spec.width)
                file.write(pictures.contiguous().numpy().data)
                done += len(chunk)
                step.update(done)
            if done != num_frames:
                raise UnsupportedVideo(
                    f"{tracked.path}: had {num_frames} frames when it was tracked and {done} when "
                    "it was read again; run this again when it no longer changes"
                )
    return _mapped(stored, shape)


def _check_room(folder: Path, needed: int, spec: VideoSpec) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CannotWrite(
            f"{folder}: the target's frames at {spec.width}x{spec.height} need {needed / 1e9:.1f} "
            f"GB and {free / 1e9:.1f} GB are free; choose a smaller --size, or move the cache "
            "with VIDSYNTH_CACHE"
        )


def _cut(frames: Tensor, crop: Box, size: tuple[int, int]) -> Tensor:
    """`crop`, given in pixels of a picture of `size`, out of frames of any size."""
    height, width = frames.shape[2:]
    sy, sx = height / size[0], width / size[1]
    x0, y0, x1, y1 = crop
    return frames[:, :, round(y0 * sy) : round(y1 * sy), round(x0 * sx) : round(x1 * sx)]


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    return torch.from_file(str(path), size=math.prod(shape), dtype=torch.uint8).view(shape)


def _window(signal: Conditioning, spec: VideoSpec) -> Box:
    """Every place the subject visits, with a margin, on a grid of 16 px."""
    whole = (0, 0, spec.width, spec.height)
    boxes = signal.regions().get("subject")
    if boxes is None:
        return whole
    boxes = boxes[signal.present()]
    x0, y0 = boxes[:, :2].amin(0).tolist()
    x1, y1 = boxes[:, 2:].amax(0).tolist()
    margin = 0.12 * (y1 - y0)
    left = max(0, int((x0 - margin) // 16 * 16))
    top = max(0, int((y0 - margin) // 16 * 16))
    right = min(spec.width, int(-(-(x1 + margin) // 16) * 16))
    bottom = min(spec.height, int(-(-(y1 + margin) // 16) * 16))
    if (right - left) * (bottom - top) > 0.85 * spec.width * spec.height:
        return whole
    return (left, top, right, bottom)


def split(present: Tensor, pts: Tensor) -> tuple[Tensor, slice]:
    """Training frames and a held-out tail of consecutive frames, apart by GAP_SECONDS."""
    usable = present.nonzero()[:, 0]
    few, many = HELD_OUT_FRAMES
    wanted = min(max(few, round(HELD_OUT_SHARE * len(usable))), many)
    end = int(usable[-1]) + 1
    begin = end
    while begin > 0 and present[begin - 1] and end - begin < wanted:
        begin -= 1
    training = present.clone()
    training[pts > float(pts[begin]) - GAP_SECONDS] = False
    if int(training.sum()) < MIN_USABLE_FRAMES // 2:
        training = present.clone()
        training[begin:] = False
    return training, slice(begin, end)
