"""The checkpoint of a training: where it stands, kept so that no end of the process harms it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth.checksums import checksum
from vidsynth.errors import BadSubject
from vidsynth.files import writing
from vidsynth.objectives import Objective
from vidsynth.report import Reporter

STATE, PREVIOUS, DAMAGED = "state.pt", "state.previous.pt", "state.damaged.pt"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to train, counted over all sessions of a subject: exactly one of the two."""

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("give a budget in seconds or in steps, not both")

    def progress(self, run: Run) -> float:
        """How much of it is used, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, run.step / max(1, self.steps))
        return min(1.0, run.seconds / max(1e-9, self.seconds or 0.0))

    def allows(self, run: Run) -> bool:
        if self.steps is not None:
            return run.step < self.steps
        assert self.seconds is not None
        return run.seconds < self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a training stands."""

    step: int = 0
    seconds: float = 0.0
    rollbacks: int = 0
    """Times that training had come apart; each halves the learning rate."""
    scores: tuple[Mapping[str, float], ...] = ()
    watch: Mapping[str, float] = field(default_factory=dict)
    """What `vidsynth.watching` remembers."""


def has_state(folder: Path) -> bool:
    """Whether a training was begun there."""
    return (folder / STATE).exists() or (folder / PREVIOUS).exists()


def save_state(folder: Path, objective: Objective, ema: Mapping[str, Tensor], run: Run) -> None:
    """Write the checkpoint: whole, or not at all. The one before is kept beside it."""
    state = {
        "format": FORMAT,
        "step": run.step,
        "seconds": run.seconds,
        "rollbacks": run.rollbacks,
        "scores": [dict(s) for s in run.scores],
        "watch": dict(run.watch),
        "modules": {name: m.state_dict() for name, m in modules_of(objective).items()},
        "optimizers": {p.name: p.optimizer.state_dict() for p in objective.phases},
        "ema": dict(ema),
        "objective": objective.state(),
    }
    state["checksum"] = checksum(state)
    # Through a file of Python's, whose errors say what the disk said.
    with (
        writing(folder / STATE, keep=folder / PREVIOUS) as temporary,
        temporary.open("wb") as file,
    ):
        torch.save(state, file)


def load_state(
    folder: Path,
    objective: Objective,
    ema: dict[str, Tensor],
    budget: Budget,
    device: torch.device,
    *,
    reporter: Reporter | None = None,
) -> Run:
    """Take a checkpoint back into `objective` and `ema`.

    Where the last one is damaged it is set aside, which `reporter` is told, and the one before
    serves. Raises BadSubject: that one is damaged too, or it is of other options.
    """
    path = folder / STATE
    try:
        state = _read_state(path, device)
    except _Damaged as error:
        if not (folder / PREVIOUS).exists():
            raise _useless(path, error) from error
        try:
            state = _read_state(folder / PREVIOUS, device)
        except _Damaged:
            raise _useless(path, error) from error
        if path.exists():
            os.replace(path, folder / DAMAGED)
            (reporter or Reporter()).warn(
                f"{path} is damaged ({error}) and was set aside as {DAMAGED}; training goes on "
                f"from the checkpoint before it, at step {state['step']}"
            )
        path = folder / PREVIOUS
    run = Run(
        step=state["step"],
        seconds=state["seconds"],
        rollbacks=state["rollbacks"],
        scores=tuple(state["scores"]),
        watch=state.get("watch", {}),
    )
    objective.load_state(state["objective"])
    objective.at_progress(budget.progress(run))
    try:
        for name, module in modules_of(objective).items():
            module.load_state_dict(state["modules"][name])
        for phase in objective.phases:
            phase.optimizer.load_state_dict(state["optimizers"][phase.name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise BadSubject(
            f"{path} does not fit the options asked for; train into another folder, or with the "
            "options it was made with"
        ) from error
    for name, value in state["ema"].items():
        ema[name].copy_(value)
    return run


class _Damaged(Exception):
    """A checkpoint that is not what was written."""


def _read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint as it was written. Raises _Damaged, and BadSubject for a newer one."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        newer, written = state["format"] > FORMAT, state.pop("checksum", None)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _Damaged(type(error).__name__) from error
    if newer:
        raise BadSubject(
            f"{path} was made by a newer vidsynth; upgrade with pip install -U vidsynth"
        )
    if written is not None and written != checksum(state):
        raise _Damaged("its checksum is wrong")
    return state


def _useless(path: Path, error: Exception) -> BadSubject:
    return BadSubject(
        f"{path} is damaged ({error}); delete the folder {path.parent} to train on from the "
        "stored weights' options anew"
    )


def modules_of(objective: Objective) -> dict[str, torch.nn.Module]:
    """What an objective trains, by the names of its phases."""
    return {phase.name: phase.module for phase in objective.phases}


def is_finite(objective: Objective) -> bool:
    """Whether every weight that it trains is a number: a finite loss can have another gradient."""
    values = (v for m in modules_of(objective).values() for v in m.parameters())
    return all(bool(torch.isfinite(value).all()) for value in values)
