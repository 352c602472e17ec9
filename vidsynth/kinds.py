"""What plugin authors subclass. ABCs, so that a new optional method breaks no third party.

A plugin is found through the entry-point groups `vidsynth.extractors`, `vidsynth.generators`,
`vidsynth.discriminators`, `vidsynth.encoders`, `vidsynth.metrics` and `vidsynth.stages`; the group
name is the API version: within one, releases only add what has a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from vidsynth.classes import Noise
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning, Exemplars, TextEmbedding
from vidsynth.errors import BadOption, BadSubject, IncompatibleStages
from vidsynth.stream import Chunk

# B batch, T frames, C channels, H, W pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Nothing to choose."""


class Plugin(ABC):  # noqa: B024 - abstract are its kinds
    """Base of every kind: built from one frozen Options value."""

    Options: ClassVar[type] = NoOptions
    """A frozen, keyword-only stdlib dataclass; every field has a default and is documented with
    its unit in the dataclass docstring (`name: text` lines under "Attributes:")."""
    paper: ClassVar[str] = ""
    """The publication this implements, or an empty string."""
    weights_licence: ClassVar[str] = "none needed"
    """Licence of pretrained weights, when the plugin uses any."""
    checked: ClassVar[Mapping[str, Any]] = {}
    """How the conformance kit checks it: fields of `vidsynth.testing.Case`, like small options."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks that its method cannot pass by nature, and why."""

    def __init__(self, options: object | None = None) -> None:
        super().__init__()
        self.options = self.Options() if options is None else options
        if not isinstance(self.options, self.Options):
            raise TypeError(
                f"{type(self).__name__} takes {self.Options.__qualname__}; "
                f"got {type(options).__qualname__}"
            )


@dataclass(frozen=True, slots=True)
class Given:
    """Conditioning that somebody has made already, in files."""

    maps: Path
    """A folder of pictures, or a video; one frame each."""
    instances: Path | None = None
    """The same of instance ids, where there are any."""


class Extractor(Plugin):
    """Video in, conditioning out: one Conditioning per clip, same number of frames, in order."""

    produces: ClassVar[type[Conditioning]]

    @property
    def reads_files(self) -> bool:
        """Whether it takes what it produces from files (`read`), and not from pictures.

        Optional, and false for an extractor that does nothing but extract.
        """
        return False

    def read(self, given: Given, *, shorter: int) -> Conditioning:
        """What the files hold, one entry per frame, in order.

        Args:
            given: the files.
            shorter: pixels; maps whose shorter side is longer than this come scaled down to it.

        Raises:
            UnsupportedVideo: they cannot be read, or do not hold what this extractor produces.
        """
        raise BadOption(
            f"{type(self).__name__} extracts from videos and reads no files; leave --labels out, "
            "or choose a recipe that takes them, like street"
        )

    @abstractmethod
    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        """Track consecutive clips of one video. State lives in locals of this generator."""


