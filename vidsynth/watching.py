"""Whether an adversarial training is still alive, from its losses alone.

A discriminator that tells real from made without effort has no gradient left to teach with
(Arjovsky and Bottou 2017, "Towards Principled Methods for Training Generative Adversarial
Networks"); a generator whose losses rise far above where they began has come apart. Both show as
levels that stay, not as single steps.

What is remembered is a mapping of numbers that goes into the checkpoint, so that a resumed run
judges as an undisturbed one would.
"""

from __future__ import annotations

from collections.abc import Mapping

SMOOTHING = 0.95
"""Of the level of a phase's losses, per step."""
SETTLING = 20
"""Steps until that level is where a phase begins from."""
VANISHED = 1e-4
"""Of where it began: a discriminator's losses below this teach nothing."""
RISEN = 4.0
"""Times their lowest level, and above where they began: a generator's losses have come apart."""
FLOOR = 0.5
"""Of the level at which the discriminators' losses began: the least that a generator's lowest level
counts as. An adversarial loss may have no zero (a hinge's has none), so that times say nothing."""
PATIENCE = 200
"""Steps that either must last."""

Watch = Mapping[str, float]


def watched(before: Watch, losses: Mapping[str, float], generator: str) -> dict[str, float]:
    """What is remembered after one more step.

    Args:
        before: of the steps so far; empty for none.
        losses: finite, by "phase/name".
        generator: the phase that trains it; the others are taken for discriminators.
    """
    after = dict(before)
    phases = list(dict.fromkeys(name.split("/")[0] for name in losses))
    for phase in phases:
        terms = [value for name, value in losses.items() if name.split("/")[0] == phase]
        now, known = sum(terms), f"{phase}/terms"
        if after.get(known) != len(terms):  # a term joined or left: levels begin anew
            after |= {known: len(terms), f"{phase}/steps": 0, f"{phase}/streak": 0}
            after |= dict.fromkeys((f"{phase}/{n}" for n in ("level", "start", "lowest")), now)
        level = SMOOTHING * after[f"{phase}/level"] + (1 - SMOOTHING) * now
        steps = after[f"{phase}/steps"] + 1
        after |= {f"{phase}/level": level, f"{phase}/steps": steps}
        if steps <= SETTLING:
            after |= {f"{phase}/start": level, f"{phase}/lowest": level}
            continue
        lowest = min(after[f"{phase}/lowest"], level)
        start = after[f"{phase}/start"]
        if phase == generator:
            judged = sum(before.get(f"{p}/start", 0.0) for p in phases if p != generator)
            bad = start > 0 and level > 1.5 * start and level > RISEN * max(lowest, FLOOR * judged)
        else:
            bad = start > 0 and level < VANISHED * start
        streak = after[f"{phase}/streak"] + 1 if bad else 0
        after |= {f"{phase}/lowest": lowest, f"{phase}/streak": streak}
    return after


def is_suspicious(watch: Watch) -> bool:
    """Whether something is wrong now, though perhaps not for long: no time to save anything."""
    return any(value > 0 for name, value in watch.items() if name.endswith("/streak"))


def collapse(watch: Watch, generator: str) -> str | None:
    """What has come apart, as the beginning of a sentence; None while all is well."""
    for name, value in watch.items():
        phase, what = name.split("/")
        if what != "streak" or value < PATIENCE:
            continue
        if phase == generator:
            level, lowest = watch[f"{phase}/level"], watch[f"{phase}/lowest"]
            return (
                f"the generator collapsed: its losses ({phase}) rose to {level:.3g} from "
                f"{lowest:.3g}"
            )
        return (
            f"the discriminator collapsed: its losses ({phase}) vanished, so that it teaches "
            "nothing any more"
        )
    return None
