"""Plugins as stages of a pipeline: each function here returns a Stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from time import perf_counter

import torch
from torch import Tensor

from vidsynth import drawing
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.devices import autocast
from vidsynth.errors import DeviceUnavailable, PluginError, VidsynthError
from vidsynth.exemplars import Before, Gallery, plan
from vidsynth.kept import KeptFrames
from vidsynth.kinds import Conditions, Extractor, Generator, Plugin, StagePlugin
from vidsynth.plate import BackgroundPlate
from vidsynth.portions import Portions, forget_cached
from vidsynth.steady import steadier
from vidsynth.stream import Chunk, Stage

# T frames, C channels, H, W pixels

CHUNK = 8
"""Frames per chunk: enough to batch a generator, few enough to keep every stage busy."""
_RNG = "rng state"


def named(name: str, stage: Stage) -> Stage:
    """The stage under the name that errors and reports use."""
    stage.name = name  # pyright: ignore[reportFunctionMemberAccess]
    return stage


def extracting(extractor: Extractor) -> Stage:
    """Adds the signal that `extractor` produces."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        held: list[Chunk] = []

        def clips() -> Iterator[Clip]:
            for chunk in chunks:
                assert chunk.clip is not None, "an extractor needs pictures"
                held.append(chunk)
                yield chunk.clip

        for signal in extractor.extract(clips()):
            _check_signal(extractor, signal, held)
            yield held.pop(0).with_signal(signal)
        _check_end(extractor, _starts(held), chunks)

    return named(f"extract by {type(extractor).__name__}", stage)


def _check_signal(extractor: Extractor, signal: Conditioning, held: Sequence[Chunk]) -> None:
    """Raises PluginError for what is not one conditioning of the next clip's length."""
    if not isinstance(signal, extractor.produces):
        raise _broken(extractor, f"{type(signal).__name__} instead of {extractor.produces.kind}")
    wanted = len(held[0]) if held else 0
    if {len(part) for part in signal.tensors()} != {wanted}:
        raise _broken(extractor, f"{len(signal)} frames for a clip of {wanted}")
    if not all(bool(torch.isfinite(part).all()) for part in signal.tensors()):
        raise _broken(extractor, "numbers that are none (NaN or infinite)")


def _check_clip(generator: Generator, clip: Clip, spec: VideoSpec, due: Chunk | None) -> None:
    """Raises PluginError for what is not one clip of the due chunk's length and of this size."""
    wanted = 0 if due is None else len(due)
    if not isinstance(clip, Clip):
        raise _broken(generator, f"{type(clip).__name__} instead of a clip")
    if len(clip) != wanted:
        raise _broken(generator, f"{len(clip)} frames for a chunk of {wanted}")
    if (clip.height, clip.width) != (spec.height, spec.width):
        raise _broken(
            generator,
            f"frames of {clip.width}x{clip.height} instead of {spec.width}x{spec.height}",
        )


def processing(plugin: StagePlugin) -> Stage:
    """A stage plugin, held to its contract: as many frames come out, at the same times."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        waiting: list[float] = []

        def noted() -> Iterator[Chunk]:
            for chunk in chunks:
                waiting.extend(chunk.pts.tolist())
                yield chunk

        for made in plugin.process(noted()):
            if not isinstance(made, Chunk):
                raise _broken(plugin, f"{type(made).__name__} instead of a chunk")
            if made.pts.tolist() != waiting[: len(made)]:
                raise _broken(plugin, "frames of other times than it took, or more of them")
            del waiting[: len(made)]
            yield made
        _check_end(plugin, waiting, chunks)

    return named(f"stage {type(plugin).__name__}", stage)


def _check_end(plugin: Plugin, waiting: Sequence[float], rest: Iterator[Chunk]) -> None:
    """Raises PluginError where frames were taken and not given, or never asked for."""
    chunk = None if waiting else next(rest, None)
    if waiting or chunk is not None:
        second = waiting[0] if chunk is None else float(chunk.pts[0])
        raise _broken(plugin, f"nothing from {second:.2f} s on")


def _starts(held: Sequence[Chunk]) -> list[float]:
    return [float(chunk.pts[0]) for chunk in held if len(chunk)]


def _broken(plugin: Plugin, what: str) -> PluginError:
    return PluginError(
        f"{type(plugin).__name__} gave {what}; that breaks the contract of its kind: report it to "
        "the plugin's author (vidsynth plugins check says more)"
    )


def conditioning_on(signal: Conditioning) -> Stage:
    """Replaces each chunk's signal of this kind by the next frames of `signal`.

    This is how retargeted motion enters the stream: retargeting looks at the whole source first.
    """

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        start = 0
        for chunk in chunks:
            yield chunk.with_signal(signal[start : start + len(chunk)])
            start += len(chunk)

    return named("condition", stage)


def over_plate(plate: Tensor) -> Stage:
    """Adds the still background (3, H, W) uint8 as a signal."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            index = torch.arange(len(chunk))
            yield chunk.with_signal(BackgroundPlate(image=plate, frame_index=index))

    return named("background", stage)