class TextEncoder(Plugin):
    """Prompts in, embeddings out."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Sequence[TextEmbedding]: ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """A batch of consecutive frames with everything an objective may condition on."""

    frames_BTCHW: Tensor
    """Real frames, float32 in [-1, 1]."""
    maps_BTCHW: Tensor
    """Conditioning maps as `Conditioning.draw` gives them, float32 in [0, 1]; the kinds named in
    `Generator.accepts`, concatenated along C in that order. Maps that are the same everywhere, as
    those of a class are, may have H = W = 1."""
    background_CHW: Tensor | None = None
    """The still background plate, float32 in [-1, 1], when the subject has one."""
    weights_BT1HW: Tensor | None = None
    """Where the subject is, float32 in [0, 1]: 1 on the body or face, 0 on background."""
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    """Boxes by name ("face", "mouth", "hands"...): (B, T, 4) float32 x0, y0, x1, y1 in pixels;
    an absent region has x1 <= x0."""
    recalled: Recalled | None = None
    """Exemplars of the last `Objective.num_recalled` frames, (B, T', ...)."""

    @property
    def num_frames(self) -> int:
        return self.frames_BTCHW.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """K exemplars of each frame, ready to be sampled; `...` stands for the batch's axes."""

    images: Tensor
    """(..., K, C, H, W) float32 in [-1, 1]: as they were filmed, and where C is 4, how surely each
    pixel shows the subject, 1 for surely."""
    flow: Tensor
    """(..., K, 2, H, W) float32 pixels: what `blocks.warp` takes."""
    valid: Tensor
    """(..., K, 1, H, W) float32 in [0, 1]."""

    @staticmethod
    def of(signal: Exemplars, device: torch.device) -> Recalled:
        """Of T frames, on the device."""
        images = signal.images[signal.chosen.cpu()].to(device)
        return Recalled(
            images.float().div_(127.5).sub_(1.0), signal.flow.to(device), signal.valid.to(device)
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> Recalled:
        """With `change` applied to all three."""
        return Recalled(change(self.images), change(self.flow), change(self.valid))


class Samples(Protocol):
    """What batches are drawn from: a target's `Footage`, or `Clips`."""

    def longest_run(self) -> int:
        """Most consecutive frames that a sample can have."""
        ...

    def starts(self, num_frames: int) -> Tensor:
        """A number for every sample of so many frames; drawn equally often.

        Raises NoSubjectFound where there is none.
        """
        ...

    def batch(
        self, starts: Tensor, num_frames: int, device: torch.device, *, num_recalled: int = 0
    ) -> TrainBatch:
        """The samples of these numbers (B,), on the device."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One optimiser step within a training step (Karras et al.'s phases: Gmain, Dmain, Dreg...)."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    every: int = 1
    """Run on steps divisible by this (lazy regularisation)."""

    def at_rate(self, learning_rate: float) -> None:
        """Take this learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate


class Objective(ABC):
    """One paper's training rule: which phases there are and what each minimises.

    The loop calls `losses` for each phase of a step, in order, on the same batch, and
    back-propagates into that phase's module only. So an objective may compute the fakes and the
    discriminator's judgement once, in the first phase, and use the same graph in the later ones.
    """

    phases: Sequence[Phase]
    num_frames: int = 1
    """Consecutive frames in one training sample (T of the batch). May grow in `at_progress`; a
    sample is shorter where the footage has no run of that length."""
    num_recalled: int = 0
    """How many of them, the last ones, come with exemplars."""

    @abstractmethod
    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; their sum is minimised."""

    @property
    @abstractmethod
    def generator(self) -> nn.Module:
        """The module whose EMA becomes the subject's weights (`Generator.load_weights`)."""

    def at_progress(self, progress: float) -> None:  # noqa: B027 - optional
        """Told before each step how much of the training is done, in [0, 1]: staged schedules."""

    def state(self) -> dict[str, Any]:
        """What a resume needs beyond modules and optimisers (tensors, numbers, strings)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Take back what `state` gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a generator is conditioned on: the one place that turns signals into its input maps,
    so that training and rendering cannot draw differently."""

    kinds: tuple[type[Conditioning], ...]
    """Drawn and concatenated along C in this order."""
    channels: int
    """Channels of the concatenated maps."""
    background: bool = False
    """Whether the stream carries a BackgroundPlate."""
    exemplars: int = 0
    """How many Exemplars of each frame the stream carries."""

    def draw(self, chunk: Chunk, height: int, width: int) -> Tensor:
        """Maps of a chunk: (T, C, height, width) uint8. Raises IncompatibleStages."""
        maps = [chunk.require(kind).draw(height, width) for kind in self.kinds]
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)


class Generator(Plugin):
    """Conditioning in, frames out."""

    accepts: ClassVar[tuple[type[Conditioning], ...]]
    """Kinds it can be conditioned on; `Conditions.kinds` is a choice among them. `Conditioning`
    among them stands for every kind that can be drawn, those of other packages too."""

    pretrained: ClassVar[bool] = False
    """Whether it renders without the weights of a subject (see `PretrainedGenerator`)."""

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options)
        for kind in conditions.kinds:
            if not self.takes(kind):
                raise IncompatibleStages(
                    f"{type(self).__name__} cannot be conditioned on {kind.kind!r}; "
                    f"it accepts: {words_for(self.accepts)}"
                )
        self.conditions = conditions

    @classmethod
    def takes(cls, kind: type[Conditioning]) -> bool:
        """Whether it can be conditioned on this kind."""
        if Conditioning in cls.accepts and kind.drawable:
            return True
        return issubclass(kind, tuple(k for k in cls.accepts if k is not Conditioning))

    @abstractmethod
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a subject, and run on their device from now on.

        Raises BadSubject when they do not fit the options.
        """

    @classmethod
    def read_published(cls, path: Path) -> tuple[object, Mapping[str, Tensor]]:
        """Options and weights in a file of the method's published implementation.

        Raises BadWeights for a file that holds none, and BadSubject for those of another method
        or when this one reads none.
        """
        raise BadSubject(f"{path}: {cls.__name__} reads no published weights; train it instead")

    def expect(self, num_frames: int) -> None:
        """Told, before `generate`, how many frames it will be asked for: long films repay
        preparations, like compiling, that short ones do not."""

    def noise(
        self, num_frames: int, *, rng: torch.Generator, truncation: float | None = None
    ) -> Noise | None:
        """What it would draw for a film of so many frames; where the stream carries it, that is
        what `generate` starts from.

        Optional: None from a generator that draws nothing, or nothing that could be mixed. With
        `truncation`, numbers further from 0 than this are drawn again.
        """
        return None

    def memory(self) -> Mapping[str, Tensor] | None:
        """What going on behind the last clip that `generate` gave takes, beside its arguments:
        nothing where each frame follows from its own chunk, the frames before where it does not.
        None, the default, where that cannot be told: a rendering that broke off begins anew."""
        return None

    def go_on(self, memory: Mapping[str, Tensor]) -> None:
        """Told before `generate` that its chunks begin where `memory` was taken."""

    @abstractmethod
    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        """One Clip of `spec`'s size per chunk, same number of frames, same pts, in order.

        The caller has put PyTorch in inference mode and, where wanted, under autocast.
        """

    @abstractmethod
    def objective(self, spec: VideoSpec) -> Objective:
        """A fresh training rule, on the CPU, for this generator at this size."""


class PretrainedGenerator(Generator):
    """A generator that brings its own weights: it renders at once, in a pipeline (`vidsynth run`),
    and nothing of it is trained for a subject."""

    pretrained = True

    def film(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        fps: Fraction | None = None,
        num_frames: int | None = None,
    ) -> tuple[VideoSpec, int]:
        """The size, the rate and the length of the film it makes when asked for these, where no
        video says so; None leaves the choice to it. Looks at no weights, so that what cannot be
        made is refused before they are loaded.

        Raises BadOption, naming the nearest that can be made.
        """
        raise BadOption(f"{type(self).__name__} makes no film without a video to go by")

    def watch(self, told: Callable[[int, int], None]) -> None:
        """Asks to be told of progress within the next `generate`: step, of how many, counted from
        1. What `told` raises cancels the work and comes out of `generate`.

        Optional: one that is quick between frames tells nothing.
        """

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        raise BadSubject(f"{type(self).__name__} has weights of its own and takes none")

    def objective(self, spec: VideoSpec) -> Objective:
        raise BadOption(
            f"{type(self).__name__} has weights of its own and is not trained; use it in a "
            "pipeline (vidsynth run), or choose another generator"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What a discriminator says of a batch."""

    logits: Sequence[Tensor]
    """One tensor per scale."""
    features: Sequence[Sequence[Tensor]]
    """Per scale, the intermediate activations, for feature matching; logits not included."""


