"""What plugin authors subclass. ABCs, so that a new optional method breaks no third party.

A plugin is found through the entry-point groups `vidsynth.extractors`, `vidsynth.generators`,
`vidsynth.discriminators`, `vidsynth.encoders`, `vidsynth.metrics` and `vidsynth.stages`; the group
name is the API version: within one, releases only add what has a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vidsynth.classes import Noise, TextEmbedding
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, BadSubject, IncompatibleStages
from vidsynth.notes import Notes
from vidsynth.objectives import Objective
from vidsynth.several import Several
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

    notes: Notes = Notes()
    """Where `extract` may note what takes it long (`Notes.once`), so that it is not found out again
    when a run that broke off begins again. Optional; an extractor that notes nothing begins
    anew."""

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

    def rank(self, clips: Sequence[Tensor], prompt: str) -> Sequence[int]:
        """Indices of clips, (T, 3, H, W) uint8 RGB each: the one that shows the prompt best first.

        Optional: for an encoder that sees pictures too. Raises BadOption.
        """
        raise BadOption(f"{type(self).__name__} sees no pictures; leave --candidates out")


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
    carry: bool = False
    """Whether these also say how the frame made before is brought along."""
    words: tuple[str, ...] = ()
    """What `Generator.words_of` said of the captions that it learns, or has learnt, from."""

    @classmethod
    def for_options(
        cls,
        options: Mapping[str, Any],
        *,
        kinds: tuple[type[Conditioning], ...],
        channels: int,
        background: bool = False,
        words: tuple[str, ...] = (),
    ) -> Conditions:
        """With the exemplars that a generator of these options asks for."""
        return cls(
            kinds=kinds,
            channels=channels,
            background=background,
            exemplars=int(options.get("exemplars", 0)),
            carry=bool(options.get("carry", False)),
            words=words,
        )

    def draw(self, chunk: Chunk, height: int, width: int) -> Tensor:
        """Maps of a chunk: (T, C, height, width) uint8. Raises IncompatibleStages."""
        maps = [chunk.require(kind).draw(height, width) for kind in self.kinds]
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)


class Generator(Plugin):
    """Conditioning in, frames out."""

    accepts: ClassVar[tuple[type[Conditioning], ...]]
    """Kinds it can be conditioned on; `Conditions.kinds` is a choice among them. `Conditioning`
    among them stands for every kind that can be drawn, those of other packages too."""

    embedded: ClassVar[Path | None] = None
    """The folder of a trained model that comes with the plugin, where one does."""

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
        """Whether it can be conditioned on this kind; on several together where on each."""
        if issubclass(kind, Several) and kind.kinds:
            return all(map(cls.takes, kind.kinds))
        if Conditioning in cls.accepts and kind.drawable:
            return True
        return issubclass(kind, tuple(k for k in cls.accepts if k is not Conditioning))

    @classmethod
    def words_of(cls, options: object, captions: Collection[str]) -> tuple[str, ...]:
        """The words, of these captions and of what it starts from, that it learns to take prompts
        in; they are kept with its weights, as `Conditions.words`.

        Optional: none, where it leaves words to an encoder that knows them already.
        """
        return ()

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

    def watch(self, told: Callable[[int, int], None]) -> None:
        """Asks to be told of progress within the next `generate`: step, of how many, counted from
        1. What `told` raises cancels the work and comes out of `generate`.

        Optional: one that is quick between frames tells nothing.
        """

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
