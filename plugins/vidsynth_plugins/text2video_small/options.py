"""Every setting of the small text-to-video model, in frozen values."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = 8
"""Of channels, that are normalised together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallOptions:
    """The defaults are those of the model that comes with vidsynth.

    Attributes:
        num_frames: length of the clips that are learnt; each moment of a longer film is made behind
            as many frames as there is room for.
        stride: frames that are made at a time, a moment.
        patch: pixels each way of a picture's cell.
        width: channels of the network where it is finest, twice as many at each level below.
        levels: each half as fine as the one above.
        blocks: of two convolutions at each level each way, and of attention at the coarsest.
        heads: of the attention.
        text_width: numbers that stand for a word, in the text encoder of its own.
        text_layers: of that encoder.
        encoder: a text encoder plugin instead; empty for its own, which learns along.
        start: a folder of such a model to go on from, or "embedded" for the one that comes with
            vidsynth; empty begins anew.
        lora: rank of the small matrices that are learnt beside the attention's, which stay as they
            are (with `start`); 0 learns everything.
        untold: share of the training in which the text is withheld, for guidance.
        learning_rate: of AdamW, per step.
        decay_from: share of the training after which the learning rate falls linearly to 0.
        steps: of sampling each moment of `stride` frames; each step calls the network twice.
        guidance: how much more than by itself the text counts; 1 for no more.
        negative: what is not wanted, in the words that it knows.
    """

    num_frames: int = 12
    stride: int = 3
    patch: int = 2
    width: int = 96
    levels: int = 2
    blocks: int = 2
    heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    encoder: str = ""
    start: str = ""
    lora: int = 0
    untold: float = 0.1
    learning_rate: float = 1e-3
    decay_from: float = 0.6
    steps: int = 16
    guidance: float = 2.5
    negative: str = ""

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "patch", "levels", "blocks", "heads", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name, of in (("width", GROUPS), ("text_width", self.heads)):
            width = getattr(self, name)
            if width < 1 or width % of or width % self.heads:
                raise ValueError(f"{name} must be a multiple of {of} and of heads; got {width}")
        if self.num_frames % self.stride or self.num_frames < 2 * self.stride:
            raise ValueError(f"num_frames must be twice, three times... the stride ({self.stride})")
        if not 0 <= self.untold < 1:
            raise ValueError("untold must be at least 0 and below 1")
        if self.lora < 0 or (self.lora and not self.start):
            raise ValueError(
                'lora must be at least 0, and goes with start, like start = "embedded"'
            )
