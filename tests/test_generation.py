"""Models of clips end to end: trained, asked for classes, refused where they must be."""

from __future__ import annotations

import json
import tomllib
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
import torch
from click.testing import CliRunner

from vidsynth import generate, jobs, video
from vidsynth.classes import ClassLabel, Noise, normal
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.clipmodels import differences, diversity, has_collapsed
from vidsynth.errors import BadOption, BadSubject, OutputExists, UnknownName
from vidsynth.generation import contact_sheet
from vidsynth.report import Reporter
from vidsynth.stages import clips_of
from vidsynth.stream import Chunk
from vidsynth.subject import Subject, load_subject
from vidsynth.worlds import shapes

# T frames

CLASSES = ["red-circle-right", "blue-square-down", "green-triangle-up"]
SMALL = [
    f"clips.classes={json.dumps(CLASSES)}",
    "generator.num_frames=4",
    "generator.filters=4",
    "generator.d_filters=4",
    "generator.d_frames=2",
    "training.batch=3",
]


class Heard(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


def train(folder: Path, steps: int, *more: str, reporter: Reporter | None = None) -> Subject:
    return jobs.train(
        "world:shapes",
        folder,
        recipe="dvdgan",
        size=16,
        steps=steps,
        device="cpu",
        settings=[*SMALL, *more],
        reporter=reporter,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "shapes"
    train(folder, 3)
    return folder


def frames_of(path: Path) -> torch.Tensor:
    return torch.cat([c.frames for c in clips_of(video.read_chunks(path))])


def test_a_model_says_what_it_can_show_and_how_it_was_trained(model):
    card = load_subject(model).card
    assert card.classes == tuple(CLASSES) and card.steps == 3
    assert (card.height, card.width, card.fps) == (16, 16, "12")
    assert card.scores and card.scores[-1]["diversity"] > 0
    assert (model / "training" / "preview.png").exists()


def test_training_goes_on_and_ends_where_one_run_would(model, tmp_path):
    """Bit for bit, as for any other model."""
    heard = Heard()
    train(tmp_path / "twice", 2)
    train(tmp_path / "twice", 3, reporter=heard)
    assert any("going on from step 2" in line for line in heard.said)
    once, twice = (
        (folder / "generator.safetensors").read_bytes() for folder in (model, tmp_path / "twice")
    )
    assert once == twice
    train(tmp_path / "twice", 3, reporter=heard)
    assert "is trained already: 3 steps" in heard.said[-1]


def test_a_folder_of_another_model_is_refused(model):
    with pytest.raises(BadSubject, match="other clips or classes"):
        train(model, 4, 'clips.classes=["red-circle-right"]')
    with pytest.raises(BadSubject, match="filters"):
        train(model, 4, "generator.filters=6")


def test_a_clip_of_any_length_is_written_with_its_settings(model, tmp_path):
    out = tmp_path / "out.mp4"
    assert generate(model, out, class_name=CLASSES[1], frames=11, seed=3) == [out]
    assert frames_of(out).shape == (11, 3, 16, 16)
    assert video.probe(out).spec.fps == 12
    told = tomllib.loads((tmp_path / "out.mp4.toml").read_text())
    assert told["clip"]["name"] == CLASSES[1] and told["clip"]["seed"] == 3
    assert told["generator"]["name"] == "dvdgan"


def test_seeds_classes_and_truncation_matter_and_the_same_is_the_same(model, tmp_path):
    def made(name: str, **asked) -> torch.Tensor:
        out = tmp_path / f"{name}.mp4"
        generate(model, out, **{"class_name": CLASSES[0], **asked})
        return frames_of(out).int()

    first = made("first")
    assert torch.equal(first, made("again"))
    for name, asked in {"seed": {"seed": 1}, "truncated": {"truncation": 0.2}}.items():
        assert (first - made(name, **asked)).abs().max() > 2


def test_the_way_to_another_seed_ends_there(model, tmp_path):
    """With its noise per frame; the memory of the way remains, so the noise itself is compared."""
    generator = load_subject(model).generator(torch.device("cpu"))
    first, last = (generator.noise(9, rng=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert isinstance(first, Noise) and isinstance(last, Noise)
    way = first.towards(last).values
    assert torch.allclose(way[0], first.values[0], atol=1e-5)
    assert torch.allclose(way[-1], last.values[-1], atol=1e-5)
    straight = (first.values[0] + last.values[0]) / 2
    assert way[4].norm() > straight.norm()  # as far from 0 as noise is
    assert way[4].norm() == pytest.approx(float(first.values[0].norm()), rel=0.35)
    out = tmp_path / "way.mp4"
    generate(model, out, class_name=CLASSES[0], to_class=CLASSES[2], to_seed=1, frames=6)
    assert len(frames_of(out)) == 6


def test_the_way_to_another_class_passes_through_mixtures():
    names = ("a", "b", "c")
    way = ClassLabel.of("a", names, 5).towards(ClassLabel.of("c", names, 5)).shares
    assert way[:, 0].tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert torch.allclose(way.sum(dim=1), torch.ones(5)) and not way[:, 1].any()


def test_truncated_noise_is_the_normal_between_its_bounds():
    values = normal((200, 50), rng=torch.Generator().manual_seed(0), truncation=1.0)
    assert values.abs().max() <= 1
    # The standard deviation of a normal variable truncated to [-1, 1].
    assert float(values.std()) == pytest.approx(0.5396, abs=0.01)


def test_a_sheet_shows_every_class_or_seeds_of_one(model, tmp_path):
    generate(model, sheet=tmp_path / "classes.png", frames=8)
    generate(model, sheet=tmp_path / "seeds.png", class_name=CLASSES[0], frames=2)
    sizes = [cv2.imread(str(tmp_path / f"{n}.png")).shape for n in ("classes", "seeds")]
    assert sizes == [(3 * 64, 8 * 64, 3), (8 * 64, 2 * 64, 3)]


def test_a_contact_sheet_has_the_first_and_the_last_moment():
    clip = torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    sheet = contact_sheet([clip, clip + 100])
    assert sheet.shape == (3, 128, 512)
    assert sheet[0, 0, ::64].tolist() == [0, 3, 5, 8, 11, 14, 16, 19]
    assert sheet[0, 127, -1] == 119


def test_what_cannot_be_made_is_said_before_any_work(model, tmp_path):
    out = tmp_path / "out.mp4"
    with pytest.raises(BadOption, match="nothing to write"):
        generate(model)
    with pytest.raises(BadOption, match=r"say what to show with --class; there are: .*red-circle"):
        generate(model, out)
    with pytest.raises(UnknownName, match="did you mean 'red-circle-right'"):
        generate(model, out, class_name="red-circle-rigth")
    with pytest.raises(UnknownName, match="no class 'jump'"):
        generate(model, out, class_name=CLASSES[0], to_class="jump")
    with pytest.raises(BadOption, match="truncation"):
        generate(model, out, class_name=CLASSES[0], truncation=0.0)
    with pytest.raises(BadOption, match="at least 1 frame"):
        generate(model, out, class_name=CLASSES[0], frames=0)
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        generate(model, out, class_name=CLASSES[0])
    assert out.read_bytes() == b"mine"


def test_no_video_drives_a_model_of_clips(model, tmp_path):
    source = Path(__file__).parents[1] / "examples/media/dance_source.mp4"
    with pytest.raises(BadSubject, match="vidsynth generate --subject"):
        jobs.render(model, source, tmp_path / "out.mp4")
    with pytest.raises(BadOption, match="no video drives"):
        jobs.transfer(
            source,
            source.with_name("dance_target.mp4"),
            tmp_path / "out.mp4",
            recipe="dvdgan",
        )


def test_options_of_a_targets_video_are_refused(tmp_path):
    with pytest.raises(BadOption, match=r"clips\.fps"):
        jobs.train("world:shapes", tmp_path / "m", recipe="dvdgan", fps=25.0)


def test_one_clip_of_one_class_is_learnt_and_needs_no_name(tmp_path, monkeypatch):
    """And a folder of clips asks for the recipe by itself."""
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))
    frames = shapes.film("red-circle-up", 1, 6, 12.0, 32)
    pts = torch.arange(6, dtype=torch.float64) / 12
    (tmp_path / "clips" / "up").mkdir(parents=True)
    video.write_video(
        tmp_path / "clips" / "up" / "a.mp4", [Chunk(pts, Clip(frames, pts))], fps=Fraction(12)
    )
    heard = Heard()
    small = [s for s in SMALL if not s.startswith("clips")]
    jobs.train(
        tmp_path / "clips",
        tmp_path / "m",
        size=16,
        steps=1,
        device="cpu",
        settings=small,
        reporter=heard,
    )
    assert "there is one clip only: it will be learnt by heart" in heard.said
    generate(tmp_path / "m", tmp_path / "out.mp4", frames=2)
    assert len(frames_of(tmp_path / "out.mp4")) == 2


def test_classes_are_listed_on_the_command_line(model):
    result = CliRunner().invoke(main, ["generate", "--subject", str(model), "--list-classes"])
    assert result.exit_code == 0 and result.output.splitlines() == CLASSES


def test_the_command_line_makes_a_clip(model, tmp_path):
    out = tmp_path / "out.mp4"
    line = f"generate --subject {model} --class {CLASSES[2]} --frames 5 --seed 2 -o {out}"
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 0, result.output
    assert len(frames_of(out)) == 5


def test_variety_is_that_of_real_clips_where_clips_are_real_and_none_where_all_are_one():
    torch.manual_seed(0)
    real = [torch.randint(256, (6, 4, 3, 8, 8), dtype=torch.uint8) for _ in range(2)]
    assert diversity(real, real) == pytest.approx(1)
    same = [r[:1].expand(6, -1, -1, -1, -1) for r in real]
    assert diversity(same, real) == 0
    assert diversity(same, [r[:1] for r in real]) == 1  # one real clip: nothing to compare with


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (0.02, [], False),  # it has only begun
        (0.02, [0.01, 0.05], False),
        (0.5, [0.6, 0.7], False),
        (0.1, [0.02, 0.6], True),
        (0.05, [0.01, 0.02, 0.02, 0.04], True),
    ],
)
def test_collapse_is_variety_lost_or_too_long_in_coming(now, before, expected):
    assert has_collapsed(now, before) == expected


def test_differences_are_of_every_pair():
    levels = torch.tensor([0, 10, 40], dtype=torch.uint8).view(3, 1, 1, 1, 1)
    found = differences(levels.expand(-1, 2, 3, 4, 4))
    assert found.tolist() == pytest.approx([10, 40, 30])
