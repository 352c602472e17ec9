"""The weights that come with vidsynth: what they show, how they are gone on from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vidsynth import generate, video
from vidsynth.classes import Prompt
from vidsynth.errors import BadOption, BadSubject
from vidsynth.kinds import Conditions
from vidsynth.objectives import TrainBatch
from vidsynth.processes import Processes
from vidsynth.stages import clips_of
from vidsynth.subject import load_subject
from vidsynth.training import Run, train_step
from vidsynth_plugins.text2video_small import SmallOptions, TextToVideoSmall
from vidsynth_plugins.text2video_small.model import EMBEDDED

TEXT = "a red circle moves left"


def test_the_embedded_weights_are_small_and_say_where_they_come_from():
    size = sum(path.stat().st_size for path in EMBEDDED.iterdir())
    assert size <= 20e6
    card = load_subject(EMBEDDED).card
    assert card.recipe == "text2video-small" and card.target == "world:shapes"
    assert card.settings["clips"]["held_out"] == 6
    assert {"red", "circle", "left"} <= set(card.words)
    assert math.isclose(float(card.spec.fps), 12)


def test_the_wheel_takes_the_embedded_weights_along():
    """Everything in the packages' folders does, unless git ignores it."""
    root = Path(__file__).parents[2]
    ignored = (root / ".gitignore").read_text().split()
    assert not any("safetensors" in line or "weights" in line for line in ignored)
    assert {p.name for p in EMBEDDED.iterdir()} == {"subject.json", "generator.safetensors"}


def test_lora_begins_as_the_model_was_and_changes_the_attention_alone(tmp_path):
    source = load_subject(EMBEDDED)
    options = SmallOptions(**{**source.card.generator.options, "start": "embedded", "lora": 4})
    words = TextToVideoSmall.words_of(options, ["a purple circle moves left"])
    assert words == (*source.card.words, "purple")
    conditions = Conditions(kinds=(Prompt,), channels=1, words=words)
    torch.manual_seed(0)
    small = TextToVideoSmall(options, conditions=conditions)
    objective = small.objective(source.card.spec)
    before = {n: w.clone() for n, w in objective.generator.state_dict().items()}
    original = source.generator(torch.device("cpu"))._model
    assert original is not None
    clips, count, noise = torch.randn(1, 12, 3, 32, 32), torch.tensor([2]), torch.tensor([0.5])
    parts = clips[:, :3], clips[:, 3:], count, noise
    model = objective.generator
    with torch.no_grad():
        ours = model(*parts, *model.encoded([TEXT]))
        theirs = original(*parts, *original.encoded([TEXT]))
    assert torch.allclose(ours, theirs, atol=1e-5)
    batch = TrainBatch(
        clips.clamp(-1, 1), clips[:, :, :0], captions=("a purple circle moves left",)
    )
    for step in range(2):
        train_step(objective, batch, Run(step=step), Processes())
    changed = {n for n, w in objective.generator.state_dict().items() if not w.equal(before[n])}
    assert changed and all("lora" in n or n == "text.embedding.weight" for n in changed)
    small.load_weights(objective.generator.state_dict())


def test_a_model_of_another_shape_is_no_start(tmp_path):
    with pytest.raises(BadOption, match=r"-s generator.width=96"):
        TextToVideoSmall.words_of(SmallOptions(start="embedded", width=64), [TEXT])
    with pytest.raises(BadSubject, match="no subject folder"):
        TextToVideoSmall.words_of(SmallOptions(start=str(tmp_path)), [TEXT])


def test_the_default_command_makes_a_film_of_what_it_is_told(tmp_path, monkeypatch):
    """In the colour that was said; `vidsynth bench text` judges the rest."""
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))
    colours = {"red": 0, "green": 1, "blue": 2}
    for name, channel in colours.items():
        out = tmp_path / f"{name}.mp4"
        generate(None, out, prompt=f"a {name} circle moves left", seed=1, size=(32, 32))
        frames = torch.cat([c.frames for c in clips_of(video.read_chunks(out))]).float()
        assert frames.shape == (12, 3, 32, 32)
        middle = frames.flatten(2).quantile(0.5, dim=2)[..., None]
        seen = (frames.flatten(2) - middle).clamp(min=0).sum(dim=(0, 2))
        assert int(seen.argmax()) == channel, f"{name}: {seen.tolist()}"
