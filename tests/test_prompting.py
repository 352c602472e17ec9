"""Films from words: by a trained model, by a pretrained plugin; schedules; what is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from vidsynth import generate, jobs, registry, video
from vidsynth.classes import Prompt
from vidsynth.cli import main
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import BadOption, BadSubject, OutputExists, PluginError, UnknownName
from vidsynth.kinds import PretrainedGenerator, TextEncoder
from vidsynth.prompting import read_schedule, scheduled
from vidsynth.provenance import inspect
from vidsynth.report import Reporter, Step
from vidsynth.stages import clips_of
from vidsynth.stream import Chunk
from vidsynth.subject import Subject, load_subject

# T frames

RED = "a red circle moves left"
BLUE = "a blue square moves up"
SMALL = [
    'clips.classes=["red-circle-left", "blue-square-up"]',
    "clips.held_out=0",
    "generator.num_frames=4",
    "generator.stride=2",
    "generator.width=16",
    "generator.blocks=1",
    "generator.heads=2",
    "generator.text_width=16",
    "generator.text_layers=1",
    "generator.steps=2",
    "training.batch=2",
    "training.warmup_steps=0",
    "generator.learning_rate=0.02",
]


class Heard(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


def train(folder: Path, steps: int, *more: str) -> Subject:
    return jobs.train(
        "world:shapes",
        folder,
        recipe="text2video-small",
        size=16,
        steps=steps,
        device="cpu",
        settings=[*SMALL, *more],
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "words"
    train(folder, 3)
    return folder


def frames_of(path: Path) -> torch.Tensor:
    return torch.cat([c.frames for c in clips_of(video.read_chunks(path))])


# A model that was trained here


def test_a_model_says_which_words_it_knows(model):
    card = load_subject(model).card
    assert card.classes == () and load_subject(model).takes_prompts
    assert {"red", "circle", "left", "blue", "square", "up"} <= set(card.words)
    assert card.steps == 3 and card.scores[-1]["diversity"] >= 0
    assert (model / "training" / "preview.png").exists()


def test_training_goes_on_and_ends_where_one_run_would(model, tmp_path):
    """Bit for bit, as for any other model."""
    train(tmp_path / "twice", 2)
    train(tmp_path / "twice", 3)
    once, twice = (
        (folder / "generator.safetensors").read_bytes() for folder in (model, tmp_path / "twice")
    )
    assert once == twice


def test_a_film_is_written_with_what_made_it(model, tmp_path):
    out, heard = tmp_path / "out.mp4", Heard()
    made = generate(model, out, prompt=RED, frames=7, seed=3, negative=BLUE, reporter=heard)
    assert made == [out]
    assert frames_of(out).shape == (7, 3, 128, 128) and video.probe(out).spec.fps == 12
    assert any("drawn at 16x16, scaled to 128x128" in line for line in heard.said)
    told = tomllib.loads((tmp_path / "out.mp4.toml").read_text())
    assert told["film"]["prompts"] == [{"frame": 0, "text": RED}] and told["film"]["seed"] == 3
    assert told["generator"]["options"]["negative"] == BLUE
    found = inspect(out).facts
    assert found is not None and found["prompts"] == [RED]


def test_the_same_seed_is_the_same_film_and_options_matter(model, tmp_path):
    def made(name: str, **asked) -> torch.Tensor:
        out = tmp_path / f"{name}.mp4"
        generate(model, out, **{"prompt": RED, "frames": 4, "size": (32, 32), **asked})
        return frames_of(out).int()

    first = made("first")
    assert torch.equal(first, made("again"))
    assert (first - made("seed", seed=1)).abs().max() > 2
    assert (first - made("steps", denoising=5)).abs().max() > 2


def test_a_sheet_shows_seeds_of_a_prompt(model, tmp_path):
    assert generate(model, sheet=tmp_path / "s.png", prompt=RED) == [tmp_path / "s.png"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({}, "say what to show: a PROMPT in quotes"),
        ({"prompt": RED, "schedule": "a.toml"}, "exclude each other"),
        ({"prompt": RED, "class_name": "red"}, "--class means nothing to a prompt"),
        ({"prompt": RED, "truncation": 0.5}, "--truncation means nothing to a prompt"),
        ({"prompt": RED, "image": "a.png"}, "text2video-small takes no --image"),
        ({"prompt": RED, "fps": 25.0}, "makes 12 frames per second"),
        ({"prompt": RED, "size": (8, 8)}, "8x8 is no size of a film"),
        ({"prompt": RED, "candidates": 0}, "--candidates must be at least 1"),
        ({"prompt": RED, "model": "x"}, "--subject and --model name two models"),
        ({"prompt": RED, "denoising": 0}, "steps must be at least 1"),
    ],
)
def test_what_cannot_be_made_is_said_before_any_work(model, tmp_path, asked, message):
    with pytest.raises(BadOption, match=message):
        generate(model, tmp_path / "out.mp4", **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a purple circle", "knows no 'purple'; it was taught"),
        ("ein roter Kreis", "knows no 'ein', 'roter', 'kreis'"),
        ("🔴 moves left", "knows no '🔴'"),
        ("red " * 300, "has 300 words, and this model takes at most"),
    ],
)
def test_words_that_are_not_known_leave_no_film(model, tmp_path, prompt, message):
    with pytest.raises(BadOption, match=message):
        generate(model, tmp_path / "out.mp4", prompt=prompt)
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_kept(model, tmp_path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        generate(model, out, prompt=RED)
    assert out.read_bytes() == b"mine"


def test_other_settings_are_options_of_the_generator_and_of_nothing_else(model, tmp_path):
    generate(model, tmp_path / "o.mp4", prompt=RED, settings=["generator.guidance=3.5"])
    told = tomllib.loads((tmp_path / "o.mp4.toml").read_text())
    assert told["generator"]["options"]["guidance"] == 3.5
    with pytest.raises(UnknownName, match="guidence"):
        generate(model, tmp_path / "p.mp4", prompt=RED, settings=["generator.guidence=3.5"])
    with pytest.raises(UnknownName, match="section of generate"):
        generate(model, tmp_path / "p.mp4", prompt=RED, settings=["training.batch=3"])


def test_no_video_drives_a_model_of_captions_and_it_has_no_classes(model, tmp_path):
    source = Path(__file__).parents[1] / "examples/media/dance_source.mp4"
    with pytest.raises(BadSubject, match=r"captioned clips.*\"A PROMPT\""):
        jobs.render(model, source, tmp_path / "out.mp4")
    result = CliRunner().invoke(main, ["generate", "--subject", str(model), "--list-classes"])
    assert result.exit_code != 0 and "has no classes" in str(result.output + str(result.exception))


def test_a_model_is_gone_on_from_by_small_matrices(model, tmp_path):
    """What was learnt stays as it was, the words too; new words are learnt beside."""
    more = [f"generator.start={model}", "generator.lora=2", 'clips.classes=["green-circle-down"]']
    tuned = train(tmp_path / "tuned", 3, *more)
    before, after = (load_file(f / "generator.safetensors") for f in (model, tuned.folder))
    names = load_subject(model).card.words
    assert tuned.card.words[: len(names)] == names
    assert {"green", "down"} <= set(tuned.card.words[len(names) :])
    frozen = [n for n in before if n != "text.embedding.weight"]
    assert all(torch.equal(before[n], after[n]) for n in frozen)
    assert any(bool(after[n].any()) for n in after if n.endswith("lora_up"))
    generate(tuned.folder, tmp_path / "o.mp4", prompt="a green circle moves down")
    with pytest.raises(BadOption, match=r"go on from it with -s generator\.blocks=1"):
        train(tmp_path / "other", 1, f"generator.start={model}", "generator.blocks=2")


# Schedules


def schedule(folder: Path, text: str) -> Path:
    path = folder / "schedule.toml"
    path.write_text(text, encoding="utf-8")
    return path


def entry(at: str, text: str) -> str:
    return f'[[prompt]]\nat = "{at}"\ntext = "{text}"\n'


def test_prompts_hold_from_their_times_on(tmp_path):
    path = schedule(tmp_path, entry("0s", RED) + entry("0.5s", BLUE))
    assert read_schedule(path) == [(0, RED), (0.5, BLUE)]
    prompt = scheduled(read_schedule(path), Fraction(12), 10)
    assert prompt.index.tolist() == [0] * 6 + [1] * 4 and prompt.texts == (RED, BLUE)


def test_a_schedule_makes_a_film_as_long_as_it_says(model, tmp_path):
    path = schedule(tmp_path, entry("0s", RED) + entry("0.5s", BLUE))
    out = tmp_path / "out.mp4"
    generate(model, out, schedule=path)
    assert len(frames_of(out)) == 12
    told = tomllib.loads((tmp_path / "out.mp4.toml").read_text())
    assert [p["frame"] for p in told["film"]["prompts"]] == [0, 6]
    with pytest.raises(BadOption, match=r"at 0\.5 s comes after the film's end at 0\.333"):
        generate(model, tmp_path / "b.mp4", schedule=path, frames=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'prompt' is missing"),
        ("[[prompt]]\nat = 0\n", "'text' is missing"),
        ("[[prompt", "cannot be read as a schedule"),
        (entry("1s", RED), "the first prompt is at 0s"),
        (entry("0s", RED) + entry("2s", RED) + entry("1s", BLUE), "each later one after"),
        (entry("0s", ""), "a prompt is empty"),
        (entry("soon", RED), "'soon' is no duration"),
    ],
)
def test_a_bad_schedule_is_refused(tmp_path, text, message):
    with pytest.raises(BadOption, match=message):
        read_schedule(schedule(tmp_path, text))


def test_a_missing_schedule_is_named(tmp_path):
    with pytest.raises(BadOption, match=r"none\.toml: cannot be read"):
        read_schedule(tmp_path / "none.toml")


# A pretrained plugin


@dataclass(frozen=True, kw_only=True)
class GreyOptions:
    """Attributes:
    model: which grey, a number.
    negative: ignored.
    """

    model: str = "100"
    negative: str = ""


class Grey(PretrainedGenerator):
    """Films of one grey, a level brighter for each letter of the prompt, in steps."""

    Options = GreyOptions
    accepts = (Prompt,)
    told = staticmethod(lambda done, of: None)

    def film(self, *, width=None, height=None, fps=None, num_frames=None):
        if num_frames is not None and num_frames % 4 != 1:
            raise BadOption(
                f"no film of {num_frames} frames; the nearest is {num_frames // 4 * 4 + 1}"
            )
        return VideoSpec(width=width or 32, height=height or 16, fps=fps or Fraction(8)), (
            num_frames or 5
        )

    def watch(self, told) -> None:
        self.told = told

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        for step in range(3):
            self.told(step + 1, 3)
        noise = int(torch.randint(5, (), generator=rng))
        for chunk in chunks:
            level = int(self.options.model) + noise + len(chunk.require(Prompt).texts[0])
            shape = (len(chunk), 3, spec.height, spec.width)
            yield Clip(torch.full(shape, level, dtype=torch.uint8), chunk.pts)


class Brightest(TextEncoder):
    """Thinks that the brightest film shows any prompt best."""

    def encode(self, prompts):
        return []

    def rank(self, clips, prompt):
        return sorted(range(len(clips)), key=lambda n: -float(clips[n].float().mean()))


def offered(*names: str) -> list[EntryPoint]:
    known = {"text2video": ("Grey", "generator"), "clip_text": ("Brightest", "encoder")}
    return [
        EntryPoint(name, f"{__name__}:{cls}", registry.group(kind))  # pyright: ignore
        for name, (cls, kind) in known.items()
        if name in names
    ]


def test_a_pretrained_plugin_makes_the_film_that_it_says(tmp_path):
    out = tmp_path / "out.mp4"
    with registry.only(offered("text2video")):
        generate(None, out, prompt="kite", model="100", size=(48, 32), fps=10.0, frames=9)
        spec = video.probe(out).spec
        assert (spec.width, spec.height, spec.fps) == (48, 32, 10)
        assert abs(float(frames_of(out).float().mean()) - 106) < 4 and len(frames_of(out)) == 9
        told = tomllib.loads((tmp_path / "out.mp4.toml").read_text())
        assert told["generator"]["options"]["model"] == "100"
        with pytest.raises(BadOption, match="the nearest is 5"):
            generate(None, tmp_path / "b.mp4", prompt="kite", model="1", frames=7)
        with pytest.raises(BadOption, match="text2video takes no --guidance"):
            generate(None, tmp_path / "b.mp4", prompt="kite", model="1", guidance=3.0)


def test_steps_before_the_first_frame_are_told(tmp_path):
    done: list[float] = []

    class Bar(Step):
        def update(self, amount, **facts):
            done.append(amount)

    class Bars(Reporter):
        @contextmanager
        def step(self, title, total=None, unit="frames", done=0.0):
            yield Bar()

    with registry.only(offered("text2video")):
        generate(None, tmp_path / "o.mp4", prompt="kite", model="100", reporter=Bars())
    assert done == sorted(done) and done[-1] == 5 and 0 < done[0] < 5


def test_the_best_of_several_films_is_kept(tmp_path):
    with registry.only(offered("text2video", "clip_text")):
        heard = Heard()
        out = tmp_path / "best.mp4"
        generate(None, out, prompt="kite", model="100", candidates=4, reporter=heard)
        levels = []
        for seed in range(4):
            one = tmp_path / f"{seed}.mp4"
            generate(None, one, prompt="kite", model="100", seed=seed)
            levels.append(float(frames_of(one).float().mean()))
        assert len(set(levels)) > 1
        assert float(frames_of(out).float().mean()) == max(levels)
        best = levels.index(max(levels))
        assert any(f"of 4 films the one of seed {best}" in line for line in heard.said)
        told = tomllib.loads((tmp_path / "best.mp4.toml").read_text())
        assert told["film"]["seed"] == best


def test_what_is_not_installed_is_named(tmp_path):
    with (
        registry.only([]),
        pytest.raises(PluginError, match="'text2video', which is not installed"),
    ):
        generate(None, tmp_path / "o.mp4", prompt="kite", model="100")
    with (
        registry.only(offered("text2video")),
        pytest.raises(PluginError, match="needs the encoder 'clip_text'"),
    ):
        generate(None, tmp_path / "o.mp4", prompt="kite", model="100", candidates=2)


def test_the_command_line_takes_a_prompt_and_refuses_bad_sizes(model, tmp_path):
    out = tmp_path / "out.mp4"
    line = ["generate", RED, "--subject", str(model), "--frames", "5", "--size", "32x16"]
    result = CliRunner().invoke(main, [*line, "--steps", "1", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert frames_of(out).shape == (5, 3, 16, 32)
    result = CliRunner().invoke(main, [*line[:-1], "32", "-o", str(tmp_path / "b.mp4")])
    assert result.exit_code == 2 and "write it like 832x480" in result.output