def recalling(
    gallery: Gallery,
    motion: Conditioning,
    conditions: Conditions,
    *,
    device: torch.device,
    skip: int = 0,
) -> Stage:
    """Adds, for each frame of `motion` but the first `skip`, exemplars of the gallery and their
    warps to it, as many and of what the conditions say."""
    chosen = plan(gallery, motion, conditions.exemplars)

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        start = 0
        for chunk in chunks:
            index = torch.arange(start, start + len(chunk))
            start += len(chunk)
            if start <= skip:
                yield chunk
                continue
            before = Before.of(motion, index) if conditions.carry else None
            with torch.inference_mode():
                found = gallery.recall(motion[index], chosen[index], device, before=before)
            yield chunk.with_signal(found)

    return named("recall", stage)


def generating(
    generator: Generator,
    spec: VideoSpec,
    *,
    seed: int,
    device: torch.device,
    kept: KeptFrames | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Stage:
    """Fills in the frames; those that are kept from an earlier rendering are not made again.

    Where the device runs out of memory the chunk, and those after it, are made in smaller portions,
    of which `warn` is told; raises DeviceUnavailable where that does not help.
    """

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        rng = torch.Generator().manual_seed(seed)
        making = _Making(generator, chunks, spec, rng, device, warn)
        if kept is not None and kept.num_frames:
            for frames in kept.clips():
                chunk = next(chunks)
                yield chunk.with_clip(Clip(frames, chunk.pts))
            making.memory = kept.memory
        while True:
            began = perf_counter()
            made = making.next()
            if made is None:
                return
            if kept is not None:
                assert made.clip is not None
                kept.add(made.clip.frames, making.memory, seconds=perf_counter() - began)
            yield made

    return named(f"generate by {type(generator).__name__}", stage)


class _Making:
    """A generator at work on the chunks of one film."""

    def __init__(
        self,
        generator: Generator,
        chunks: Iterator[Chunk],
        spec: VideoSpec,
        rng: torch.Generator,
        device: torch.device,
        warn: Callable[[str], None],
    ) -> None:
        self.generator, self.spec, self.rng, self.device = generator, spec, rng, device
        self.warn = warn
        self.memory: Mapping[str, Tensor] | None = {}
        """What going on behind the last frames takes, empty before the first; None if nobody can.
        """
        self._chunks, self._portions = chunks, Portions(chunks)
        self._clips: Iterator[Clip] | None = None

    def next(self) -> Chunk | None:
        """The next chunk with its frames; None behind the last.

        Raises PluginError, and DeviceUnavailable where memory does not suffice for one frame.
        """
        while True:
            clip, short = self._next_clip()
            if short:
                self._lessen(short)
                continue
            if clip is None:
                _check_end(self.generator, self._portions.starts(), self._chunks)
                return None
            _check_clip(self.generator, clip, self.spec, self._portions.due)
            made = self._portions.take(clip.to("cpu"))
            memory = self.generator.memory()
            self.memory = None if memory is None else {**memory, _RNG: self.rng.get_state()}
            if made is not None:
                return made

    def _next_clip(self) -> tuple[Clip | None, str]:
        """The next clip, or why there is no memory for it."""
        if self._clips is None:
            if self.memory:
                memory = dict(self.memory)
                self.rng.set_state(memory.pop(_RNG))
                self.generator.go_on(memory)
            self._clips = self.generator.generate(
                self._portions.hand_out(), self.spec, rng=self.rng
            )
        try:
            # Both contexts belong to the thread, so they are entered around each step.
            with torch.inference_mode(), autocast(self.device):
                return next(self._clips, None), ""
        except torch.OutOfMemoryError as error:
            if self._portions.ended_early:
                raise
            self._clips = None
            return None, str(error).split(".")[0] or "no more was to be had"

    def _lessen(self, reason: str) -> None:
        """Begin again behind the last frames that were made, with smaller portions."""
        second = next(iter(self._portions.starts()), 0.0)
        most = None if self.memory is None else self._portions.lessen()
        if most is None:
            raise DeviceUnavailable(
                f"{self.device} ran out of memory at {second:.2f} s ({reason}); close what else "
                "uses it, or choose a smaller --size or another --device"
            )
        if not self.memory:
            self.rng.manual_seed(self.rng.initial_seed())
        forget_cached(self.device)
        self.warn(
            f"{self.device} has not the memory for so many frames at once: going on from "
            f"{second:.2f} s with {most}"
        )


def steadying(steadiness: float) -> Stage:
    """Takes the tremble out of the frames, the more the nearer to 1 (see `vidsynth.steady`)."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        before: Tensor | None = None
        for chunk in chunks:
            assert chunk.clip is not None, "there must be frames to make steadier"
            frames = []
            for now in chunk.clip.frames:
                before = now if before is None else steadier(before, now, steadiness)
                frames.append(before)
            yield chunk.with_clip(Clip(torch.stack(frames), chunk.pts) if frames else chunk.clip)

    return named("steady", stage)


def compositing(plate: Tensor, window: tuple[int, int, int, int]) -> Stage:
    """Pastes each frame into the full-size plate (3, H, W) uint8 at `window` (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = window

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            assert chunk.clip is not None, "compositing needs pictures"
            frames = plate.expand(len(chunk), -1, -1, -1).clone()
            frames[:, :, y0:y1, x0:x1] = chunk.clip.frames
            yield chunk.with_clip(Clip(frames, chunk.pts))

    return named("composite", stage)


def beside(frames: Iterator[Clip], *, height: int) -> Stage:
    """Puts the next frames of another video, scaled to `height`, to the left of each frame."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            assert chunk.clip is not None, "side by side needs pictures"
            other = next(frames, None)
            if other is None or len(other) != len(chunk):
                raise VidsynthError(
                    "the source changed while it was rendered; run the command again"
                )
            width = round(other.width * height / other.height / 2) * 2
            left = drawing.resize(other.frames, height, width)
            yield chunk.with_clip(Clip(torch.cat([left, chunk.clip.frames], dim=3), chunk.pts))

    return named("side by side", stage)


def timeline(pts: Tensor, *, chunk: int = CHUNK) -> Iterator[Chunk]:
    """Empty chunks for these timestamps (T,): the source of a stream that starts from signals."""
    for start in range(0, len(pts), chunk):
        yield Chunk(pts[start : start + chunk])


def average_rate(pts: Tensor) -> Fraction:
    """Frames per second of (T,) timestamps; 25 for a single frame."""
    if len(pts) < 2:
        return Fraction(25)
    return Fraction((len(pts) - 1) / float(pts[-1] - pts[0])).limit_denominator(1001)


def clips_of(chunks: Iterator[Chunk]) -> Iterator[Clip]:
    """The pictures of a stream that carries them."""
    for chunk in chunks:
        assert chunk.clip is not None
        yield chunk.clip


def supplying(
    motion: Conditioning,
    generator: Generator,
    plate: Tensor | None,
    gallery: Gallery | None,
    *,
    device: torch.device,
    skip: int = 0,
) -> list[Stage]:
    """The stages that give a generator all it is conditioned on; arguments as of `rendering`, in
    pixels of the generator's window. The first `skip` frames are made already."""
    line = [conditioning_on(motion)]
    if gallery is not None:
        line.append(recalling(gallery, motion, generator.conditions, device=device, skip=skip))
    if plate is not None:
        line.append(over_plate(plate))
    return line


def rendering(
    motion: Conditioning,
    generator: Generator,
    spec: VideoSpec,
    window: tuple[int, int, int, int],
    plate: Tensor | None,
    gallery: Gallery | None,
    *,
    device: torch.device,
    seed: int = 0,
    steadiness: float = 0.0,
    kept: KeptFrames | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Stage]:
    """The stages that turn motion, in pixels of the whole output frame, into output frames.

    Args:
        motion: one entry per frame of the stream.
        generator: works on the window only.
        spec: of the window.
        window: x0, y0, x1, y1 in the output frame.
        plate: (3, height, width) uint8 still background of the output frame, or None when the
            window is the whole frame.
        gallery: what the generator paints from, or None.
        device: where to compute.
        seed: of what the generator draws at random.
        steadiness: in [0, 1], as of `steadying`.
        kept: frames of the window that an earlier rendering made of the same motion; those that
            are made now are added.
        warn: as of `generating`.
    """
    x0, y0, x1, y1 = window
    generator.expect(len(motion))
    inside = None if plate is None else plate[:, y0:y1, x0:x1]
    skip = 0 if kept is None else kept.num_frames
    line = supplying(motion.crop(window), generator, inside, gallery, device=device, skip=skip)
    line.append(generating(generator, spec, seed=seed, device=device, kept=kept, warn=warn))
    if steadiness:
        line.append(steadying(steadiness))
    if plate is not None:
        line.append(compositing(plate, window))
    return line
