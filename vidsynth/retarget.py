"""Source -> target: the source's motion, moved and scaled into what the target's training saw.

Bodies are `retarget_body`'s, faces `retarget_face`'s; both look at the whole source before they
move its first frame, draw no random numbers and drop no frame. Label maps are checked and resized
here, and here it is told which frames go beyond the target's training.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from vidsynth.conditioning import VOID, Conditioning, FaceSequence, LabelMaps, PoseSequence
from vidsynth.errors import BadOption, BadSubject, NoSubjectFound, UnsupportedVideo
from vidsynth.options import build
from vidsynth.retarget_body import BodyRetarget, retarget_body, summarise_body
from vidsynth.retarget_face import FaceRetarget, retarget_face, summarise_face, unfamiliar
from vidsynth.several import Several

__all__ = [
    "BodyRetarget",
    "FaceRetarget",
    "RangeReport",
    "Retargeted",
    "range_report",
    "retarget",
    "summarise",
]

# T frames, F features

Options = BodyRetarget | FaceRetarget
AnyOptions = TypeVar("AnyOptions", BodyRetarget, FaceRetarget)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RangeReport:
    """Which frames of the retargeted source the target's training does not cover."""

    distance: Tensor
    """(T,) float32: how far the nearest training frame is, in units of how far the training's own
    frames lie from those of another time; 0 where the source shows nobody."""
    reasons: Mapping[str, Tensor]
    """(T,) bool by what is new: "poses", "places", "expressions", "head turns", "sizes",
    "classes"."""

    @property
    def outside(self) -> Tensor:
        """(T,) bool: frames outside for any reason."""
        none = torch.zeros(len(self.distance), dtype=torch.bool)
        return torch.stack([none, *self.reasons.values()]).any(dim=0)

    @property
    def farthest(self) -> Tensor:
        """(T,) bool: the outside frames to look at first. All of them while they are few; of many,
        the quarter that is least like anything in the training."""
        outside = self.outside
        if int(outside.sum()) <= len(outside) // 2:
            return outside
        return outside & (self.distance >= self.distance[outside].quantile(0.75))

    def sentence(self, pts: Tensor) -> str:
        """For the user: "18 of 300 frames ask for poses the target never showed: 4.2-4.8 s";
        empty when there is nothing to tell. `pts`: (T,) seconds."""
        count, total = int(self.outside.sum()), len(self.distance)
        if not count:
            return ""
        nouns = [noun for noun, frames in self.reasons.items() if frames.any()]
        what = ", ".join(nouns[:-1]) + " and " + nouns[-1] if len(nouns) > 1 else nouns[0]
        spans = _spans(pts, self.farthest)
        longest = sorted(spans, key=lambda s: s[0] - s[1])[:4]
        texts = [_span_text(*span) for span in spans if span in longest]
        more = f" and {len(spans) - 4} more" if len(spans) > 4 else ""
        when = ", ".join(texts)
        told = f"{count} of {total} frames ask for {what} the target never showed"
        if count <= total // 2:
            return f"{told}: {when} s{more}"
        return (
            f"{told}, the farthest from them {when} s{more}; a target filmed in more of them "
            "would look better"
        )


def _spans(pts: Tensor, frames: Tensor, *, join: float = 0.5) -> list[tuple[float, float]]:
    """First and last second of each run of `frames` (T,); runs nearer than `join` seconds are
    one."""
    spans: list[tuple[float, float]] = []
    for second in pts[frames].tolist():
        if spans and second - spans[-1][1] < join:
            spans[-1] = (spans[-1][0], second)
        else:
            spans.append((second, second))
    return spans


def _span_text(start: float, end: float) -> str:
    first, last = f"{start:.1f}", f"{end:.1f}"
    return first if first == last else f"{first}-{last}"


@dataclass(frozen=True, slots=True, eq=False)
class Retargeted:
    """What `retarget` gives."""

    sequence: Conditioning
    """As long as the source, in pixels of the target's frame."""
    report: RangeReport


