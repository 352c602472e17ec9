"""What is measured: synthetic films, footage prepared for a recipe, networks as published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vidsynth import options, registry, stages, stream, video
from vidsynth.bench import Asked
from vidsynth.bench.reference_schedule import ReferenceSchedule, SequenceSchedule
from vidsynth.choosing import choose_recipe
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.dataset import Footage
from vidsynth.devices import Precision, autocast
from vidsynth.errors import UnknownName
from vidsynth.exemplars import Gallery
from vidsynth.fitting import prepare_target
from vidsynth.kinds import Conditions, Discriminator, Generator, Given
from vidsynth.objectives import Objective, TrainBatch
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter, Step
from vidsynth.scores import Scores
from vidsynth.steady import STEADINESS
from vidsynth.subject import PluginRef, build_generator
from vidsynth.training import Budget, Run, TrainOptions, train
from vidsynth.worlds import WORLDS

# B batch, T frames, C channels, H, W pixels

Network = TypeVar("Network", bound=nn.Module)

FPS = Fraction(25)
RECIPE_OF = {"puppet": "dance", "head": "face"}
"""The default recipe of each world."""
IDENTITY, MOTION = 1, 2
"""Seeds of what is filmed."""

# Without VGG19, so that what is measured does not depend on which weights are here.
PUBLISHED: Mapping[str, Any] = {
    "filters": 32,
    "downsamplings": 4,
    "blocks": 9,
    "stem": "conv7",
    "skips": False,
    "background": False,
    "l1": 0.0,
    "perceptual": 0.0,
    "d_filters": 64,
    "d_layers": 3,
    "d_scales": 2,
}
"""pix2pixHD."""
PUBLISHED_SEQUENCE: Mapping[str, Any] = {
    **PUBLISHED,
    "downsamplings": 3,
    "norm": "batch",
    "upsampling": "transposed",
    "flow_px": 20.0,
    "least_paint": 0.0,
    "start": "given",
    "raw": 1.0,
    "judge_raw": True,
    "sequence": 1,
    "longest": 1,
    "learnt": 1,
    "learning_rate": 2e-4,
}
"""vid2vid, one frame after two given ones. No loss of its flow, which the first frame that is made
has not."""


@contextmanager
def workshop() -> Iterator[Path]:
    """A folder for films, gone afterwards."""
    with TemporaryDirectory(prefix="vidsynth-bench-") as folder:
        yield Path(folder)


def film(
    path: Path,
    world: str,
    num_frames: int,
    *,
    height: int,
    width: int,
    identity: int = IDENTITY,
    motion: int = MOTION,
    preset: str = "veryfast",
) -> Path:
    """Write a film of a synthetic world; the same arguments, the same pictures."""
    made = WORLDS[world]
    someone, moves = made.make_identity(identity), made.make_motion(motion, num_frames)
    chunks = made.render(someone, moves, height=height, width=width)
    video.write_video(path, chunks, fps=FPS, preset=preset)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Films:
    """What the arms of a bench train on."""

    worlds: tuple[str, ...] = ("puppet",)
    clip: Path | None = None
    """A video instead of the worlds."""
    size: int = 128
    """Pixels that all train at."""
    film_size: int = 256
    """Pixels that a world is filmed and tracked at."""
    film_frames: int = 600
    recipes: Mapping[str, str] = field(default_factory=lambda: RECIPE_OF)
    """Of each world that there may be."""

    def asked(self, asked: Asked) -> Self:
        """As the user wants them: a clip, a size, one world, or all of them where the full bench
        is.

        Raises UnknownName for a world that no default recipe is for.
        """
        if asked.world is not None and asked.world not in self.recipes:
            raise UnknownName.among("world", asked.world, self.recipes)
        size = asked.size or self.size
        worlds = tuple(self.recipes) if asked.full else self.worlds
        return replace(
            self,
            worlds=(asked.world,) if asked.world else worlds,
            clip=asked.clip,
            size=size,
            film_size=max(self.film_size, size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filmed:
    """A film to learn from."""

    path: Path
    recipe: Recipe
    """That a user would get for it, at the size of training."""
    given: Given | None = None
    """The maps of a scene, which nothing tracks."""


def subjects(
    films: Films, folder: Path, device: torch.device, reporter: Reporter
) -> Iterator[Filmed]:
    """Each of the films, in the folder."""
    if films.clip is not None:
        clip, size = films.clip, films.size
        recipe = choose_recipe(None, None, None, size, None, (), clip, str(device), reporter)
        yield Filmed(path=clip, recipe=recipe)
        return
    for world in films.worlds:
        frames, size = films.film_frames, (films.film_size, films.film_size)
        path = film(folder / f"{world}.mp4", world, frames, height=size[0], width=size[1])
        recipe = load_recipe(films.recipes[world]).with_overrides({"size": films.size})
        truth = true_signal(world, frames, size)
        given = write_maps(truth, folder / world) if isinstance(truth, LabelMaps) else None
        yield Filmed(path=path, recipe=recipe, given=given)


def true_signal(world: str, num_frames: int, size: tuple[int, int]) -> Conditioning:
    """Of what `film` shows by default."""
    made = WORLDS[world]
    someone, moves = made.make_identity(IDENTITY), made.make_motion(MOTION, num_frames)
    return made.truth(someone, moves, height=size[0], width=size[1])


def write_maps(maps: LabelMaps, folder: Path) -> Given:
    """The maps as folders of pictures, as people have them."""
    given = Given(folder / "labels", folder / "instances")
    assert maps.instances is not None and given.instances is not None
    for place, ids in ((given.maps, maps.labels), (given.instances, maps.instances)):
        place.mkdir(parents=True)
        kind = np.uint8 if place == given.maps else np.uint16
        for n, picture in enumerate(ids.numpy().astype(kind)):
            cv2.imwrite(str(place / f"{n:05d}.png"), picture)
    return given


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A film tracked and prepared as a recipe asks: all that training and rendering need."""

    recipe: Recipe
    generator_ref: PluginRef
    conditions: Conditions
    footage: Footage

    def generator(self) -> Generator:
        """A new one, without weights."""
        return build_generator(self.generator_ref, self.conditions)

    def render(
        self,
        generator: Generator,
        index: Tensor,
        device: torch.device,
        *,
        steadiness: float = STEADINESS,
    ) -> Tensor:
        """(T, 3, height, width) uint8: these frames, made the way a user's render makes them."""
        seen = self.footage
        line = stages.rendering(
            seen.signal[index],
            generator,
            seen.window_spec,
            seen.window,
            seen.plate,
            seen.gallery,
            device=device,
            steadiness=steadiness,
        )
        made: list[Clip] = []
        timeline = stages.timeline(seen.pts[index])
        stream.run(timeline, line, lambda cs: made.extend(stages.clips_of(cs)), prefetch=0)
        return Clip.concat(made).frames

    def paint(
        self, generator: Generator, index: Tensor, device: torch.device, precision: Precision
    ) -> Tensor:
        """(T, 3, H, W) uint8: the generator's window of these frames, in this precision."""
        seen = self.footage
        x0, y0, x1, y1 = seen.window
        plate = None if seen.plate is None else seen.plate[:, y0:y1, x0:x1]
        signal = seen.signal[index].crop(seen.window)
        return paint(
            generator, signal, plate, seen.window_spec, device, precision, gallery=seen.gallery
        )


