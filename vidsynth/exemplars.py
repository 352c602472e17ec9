"""Which frames of the subject's own video stand in for a frame that is to be made.

A gallery is a small set of training frames that covers what the subject was seen doing. For a
motion, each slot of exemplars follows a path through the gallery that trades likeness against
switching, found over the whole film at once (Viterbi 1967), since every switch may show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidsynth import drawing
from vidsynth.conditioning import Conditioning
from vidsynth.correspondence import Warp
from vidsynth.errors import BadSubject
from vidsynth.files import writing
from vidsynth.following import Following

# N images of the gallery, T frames, K exemplars of a frame, D features, H, W pixels

IMAGES, SIGNAL = "exemplars.safetensors", "exemplars-signal.safetensors"

APART_SECONDS = 1.0
"""In training, an exemplar is at least so far from the frame that it stands in for."""
SWITCHING, PART_SWITCHING = 4.0, 1.0
"""What changing an exemplar costs, in median distances between neighbours in the gallery: one that
stands in for the whole subject, and one that does for parts of it."""
FADE_FRAMES = 3
"""Frames before and after a change over which an exemplar counts less."""
_AT_ONCE = 1 << 24
"""Numbers held while candidates are compared."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Exemplars(Conditioning):
    """Frames of the subject's own video, and how to bring them to each frame's pose."""

    kind: ClassVar[str] = "exemplars"
    per_frame: ClassVar[tuple[str, ...]] = ("chosen", "flow", "valid")

    images: Tensor
    """(N, C, H, W) uint8: the gallery, the same for every frame, as `Gallery.images`."""
    chosen: Tensor
    """(T, K) int64 in [0, N): which images stand in for each frame, the best first."""
    flow: Tensor
    """(T, K, 2, H, W) float32: x then y in pixels, as in `Warp`. One more, the last, where the
    frame made before is to be brought along too."""
    valid: Tensor
    """(T, K, 1, H, W) float32 in [0, 1]: as in `Warp`; falls where another image takes over. One
    more where `flow` has."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.images.shape[2], self.images.shape[3])

    def draw(self, height: int, width: int) -> Tensor:
        """How sure the first exemplar is, (T, 1, height, width)."""
        return drawing.resize((self.valid[:, 0].cpu() * 255).to(torch.uint8), height, width)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Gallery:
    """What a subject keeps of its video to paint from."""

    images: Tensor
    """(N, C, H, W) uint8: the generator's window, in colours; over a still background a fourth
    channel says how surely each pixel shows the subject (`plate.cut_out`)."""
    signal: Conditioning
    """N frames, in pixels of the window."""
    pts: Tensor
    """(N,) float64 seconds in the target."""
    following: Following | None = None
    """What else is known of how these images change with what is wanted."""
    outlines: Tensor | None = None
    """How far the parts of the subject reach (`Conditioning.outlines`)."""

    def recall(
        self,
        motion: Conditioning,
        plan: Plan,
        device: torch.device | str,
        *,
        before: Before | None = None,
    ) -> Exemplars:
        """The planned images of each frame of `motion` (T), and their warps to it; with `before`,
        how to bring along the frame made before it too."""
        frames, slots = plan.chosen.shape
        known = self.signal[plan.chosen.flatten()]
        wanted = motion[torch.arange(frames).repeat_interleave(slots)]
        warp = self._warp(known, wanted, device)
        flow = warp.flow_T2HW.unflatten(0, (frames, slots))
        valid = warp.valid_T1HW.unflatten(0, (frames, slots))
        valid = valid * plan.strength.to(valid)[:, :, None, None, None]
        if before is not None:
            onward = self._warp(before.signal, motion, device)
            seen = onward.valid_T1HW * before.made.to(valid)[:, None, None, None]
            flow = torch.cat([flow, onward.flow_T2HW[:, None]], dim=1)
            valid = torch.cat([valid, seen[:, None]], dim=1)
        return Exemplars(images=self.images, chosen=plan.chosen, flow=flow, valid=valid)

    def _warp(self, known: Conditioning, wanted: Conditioning, device: torch.device | str) -> Warp:
        how = {} if self.outlines is None else {"outlines": self.outlines}
        warp = known.warp_to(wanted, *self.images.shape[2:], device=device, **how)
        return self.following.corrected(warp, known, wanted) if self.following else warp

    def stray(self, plan: Plan, share: float) -> Plan:
        """The plan with so many of its choices replaced by any image, at random."""
        anything = torch.randint(len(self.images), plan.chosen.shape)
        strays = torch.rand(plan.chosen.shape) < share
        return Plan(torch.where(strays, anything, plan.chosen), plan.strength)

    def save(self, folder: Path) -> None:
        """Write two files into a subject's folder."""
        learnt = {} if self.following is None else self.following.tensors()
        if self.outlines is not None:
            learnt["outlines"] = self.outlines.contiguous()
        with writing(folder / IMAGES) as temporary:
            save_file(
                {"images": self.images.contiguous()} | learnt,
                temporary,
                {"pts": json.dumps(self.pts.tolist())},
            )
        with writing(folder / SIGNAL) as temporary:
            self.signal.save(temporary)

    @staticmethod
    def load(folder: Path, kind: type[Conditioning]) -> Gallery:
        """Read it back. Raises BadSubject."""
        try:
            with safe_open(folder / IMAGES, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                pts = torch.tensor(json.loads(file.metadata()["pts"]), dtype=torch.float64)
            images, following = tensors["images"], Following.of(tensors)
            signal = kind.load(folder / SIGNAL)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadSubject(
                f"the exemplars in {folder} are missing or damaged ({error}); train the subject "
                "again"
            ) from error
        return Gallery(
            images=images,
            signal=signal,
            pts=pts,
            following=following,
            outlines=tensors.get("outlines"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What each frame of a motion comes after."""

    signal: Conditioning
    """T frames: of the frame before."""
    made: Tensor
    """(T,) bool: false where none was made before, whatever `signal` says there."""

    @staticmethod
    def of(motion: Conditioning, index: Tensor) -> Before:
        """Of these frames (T,) of a motion that begins at its first."""
        return Before(motion[(index - 1).clamp_min(0)], index > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which images of a gallery each frame is made from."""

    chosen: Tensor
    """(T, K) int64."""
    strength: Tensor
    """(T, K) float32 in (0, 1]: how much each counts; less round a change."""

    def __getitem__(self, key: slice | Tensor) -> Plan:
        return Plan(self.chosen[key], self.strength[key])


def cover(features: Tensor, count: int) -> Tensor:
    """`count` of N rows (N, D) that leave no row far from all of them: sorted indices.

    The first is nearest to the mean; each next one is the farthest from those before (Gonzalez
    1985, "Clustering to minimize the maximum intercluster distance").
    """
    count = min(count, len(features))
    far = (features - features.mean(dim=0)).square().sum(dim=1)
    taken = [int(far.argmin())]
    far = (features - features[taken[0]]).square().sum(dim=1)
    for _ in range(count - 1):
        taken.append(int(far.argmax()))
        far = torch.minimum(far, (features - features[taken[-1]]).square().sum(dim=1))
    return torch.tensor(sorted(taken))


def plan(gallery: Gallery, motion: Conditioning, slots: int, *, at: Tensor | None = None) -> Plan:
    """Choose `slots` images for every frame of a motion, steadily in time.

    The first slot is most alike; each next one is most alike where those before are not, in the
    parts of the subject alone if it has any (`Conditioning.part_features`), so that one may show
    the eyes and another the mouth.

    Args:
        gallery: the images.
        motion: T frames.
        slots: K.
        at: (T,) seconds in the target, for frames of the target itself: images within
            APART_SECONDS are not taken, where there are others.
    """
    wanted, known = motion.features(), gallery.signal.features()
    parts, known_parts = motion.part_features(), gallery.signal.part_features()
    barred = torch.zeros(len(wanted), len(known), dtype=torch.bool)
    if at is not None:
        barred = (at[:, None] - gallery.pts).abs() < APART_SECONDS
        barred[barred.all(dim=1)] = False
    # Of the gallery, not of the motion: a part of a film is then made like the whole.
    price = SWITCHING * _spacing(known)
    left_TD: Tensor | None = None
    chosen: list[Tensor] = []
    for _ in range(min(slots, len(known))):
        cost_TN = _costs(wanted, known, left_TD)
        for taken in chosen:
            cost_TN[torch.arange(len(wanted)), taken] = torch.inf
        cost_TN[barred] = torch.inf
        cost_TN[cost_TN.isinf().all(dim=1)] = 0.0  # a gallery smaller than the slots: any will do
        path = _steady_path(cost_TN, price)
        chosen.append(path)
        if left_TD is None and parts is not None and known_parts is not None:
            wanted, known, price = parts, known_parts, PART_SWITCHING * _spacing(known_parts)
        unlike_TD = (wanted - known[path]).square()
        left_TD = unlike_TD if left_TD is None else torch.minimum(left_TD, unlike_TD)
    while len(chosen) < slots:
        chosen.append(chosen[-1])
    return Plan(torch.stack(chosen, dim=1), torch.stack([_fades(c) for c in chosen], dim=1))


def _costs(wanted_TD: Tensor, known_ND: Tensor, left_TD: Tensor | None) -> Tensor:
    """(T, N) squared distances; with `left_TD`, what each image would leave of those."""
    if left_TD is None:
        return torch.cdist(wanted_TD, known_ND).square()
    step = max(1, _AT_ONCE // max(1, known_ND.numel()))
    costs = []
    for wanted, left in zip(wanted_TD.split(step), left_TD.split(step), strict=True):
        apart_TND = (wanted[:, None] - known_ND).square()
        costs.append(torch.minimum(apart_TND, left[:, None]).sum(dim=2))
    return torch.cat(costs)


def _spacing(features: Tensor) -> float:
    """Median squared distance of a row (N, D) to the nearest other one."""
    if len(features) < 2:
        return 0.0
    apart = torch.cdist(features, features).square()
    return float(apart.fill_diagonal_(torch.inf).amin(dim=1).median())


def _steady_path(cost_TN: Tensor, price: float) -> Tensor:
    """(T,) indices of the path of least cost, each change costing `price`."""
    total, back = cost_TN[0], []
    for cost_N in cost_TN[1:]:
        cheapest = total.argmin()
        changed = total[cheapest] + price
        change = total > changed
        back.append(torch.where(change, cheapest, torch.arange(len(total))))
        total = torch.where(change, changed, total) + cost_N
    path = [total.argmin()]
    for pointers in reversed(back):
        path.append(pointers[path[-1]])
    return torch.stack(path[::-1])


def _fades(chosen_T: Tensor) -> Tensor:
    """(T,) float32: 1, and down to a half within FADE_FRAMES of a change."""
    frame = torch.arange(len(chosen_T), dtype=torch.float32)
    changes = (chosen_T[1:] != chosen_T[:-1]).nonzero()[:, 0] + 0.5
    if not len(changes):
        return torch.ones(len(chosen_T))
    after = torch.searchsorted(changes, frame)
    before, next_one = changes[(after - 1).clamp_min(0)], changes[after.clamp(max=len(changes) - 1)]
    apart = torch.minimum((frame - before).abs(), (frame - next_one).abs())
    return (0.5 + 0.5 * (apart + 0.5) / (FADE_FRAMES + 1)).clamp(max=1.0)
