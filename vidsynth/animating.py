"""The jobs around pose-driven animators: preparing what they take, and animating a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vidsynth import (
    __version__,
    animation,
    devices,
    drawing,
    loading,
    options,
    pictures,
    retarget,
    stages,
    stream,
    video,
)
from vidsynth.animation import Animation
from vidsynth.choosing import Settings, nested, resolved
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps, PoseSequence
from vidsynth.errors import BadOption, NoSubjectFound
from vidsynth.files import check_free, make_folder, writing
from vidsynth.kinds import Conditions
from vidsynth.outputs import check_outputs, settings_file
from vidsynth.provenance import as_metadata, consent_in, facts, sign_and_tell
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter
from vidsynth.stream import Chunk
from vidsynth.subject import PluginRef, build_extractor, write_picture
from vidsynth.tracking import track_as

# T frames, H, W pixels

Mode = Literal["animate", "replace"]
Part = tuple[float | None, float | None, Fraction | None]
"""Of a source: where it begins and ends in seconds, and the rate of a folder of pictures."""
ANIMATORS = ("wan-animate",)
"""What `vidsynth extract --for` knows."""
FILES = {"pose": "src_pose.mp4", "face": "src_face.mp4"}
REPLACING = {"background": "src_bg.mp4", "mask": "src_mask.mp4"}
REFERENCE = "src_ref.png"
"""As Wan-Animate's own preparation calls them."""


_OF_TRAINING = ("preset", "generator", "size", "budget", "steps", "subject", "person")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What an animator takes: of any length, since films are made as they are read."""

    source: Path
    part: Part
    pose: PoseSequence
    """T frames, in pixels of the source as it was tracked."""
    drawn: PoseSequence
    """The same as it shall be drawn: with the place and the proportions of the one on the picture.
    """
    reference: Tensor
    """(3, H, W) uint8 RGB of the films' size."""
    replacing: bool
    pts: Tensor
    """(T,) float64 seconds."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.reference.shape[1], self.reference.shape[2])

    def films(self) -> dict[str, Callable[[], Iterator[Tensor]]]:
        """What gives the frames, (t, C, H, W) uint8 for a few at a time, by field of Animation."""
        always = {"pose": self._skeletons, "face": self._faces}
        more = {"background": self._backgrounds, "mask": self._masks}
        return always | more if self.replacing else always

    def whole(self) -> Animation:
        """All of it at once, for an animator that takes it so."""
        held = {field: torch.cat(list(frames())) for field, frames in self.films().items()}
        return Animation(**held, reference=self.reference)

    def _skeletons(self) -> Iterator[Tensor]:
        for start in range(0, len(self.drawn), stages.CHUNK):
            some = self.drawn[start : start + stages.CHUNK]
            yield animation.draw_skeletons(some, *self.size)

    def _masks(self) -> Iterator[Tensor]:
        extractor = build_extractor(resolved("extractor", "labels", {}))
        spans: list[slice] = []

        def clips() -> Iterator[Clip]:
            for span, frames in self._pictures():
                spans.append(span)
                yield Clip(frames, self.pts[span])

        for people in extractor.extract(clips()):
            assert isinstance(people, LabelMaps)
            yield animation.person_masks(self.pose[spans.pop(0)], *self.size, people.labels)

    def _faces(self) -> Iterator[Tensor]:
        boxes = animation.face_boxes(self.pose)
        for span, frames in self._pictures():
            zoom = [frames.shape[3] / self.pose.size[1], frames.shape[2] / self.pose.size[0]]
            own = (boxes[span] * torch.tensor(2 * zoom)).round().long()
            yield animation.crop_faces(frames, own)

    def _backgrounds(self) -> Iterator[Tensor]:
        for (_, frames), masks in zip(self._pictures(), self._masks(), strict=True):
            yield drawing.resize(frames, *self.size) * (masks == 0)

    def _pictures(self) -> Iterator[tuple[slice, Tensor]]:
        """Frames of the source as they were filmed, and which they are."""
        start, end, fps = self.part
        done = 0
        for chunk in video.read_chunks(
            self.source, chunk=stages.CHUNK, start=start, end=end, fps=fps, note=lambda _: None
        ):
            assert chunk.clip is not None
            yield slice(done, done + len(chunk)), chunk.clip.frames.cpu()
            done += len(chunk)


def animates(recipe: str | Path | None) -> bool:
    """Whether a recipe animates a picture, with nothing to train."""
    if recipe is None:
        return False
    plugin: Any = loading.load("generator", load_recipe(recipe).generator)
    return Animation in plugin.accepts


def without_training(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `vidsynth transfer` for `animate`.

    Raises BadOption where one is set that means nothing where nothing is trained.
    """
    for name in _OF_TRAINING:
        if given[name] is not None:
            raise BadOption(
                f"--{name} is for recipes that train, and --recipe {given['recipe']} does not; "
                "leave it out (vidsynth plugins show wan_animate names what -s generator.* sets)"
            )
    if given["side_by_side"] or given["audio"] == "target":
        raise BadOption("--side-by-side and --audio target are for recipes that train; leave out")
    left_out = (*_OF_TRAINING, "side_by_side", "steadiness")
    return {name: value for name, value in given.items() if name not in left_out}