def paint(
    generator: Generator,
    signal: Conditioning,
    plate: Tensor | None,
    spec: VideoSpec,
    device: torch.device,
    precision: Precision,
    *,
    gallery: Gallery | None = None,
) -> Tensor:
    """(T, 3, H, W) uint8 from a whole signal (T,), in chunks, in this precision."""
    line = stages.supplying(signal, generator, plate, gallery, device=device)
    chunks = stages.timeline(torch.arange(len(signal), dtype=torch.float64) / float(spec.fps))
    for stage in line:
        chunks = stage(chunks)
    rng = torch.Generator().manual_seed(0)
    with torch.inference_mode(), autocast(device, precision):
        made = [clip.to("cpu") for clip in generator.generate(chunks, spec, rng=rng)]
    return Clip.concat(made).frames


def study(
    path: Path, recipe: Recipe, reporter: Reporter | None = None, *, given: Given | None = None
) -> Study:
    """Track a film, or read what is given, and prepare it. Raises what `vidsynth train` would."""
    made = prepare_target(path, recipe, given=given, reporter=reporter)
    return Study(recipe, made.generator, made.conditions, made.footage)


Judge = Callable[[Mapping[str, Tensor], Run], Scores]
"""Told the averaged weights whenever training scores them: at 1, 2, 4... minutes and the end."""