def summarise(sequence: Conditioning) -> dict[str, Any]:
    """What a Subject keeps of its training sequence: JSON-able, about 200 kB.

    Raises:
        NoSubjectFound: nobody is seen in the whole sequence.
    """
    if isinstance(sequence, Several):
        return summarise(sequence.lead) | {
            "kind": sequence.kind,
            "members": [summarise(member) for member in sequence.members],
        }
    summary = sequence.summarise()
    if not isinstance(sequence, (PoseSequence, FaceSequence)):
        return summary
    seen = sequence[sequence.present().nonzero()[:, 0]]
    if not len(seen):
        raise NoSubjectFound(
            f"the target's {sequence.kind} was seen in none of its {len(sequence)} frames; "
            "use a clip that shows it clearly"
        )
    if isinstance(sequence, PoseSequence):
        summary |= summarise_body(sequence)
    else:
        summary |= summarise_face(sequence)
    return summary | {"bank": _make_bank(_comparable(seen).features())}


def retarget(
    source: Conditioning,
    target_summary: Mapping[str, Any],
    options: Options | Mapping[str, Any] | None = None,
    *,
    rest: Conditioning | None = None,
) -> Retargeted:
    """The source's motion as the target would do it.

    Args:
        source: the whole source; kinds other than bodies, faces and labels are only resized.
        target_summary: what `summarise` gave for the target's training sequence.
        options: BodyRetarget for a PoseSequence, FaceRetarget for a FaceSequence; or a mapping of
            some of its fields, checked here; None for the defaults.
        rest: the target's own motion in pixels of its frame, which gives what the options' mode
            does not take from the source; None gives a face at rest. Of faces only.

    Returns:
        A sequence with the source's frames one for one, in pixels of the target's frame. Frames
        in which the source shows nobody stay so.

    Raises:
        BadSubject: the summary is of another kind of conditioning, or incomplete.
        UnsupportedVideo: label maps of another shape, with other classes, or without instances
            (or with them) where the target has them (or not); maps of any kind of another shape.
        NoSubjectFound: the source shows nobody, or no part that the target shows too.
        UnknownName, BadOption: a mapping with an option that does not exist, or a bad value.
    """
    if target_summary.get("kind") != source.kind:
        raise BadSubject(
            f"the subject was trained on {target_summary.get('kind')!r} conditioning and the "
            f"source carries {source.kind!r}; extract the source with the subject's own extractor"
        )
    if isinstance(source, Several):
        return _several(source, target_summary, options, rest)
    for key in ("size", *_needed(source)):
        if key not in target_summary:
            raise BadSubject(
                f"the subject's summary lacks {key!r}; train the subject again with this version"
            )
    if not isinstance(source, (PoseSequence, FaceSequence)):
        if isinstance(options, Mapping):
            check_options(type(source), options)
        if isinstance(source, LabelMaps):
            return _fit_labels(source, target_summary)
        return _fit_size(source, target_summary)
    if not source.present().any():
        raise NoSubjectFound(
            f"the source's {source.kind} was seen in none of its {len(source)} frames; "
            "use a clip that shows it clearly"
        )
    if isinstance(source, PoseSequence):
        moved, reasons = retarget_body(source, target_summary, _checked(BodyRetarget, options))
    else:
        own = rest if isinstance(rest, FaceSequence) else None
        chosen = _checked(FaceRetarget, options)
        moved, reasons = retarget_face(source, target_summary, chosen, rest=own)
    return Retargeted(moved, _range_report(moved, reasons, target_summary))


def _several(
    source: Several,
    target_summary: Mapping[str, Any],
    options: Options | Mapping[str, Any] | None,
    rest: Conditioning | None,
) -> Retargeted:
    """Each member as it would be alone; the options are the first one's, and so is the report."""
    known = target_summary.get("members", ())
    if len(known) != len(source.members):
        raise BadSubject(
            f"the subject's summary is of {len(known)} kinds of conditioning and the source has "
            f"{len(source.members)}; train the subject again"
        )
    rests = rest.members if isinstance(rest, Several) else [None] * len(source.members)
    told: list[Any] = [options, *[None] * (len(source.members) - 1)]
    moved = [
        retarget(member, summary, chosen, rest=own)
        for member, summary, chosen, own in zip(source.members, known, told, rests, strict=True)
    ]
    reasons = {name: rows for made in reversed(moved) for name, rows in made.report.reasons.items()}
    sequence = replace(source, members=tuple(made.sequence for made in moved))
    return Retargeted(sequence, replace(moved[0].report, reasons=reasons))