_OF_TRACKING = ("extractor", "preview", "person", "settings")


def without_tracking(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `vidsynth extract` for `extract_for`.

    Raises BadOption where one is set that does not go with an animator.
    """
    if given["preview"] is not None or given["person"] is not None or given["settings"]:
        raise BadOption("--preview, --person and -s do not go with --for; leave them out")
    return {name: value for name, value in given.items() if name not in _OF_TRACKING}


def without_animator(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `vidsynth extract` for `jobs.extract`.

    Raises BadOption where one is set that goes with --for only.
    """
    if given["reference"] is not None or given["mode"] != "animate":
        raise BadOption("--reference and --mode say what an animator takes; add --for wan-animate")
    return {k: v for k, v in given.items() if k not in ("animator", "reference", "mode")}


def prepare(
    source: str | Path,
    reference: str | Path | None,
    *,
    mode: Mode = "animate",
    area: int = animation.AREA,
    part: Part = (None, None, None),
    extractor: PluginRef | None = None,
    reporter: Reporter | None = None,
) -> Prepared:
    """Track the source and make what an animator takes of it.

    Args:
        source: the video that drives.
        reference: a picture, or a video whose first frame counts: who is to be seen. Without one
            the motion stays the source's own, and the source's first frame stands in for it.
        mode: "animate" moves the reference, in its own picture and with its own proportions;
            "replace" puts who is on it into the source's film.
        area: pixels of a frame at most.
        part: of the source.
        extractor: of bodies; by default `pose` with hands and face.
        reporter: told of progress.

    Raises:
        NoSubjectFound: nobody is seen in the source, or on the reference.
        BadOption: an impossible mode, or to replace by nobody.
    """
    source, reporter = Path(source), reporter or Reporter()
    if mode not in get_args(Mode):
        raise BadOption(f"mode = {mode!r} is none; choose {' or '.join(get_args(Mode))}")
    if mode == "replace" and reference is None:
        raise BadOption("to replace somebody takes a picture of who is to be seen; name one")
    ref = extractor or _whole_body()
    start, end, fps = part
    tracked = track_as(source, ref, start=start, end=end, fps=fps, reporter=reporter)
    pose = tracked.signal
    assert isinstance(pose, PoseSequence)
    spec = video.probe(source, fps=part[2]).spec
    picture = _picture(Path(reference)) if reference is not None else None
    size = animation.fitting_size(spec.height, spec.width, area=area)
    drawn = pose
    if picture is not None and mode == "animate":
        size = animation.fitting_size(picture.shape[1], picture.shape[2], area=area)
        drawn = _as_reference_would(pose, picture, Path(str(reference)), ref)
    if picture is None:
        picture = video.read_frames_at(source, [part[0] or 0.0]).frames[0]
    return Prepared(
        source=source,
        part=part,
        pose=pose,
        drawn=drawn,
        reference=animation.padded(picture, *size),
        replacing=mode == "replace",
        pts=tracked.pts,
    )


def extract_for(
    source: str | Path,
    folder: str | Path,
    *,
    animator: str,
    reference: str | Path | None = None,
    mode: Mode = "animate",
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    fps: float | None = None,
    reporter: Reporter | None = None,
) -> Prepared:
    """Write what an animator takes into a folder: videos with the source's timing, and the picture.

    Args:
        source: the video that drives.
        folder: made if need be.
        animator: one of ANIMATORS.
        reference, mode: as of `prepare`.
        start, end, overwrite, fps, reporter: as of `jobs.transfer`.

    Raises BadOption for an animator that is not known; else as `prepare`.
    """
    if animator not in ANIMATORS:
        raise BadOption(f"there is no animator {animator!r}; known: {', '.join(ANIMATORS)}")
    source, folder, reporter = Path(source), Path(folder), reporter or Reporter()
    part = start, end, pictures.rate_of(fps, (source,), reporter)
    names = {**FILES, **(REPLACING if mode == "replace" else {})}
    picture = [REFERENCE] if reference is not None else []
    make_folder(folder)
    for name in (*names.values(), *picture):
        check_free(folder / name, overwrite)
    made = prepare(source, reference, mode=mode, part=part, reporter=reporter)
    films = made.films()
    for field, name in names.items():
        with reporter.step(f"writing {name}", total=len(made.pts), unit="frames") as step:
            _write_film(folder / name, films[field](), made.pts, overwrite, step.update)
    if picture:
        write_picture(folder / REFERENCE, made.reference)
    height, width = made.size
    reporter.say(f"wrote {folder}: {len(made.pts)} frames of {width}x{height} for {animator}")
    return made


def animate(
    source: str | Path,
    reference: str | Path,
    output: str | Path,
    *,
    recipe: str | Path = "animate",
    audio: str = "source",
    start: float | None = None,
    end: float | None = None,
    device: str = "auto",
    seed: int = 0,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    consent: str | Path | None = None,
    fps: float | None = None,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Path:
    """Make the one on a picture move like the one in a video, with a pretrained animator.

    Arguments as of `jobs.transfer`, whose work this is with a recipe that animates; `consent` is
    told by the film.

    Raises:
        MissingWeights: the animator's model is not here; says its size, licence and place.
        VidsynthError: as of `prepare` and of the generator.
    """
    source, reference, output = Path(source), Path(reference), Path(output)
    reporter = reporter or Reporter()
    check_outputs(output, codec, overwrite, inputs=(source, reference))
    agreed = consent_in(consent)
    rate = pictures.rate_of(fps, (source,), reporter)
    info = video.probe(source, fps=rate)
    chosen = load_recipe(recipe).with_overrides(nested(settings))
    plugin: Any = loading.load("generator", chosen.generator)
    where = devices.choose(device)
    values = options.build(
        plugin.Options, {"device": device, **chosen.generator_options}, where="generator"
    )
    generator = plugin(values, conditions=Conditions(kinds=(Animation,), channels=0))
    generator.film()  # a model that is not here is told before the tracking
    made = prepare(
        source,
        reference,
        mode=getattr(values, "mode", "animate"),
        area=getattr(values, "area", animation.AREA),
        part=(start, end, rate),
        extractor=resolved("extractor", chosen.extractor, chosen.extractor_options),
        reporter=reporter,
    )
    height, width = made.size
    spec = VideoSpec(height=height, width=width, fps=stages.average_rate(made.pts))
    ref = PluginRef.of("generator", chosen.generator, values)
    told = facts(
        **({"consent": agreed} if agreed else {}),
        recipe=chosen.name,
        generator=f"{ref.name} ({ref.version})",
        source={"name": source.name, "hash": video.content_hash(source)},
        target={"name": reference.name, "hash": video.content_hash(reference)},
    )
    sound = source if audio == "source" and not source.is_dir() else None
    with reporter.step("animating", unit="steps") as step:
        generator.watch(lambda done, of: step.update(done, of=of))
        stream.run(
            stages.timeline(made.pts),
            [
                stages.conditioning_on(made.whole()),
                stages.generating(generator, spec, seed=seed, device=where),
            ],
            lambda chunks: video.write_video(
                output,
                chunks,
                fps=info.spec.fps,
                start=start or 0.0,
                audio=sound,
                audio_start=start or 0.0,
                audio_end=end,
                codec=codec,
                overwrite=overwrite,
                metadata=as_metadata(told) if provenance else None,
            ),
            prefetch=0,
        )
    sign_and_tell(output, told if provenance else None, certificate, reporter)
    with writing(settings_file(output)) as temporary:
        temporary.write_text(options.to_toml(_resolved(chosen.name, source, reference, values)))
    reporter.say(f"wrote {output}: {len(made.pts)} frames")
    return output


def _whole_body() -> PluginRef:
    return resolved("extractor", "pose", {"hands": True, "face": True})


def _picture(path: Path) -> Tensor:
    """(3, H, W) uint8: a picture, or the first frame of a video."""
    if path.suffix.lower() in pictures.SUFFIXES:
        frame, _ = pictures.decode(path)
        return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).contiguous()
    return video.read_frames_at(path, [0.0]).frames[0]


def _as_reference_would(
    pose: PoseSequence, picture: Tensor, name: Path, ref: PluginRef
) -> PoseSequence:
    """The motion with the place and the proportions of the one on the picture, in its pixels."""
    extractor = build_extractor(ref)
    still = Clip(picture[None], torch.zeros(1, dtype=torch.float64))
    (seen,) = extractor.extract(iter([still]))
    if not bool(seen.present().any()):
        raise NoSubjectFound(
            f"{name}: nobody was found on it; use a picture that shows a person clearly, from head "
            "to hips at least"
        )
    fitted = retarget.retarget(pose, retarget.summarise(seen), {"limbs": True})
    assert isinstance(fitted.sequence, PoseSequence)
    return fitted.sequence


def _write_film(
    path: Path,
    films: Iterator[Tensor],
    pts: Tensor,
    overwrite: bool,
    progress: Callable[[int], None],
) -> None:
    def chunks() -> Iterator[Chunk]:
        done = 0
        for frames in films:
            span = slice(done, done + len(frames))
            yield Chunk(pts[span], Clip(frames.expand(-1, 3, -1, -1).contiguous(), pts[span]))
            done += len(frames)
            progress(done)

    # Skeletons are lines of one pixel: nearly lossless.
    video.write_video(path, chunks(), fps=stages.average_rate(pts), crf=4, overwrite=overwrite)


def _resolved(recipe: str, source: Path, reference: Path, values: object) -> Mapping[str, Any]:
    return {
        "vidsynth": __version__,
        "recipe": recipe,
        "source": source.name,
        "target": reference.name,
        "generator": options.to_dict(values),
    }