def learn(
    seen: Study,
    folder: Path,
    budget: Budget,
    *,
    device: torch.device,
    judge: Judge | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Tensor]:
    """Train as `vidsynth train` does, without checkpoints. Returns the averaged weights."""
    torch.manual_seed(0)
    kept: dict[str, Tensor] = {}

    def keep(weights: Mapping[str, Tensor], _: Run) -> None:
        kept.update({name: value.detach().clone() for name, value in weights.items()})

    training = options.build(TrainOptions, seen.recipe.training, where="training")
    train(
        seen.generator().objective(seen.footage.window_spec),
        seen.footage,
        folder,
        budget=budget,
        options=replace(training, checkpoint_seconds=float("inf")),
        score=judge or (lambda weights, run: Scores(psnr=0.0, ssim=0.0, l1=0.0)),
        keep=keep,
        device=device,
        reporter=_Quietly(reporter or Reporter()),
    )
    return kept


class _Quietly(Reporter):
    """Passes on progress and warnings; what training says of scores it was not given is dropped."""

    def __init__(self, told: Reporter) -> None:
        self._told = told

    @contextmanager
    def step(
        self, title: str, total: float | None = None, unit: str = "frames", done: float = 0.0
    ) -> Iterator[Step]:
        with self._told.step(title, total, unit, done) as step:
            yield step

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self._told.warn(text)


def reference_recipe(extractor: str, size: int, filters: int) -> Recipe:
    """pix2pixHD as published, on what this extractor sees."""
    return load_recipe("reference").with_overrides(
        {
            "size": size,
            "extractor": {"plugin": extractor},
            "generator": {"plugin": "pix2pixhd", **PUBLISHED, "filters": filters},
        }
    )


def published_objective(
    size: int, *, method: str = "pix2pixhd", channels: int = 3, **changes: Any
) -> Objective:
    """The published networks with our schedule, on label maps of `channels` classes."""
    plugin: Any = registry.load("generator", method)
    published = PUBLISHED_SEQUENCE if method == "vid2vid" else PUBLISHED
    values = options.build(plugin.Options, {**published, **changes}, where="generator")
    conditions = Conditions(kinds=(LabelMaps,), channels=channels)
    return plugin(values, conditions=conditions).objective(
        VideoSpec(height=size, width=size, fps=FPS)
    )


def reference_of(objective: Objective) -> ReferenceSchedule:
    """The reference schedule on a copy of the networks of `objective`, in PyTorch's own layers."""
    judges = objective.phases[1].module
    discriminator = next(m for m in judges.modules() if isinstance(m, Discriminator))
    schedule = SequenceSchedule if objective.num_frames > 1 else ReferenceSchedule
    return schedule(plainly(objective.generator), plainly(discriminator))


def plainly(network: Network) -> Network:
    """A copy whose convolutions are PyTorch's, with the same weights, where ours are quicker."""
    network = deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and type(child) is not nn.Conv2d:
                plain = nn.Conv2d(
                    child.in_channels,
                    child.out_channels,
                    kernel_size=child.kernel_size,  # pyright: ignore[reportArgumentType]
                    stride=child.stride,  # pyright: ignore[reportArgumentType]
                    padding=child.padding,  # pyright: ignore[reportArgumentType]
                )
                plain.to(child.weight).load_state_dict(child.state_dict())
                setattr(parent, name, plain)
    return network


def random_batch(
    batch: int,
    size: int,
    *,
    num_frames: int = 1,
    channels: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> TrainBatch:
    """Noise of the shape that a training batch has."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, num_frames)
    frames = torch.rand(*shape, 3, size, size, generator=rng, dtype=dtype) * 2 - 1
    maps = torch.rand(*shape, channels, size, size, generator=rng, dtype=dtype)
    return TrainBatch(frames, maps)


def moved(batch: TrainBatch, device: torch.device) -> TrainBatch:
    """A batch of frames and maps on another device."""
    return TrainBatch(batch.frames_BTCHW.to(device), batch.maps_BTCHW.to(device))


def place(objective: Objective, device: torch.device) -> Objective:
    """The objective, ready to train on `device`."""
    for phase in objective.phases:
        phase.module.to(device).train()
    return objective


def parameters(*modules: nn.Module) -> int:
    """How many weights they have."""
    return sum(p.numel() for module in modules for p in module.parameters())