def _needed(source: Conditioning) -> tuple[str, ...]:
    """Of a summary, beside the size."""
    if isinstance(source, PoseSequence):
        return "bank", "stances", "overhang"
    if isinstance(source, FaceSequence):
        return "bank", "neutral", "ranges"
    return ("num_classes", "classes", "instances") if isinstance(source, LabelMaps) else ()


def range_report(face: FaceSequence, target_summary: Mapping[str, Any]) -> RangeReport:
    """Which frames of a face that is the target's already are new to its training."""
    return _range_report(face, unfamiliar(face, target_summary), target_summary)


def _range_report(
    moved: PoseSequence | FaceSequence, reasons: dict[str, Tensor], summary: Mapping[str, Any]
) -> RangeReport:
    """With the frames that are unlike all of the training."""
    body = isinstance(moved, PoseSequence)
    distance = _bank_distance(_comparable(moved).features(), summary["bank"])
    here = moved.present()
    what = "poses" if body else "expressions"
    unlike = {what: reasons.pop(what, torch.zeros_like(here)) | (distance > _UNLIKE)}
    reasons = {noun: frames & here for noun, frames in (unlike | reasons).items()}
    return RangeReport(distance=distance * here, reasons=reasons)


def _fit_size(source: Conditioning, target_summary: Mapping[str, Any]) -> Retargeted:
    """Maps of another package's kind, at the target's size."""
    size = tuple(target_summary["size"])
    if source.size != size:
        refuse_another_shape(source.size, size, f"the source's {source.kind} maps", "the subject")
        source = source.rescale(*size)
    return Retargeted(source, RangeReport(distance=torch.zeros(len(source)), reasons={}))


def _fit_labels(source: LabelMaps, target_summary: Mapping[str, Any]) -> Retargeted:
    """The source's maps at the target's size, if they are of the target's sort."""
    height, width = target_summary["size"]
    known, wants_instances = target_summary["num_classes"], target_summary["instances"]
    here = source.labels[source.labels != VOID]
    if here.numel() and int(here.max()) >= known:
        frame = int((here.max() == source.labels).flatten(1).any(dim=1).nonzero()[0])
        raise UnsupportedVideo(
            f"frame {frame} of the source has the label id {int(here.max())}, and the subject "
            f"knows the ids 0 to {known - 1}; correct that map, or train a subject with "
            "-s extractor.classes"
        )
    if wants_instances and source.instances is None:
        raise UnsupportedVideo(
            "the subject was trained with instance maps and the source has none; name them with "
            "--instances"
        )
    if source.instances is not None and not wants_instances:
        raise UnsupportedVideo(
            "the subject was trained without instance maps; leave --instances out"
        )
    refuse_another_shape(source.size, (height, width), "the source's label maps", "the subject")
    seen = torch.tensor(target_summary["classes"], dtype=torch.uint8)
    strange = ~torch.isin(source.labels, seen) & (source.labels != VOID)
    reasons = {"classes": strange.flatten(1).any(dim=1)}
    fitted = replace(source, num_classes=known).rescale(height, width)
    return Retargeted(fitted, RangeReport(distance=torch.zeros(len(source)), reasons=reasons))


def refuse_another_shape(
    size: tuple[int, int], other: tuple[int, int], what: str, than: str
) -> None:
    """Raises UnsupportedVideo when (height, width) is no enlargement of `other`, give or take a
    pixel."""
    (height, width), (h, w) = size, other
    if abs(width * h - w * height) > max(height, h):
        raise UnsupportedVideo(
            f"{what} have another shape than {than}: {width / height:.3g} times as wide as high, "
            f"not {w / h:.3g} times; give maps of the same picture, uncropped"
        )