class Discriminator(Plugin, nn.Module):
    """Judges frames, or whole clips when `temporal`."""

    temporal: ClassVar[bool] = False

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options)
        self.condition_channels = condition_channels
        self.num_frames = num_frames

    @abstractmethod
    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement: ...


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A video as metrics see it: read as often as they like, at one size, tracked at most once."""

    name: str
    spec: VideoSpec
    pts: Tensor
    """(T,) float64 seconds."""
    read: Callable[[], Iterator[Clip]]
    """Its clips from the start, of `spec`'s size, in order."""
    track: Callable[[str], Conditioning]
    """What the extractor plugin of this name sees in it, (T,); computed once and shared."""

    def __len__(self) -> int:
        return len(self.pts)


Against = Literal["truth", "motion", "looks", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """What a metric found over all the films it was given."""

    value: float
    count: int
    """How many samples (frames, pairs of frames, windows) the value rests on."""
    protocol: str
    """All that must be equal for two values to be comparable: version, resize rule, stride,
    hash of the weights. The evaluation adds size and number of frames."""
    per_frame: Tensor | None = None
    """(T,) float64, the films end to end, NaN where nothing was measured; None for a metric of
    whole sets."""
    caveat: str = ""
    """Why to distrust the value, in words; empty when there is no reason."""


class Metric(Plugin):
    """A number over made videos, and over what they are held against."""

    unit: ClassVar[str]
    """"dB", "px", "%", or "" for a bare number."""
    higher_is_better: ClassVar[bool]
    against: ClassVar[Against] = "truth"
    """"truth": the same moments as they really look, frame by frame. "motion": a video, of anyone,
    that moves the same, frame by frame. "looks": any real video of the same subject. "nothing":
    the made video is judged alone."""

    @abstractmethod
    def update(self, made: Film, real: Film | None) -> None:
        """Take in one more made film. `real` is what `against` says, and None for "nothing"; for
        "truth" and "motion" it has the same number of frames.

        Raises MissingWeights when it needs weights that are not at hand.
        """

    @abstractmethod
    def compute(self) -> Measurement:
        """Over all films since the metric was built.

        Raises NotMeasurable when there was nothing to measure, too few samples, or no subject.
        """


class StagePlugin(Plugin):
    """Anything between the stages that vidsynth has: chunks in, chunks out (see `vidsynth run`)."""

    needs: ClassVar[tuple[type[Conditioning], ...]] = ()
    """Signals that the chunks must carry; `Conditioning` for any one that can be drawn."""
    gives: ClassVar[tuple[type[Conditioning], ...]] = ()
    """Signals that it adds to them."""

    @abstractmethod
    def process(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Consecutive chunks of one video. State lives in locals of this generator.

        As many frames at the same times come out; pictures may have another size, the same for
        all of a video. Chunks may be held back to look ahead, as long as their number is bounded.
        """


BASES: Mapping[str, type[Plugin]] = {
    "extractor": Extractor,
    "generator": Generator,
    "discriminator": Discriminator,
    "encoder": TextEncoder,
    "metric": Metric,
    "stage": StagePlugin,
}
"""What a plugin of each kind of the registry derives from."""


def words_for(kinds: Collection[type[Conditioning]]) -> str:
    """Kinds of conditioning for people: "pose, face, whatever can be drawn"."""
    named = [kind.kind for kind in kinds if kind is not Conditioning]
    rest = ["whatever can be drawn"] if Conditioning in kinds else []
    return ", ".join(named + rest) or "nothing"