def check_options(kind: type[Conditioning], options: Mapping[str, Any]) -> None:
    """Raises what `retarget` would for these options, before there is a source."""
    if issubclass(kind, Several) and kind.kinds:
        check_options(kind.kinds[0], options)
    elif issubclass(kind, PoseSequence):
        _checked(BodyRetarget, options)
    elif issubclass(kind, FaceSequence):
        _checked(FaceRetarget, options)
    elif options:
        raise BadOption(f"{kind.kind} conditioning is not retargeted; leave retarget.* out")


def _checked(cls: type[AnyOptions], options: Options | Mapping[str, Any] | None) -> AnyOptions:
    if options is None or isinstance(options, Mapping):
        return build(cls, options or {}, where="retarget")
    if not isinstance(options, cls):
        raise TypeError(f"this source takes {cls.__name__}; got {type(options).__name__}")
    return options


# How unlike the training a frame is

_UNLIKE = 1.5  # times the training's own spread
_BANK_FRAMES = 4_000  # of a long clip, every second (third...) frame is looked at
_BANK_NUMBERS = 70_000
_GAP = 25  # frames: nearer in time, two frames are almost the same


def _comparable(sequence: PoseSequence | FaceSequence) -> PoseSequence | FaceSequence:
    """Joints outside the picture are drawn for nobody, so they must not count as seen."""
    if isinstance(sequence, FaceSequence):
        return sequence
    height, width = sequence.frame_size
    x, y, visibility = sequence.keypoints.unbind(-1)
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return replace(sequence, keypoints=torch.stack([x, y, visibility * inside], dim=-1))


def _make_bank(features_TF: Tensor) -> dict[str, Any]:
    """A few training frames that cover all others, and how far the others are from them.

    The spread leaves out what is near in time, so it tells how far a frame never trained on may
    be expected to lie when the motion is of the same sort.
    """
    step = 1 + len(features_TF) // _BANK_FRAMES
    features = features_TF[::step].double()
    wanted = min(len(features), 512, max(64, _BANK_NUMBERS // features.shape[1]))
    chosen = _farthest_points(features, wanted)
    bank = features[chosen].half()
    distances = torch.cdist(features, bank.double())
    gap = min(_GAP // step, len(features) // 4)
    near = (torch.arange(len(features))[:, None] - chosen).abs() <= gap
    apart = distances.masked_fill(near, torch.inf).amin(dim=1)
    apart = apart[apart.isfinite()]
    spread = float(apart.quantile(0.99)) if len(apart) else 0.0
    # A subject that hardly moves must not make the tracker's noise new, nor one that never does
    # the same thing twice make everything known.
    size = float(features.norm(dim=1).median())
    spread = min(max(spread, 0.05 * size), 0.15 * size)
    return {
        "rows": len(bank),
        "columns": bank.shape[1],
        "float16": base64.b64encode(bank.numpy().tobytes()).decode(),
        "spread": max(spread, 1e-6),
    }


def _farthest_points(features: Tensor, count: int) -> Tensor:
    """Indices of `count` rows, each the farthest from those before: (count,) int64."""
    chosen = torch.zeros(count, dtype=torch.long)
    nearest = torch.full((len(features),), torch.inf, dtype=features.dtype)
    for i in range(1, count):
        last = features[chosen[i - 1]]
        nearest = torch.minimum(nearest, (features - last).square().sum(dim=1))
        chosen[i] = nearest.argmax()
    return chosen


def _bank_distance(features_TF: Tensor, bank: Mapping[str, Any]) -> Tensor:
    """(T,) float32: distance of each row to the nearest of the bank, in spreads."""
    raw = bytearray(base64.b64decode(bank["float16"]))
    rows = torch.frombuffer(raw, dtype=torch.float16).reshape(bank["rows"], bank["columns"])
    if features_TF.shape[1] != rows.shape[1]:
        raise BadSubject(
            f"the subject's frames are described by {rows.shape[1]} numbers and the source's by "
            f"{features_TF.shape[1]}; train the subject again with this version"
        )
    return torch.cdist(features_TF.double(), rows.double()).amin(dim=1).div(bank["spread"]).float()
