"""The small text-to-video model: its maths, its words, its training, and the weights it ships."""

from __future__ import annotations

from fractions import Fraction
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor

from vidsynth import registry
from vidsynth.classes import Prompt, TextEmbedding
from vidsynth.clip import VideoSpec
from vidsynth.errors import BadOption, UnknownName
from vidsynth.kinds import Conditions, TextEncoder
from vidsynth.objectives import TrainBatch
from vidsynth.processes import Processes
from vidsynth.stages import timeline
from vidsynth.training import Run, train_step
from vidsynth_plugins.text2video_small import SmallOptions, TextToVideoSmall, diffusion
from vidsynth_plugins.text2video_small import objective as objective_module
from vidsynth_plugins.text2video_small.words import LENGTH, numbered, vocabulary

# B clips, T frames, C channels, H, W pixels

TINY = {
    "num_frames": 4,
    "stride": 2,
    "width": 16,
    "blocks": 1,
    "heads": 2,
    "text_width": 16,
    "text_layers": 1,
    "steps": 4,
}
TEXTS = ("a red circle moves left", "a blue square moves up")
SPEC = VideoSpec(height=16, width=16, fps=Fraction(12))


def plugin(words: tuple[str, ...] | None = None, **changes) -> TextToVideoSmall:
    options = SmallOptions(**{**TINY, **changes})
    known = TextToVideoSmall.words_of(options, TEXTS) if words is None else words
    conditions = Conditions(kinds=(Prompt,), channels=1, words=known)
    return TextToVideoSmall(options, conditions=conditions)


def ready(**changes) -> TextToVideoSmall:
    """With weights that do something: those of a fresh network make nothing of any prompt."""
    torch.manual_seed(0)
    made = plugin(**changes)
    state = made.objective(SPEC).generator.state_dict()
    moved = {
        n: w + 0.05 * torch.randn(w.shape) if w.is_floating_point() else w for n, w in state.items()
    }
    made.load_weights(moved)
    return made


def film(generator: TextToVideoSmall, prompt: Prompt, seed: int = 0) -> Tensor:
    pts = torch.arange(len(prompt), dtype=torch.float64) / 12
    chunks = [c.with_signal(prompt[8 * n : 8 * n + 8]) for n, c in enumerate(timeline(pts))]
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return torch.cat([c.frames for c in generator.generate(iter(chunks), SPEC, rng=rng)])


# Diffusion


def test_clip_noise_and_velocity_tell_of_each_other():
    torch.manual_seed(0)
    clip, hiss = torch.randn(5, 3), torch.randn(5, 3)
    alpha, sigma = (s[:, None] for s in diffusion.alpha_sigma(torch.linspace(0.1, 0.9, 5)))
    z = alpha * clip + sigma * hiss
    v = diffusion.velocity(clip, hiss, alpha, sigma)
    assert torch.allclose(diffusion.clip_of(z, v, alpha, sigma), clip, atol=1e-5)
    assert torch.allclose(sigma * z + alpha * v, hiss, atol=1e-5)
    assert torch.allclose(diffusion.velocity_to(z, clip, alpha, sigma), v, atol=1e-4)


def test_the_loss_of_the_clip_is_that_of_the_velocity():
    torch.manual_seed(0)
    clip, made, hiss = (torch.randn(2, 4, 3, 5, 5) for _ in range(3))
    times = torch.linspace(0.2, 1, 8).view(2, 4, 1, 1, 1)
    alpha, sigma = diffusion.alpha_sigma(times)
    z = alpha * clip + sigma * hiss
    error = diffusion.velocity(clip, hiss, alpha, sigma) - diffusion.velocity_to(
        z, made, alpha, sigma
    )
    expected = error.square().mean(dim=(2, 3, 4))
    assert torch.allclose(diffusion.loss(made, clip, sigma), expected, rtol=1e-4)


def test_the_last_time_is_noise_alone_and_the_first_the_clip():
    """Lin et al.'s zero terminal signal-to-noise ratio, exactly."""
    alpha, sigma = diffusion.alpha_sigma(torch.tensor([0.0, 0.5, 1.0]))
    assert alpha[2] == 0 and sigma[2] == 1
    assert alpha[0] == 1 and sigma[0] == 0
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(3))
    assert float(sigma[1] / alpha[1]) == pytest.approx(diffusion.SHIFT)


def test_guidance_is_its_closed_form():
    told, untold = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    assert diffusion.guided(told, untold, 3.0).tolist() == [4.0, -5.0]
    assert torch.equal(diffusion.guided(told, untold, 1.0), told)
    assert torch.equal(diffusion.guided(told, untold, 0.0), untold)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_known_clip_is_reached_from_any_noise(steps):
    torch.manual_seed(0)
    clip = torch.rand(3, 4) * 2 - 1

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        return diffusion.velocity_to(z, clip, *diffusion.alpha_sigma(time))

    assert torch.allclose(diffusion.sample(velocity, torch.randn(3, 4), steps), clip, atol=1e-4)


def test_samples_of_a_gaussian_come_near_it_and_nearer_with_more_steps():
    """The clip's best guess is known for clips drawn from a normal distribution."""
    torch.manual_seed(0)
    mean, deviation = 0.2, 0.3

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        alpha, sigma = diffusion.alpha_sigma(time)
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        return diffusion.velocity_to(z, mean + gain * (z - alpha * mean), alpha, sigma)

    noise = torch.randn(20_000)
    errors = []
    for steps in (8, 32, 128):
        made = diffusion.sample(velocity, noise, steps)
        assert float(made.mean()) == pytest.approx(mean, abs=0.01)
        errors.append(abs(float(made.std()) - deviation))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.02


def test_a_step_equals_ddim_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    torch.manual_seed(0)
    z, clip = torch.randn(2, 5), torch.rand(2, 5)
    scheduler.set_timesteps(10)
    now, then = (
        (scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt())
        for t in scheduler.timesteps[3:5]
    )
    theirs = scheduler.step(diffusion.velocity_to(z, clip, *now), int(scheduler.timesteps[3]), z)
    assert torch.allclose(diffusion.stepped(z, clip, now, then), theirs.prev_sample, atol=1e-5)


def test_times_are_spread_evenly_over_a_batch():
    found = diffusion.times(8)
    assert (found * 8).floor().tolist() == list(range(8))


# Words


def test_words_are_found_without_case_and_marks():
    assert vocabulary(["A red, RED circle!", "the end."]) == ("a", "circle", "end", "red", "the")
    assert vocabulary(["a new one"], known=("one", "red")) == ("one", "red", "a", "new")


@pytest.mark.parametrize("text", ["a красный circle", "a 🔴 circle", "ein roter Kreis", "a dragon"])
def test_a_word_that_is_not_known_is_named_with_those_that_are(text):
    with pytest.raises(BadOption, match=r"knows no .*it was taught 3 words, use these: a, circle"):
        numbered([text], ("a", "circle", "red"))


def test_a_long_prompt_is_refused_and_not_cut():
    with pytest.raises(BadOption, match=rf"has 200 words, .* at most {LENGTH - 2}"):
        numbered(["red " * 200], ("red",))
    ids, last = numbered(["red " * (LENGTH - 2), ""], ("red",))
    assert last.tolist() == [LENGTH - 1, 1] and ids.shape == (2, LENGTH)


def test_what_a_prompt_says_changes_the_film():
    generator = ready()
    one, other = (film(generator, Prompt.of(text, 4)).int() for text in TEXTS)
    assert (one - other).abs().max() > 2


def test_what_is_not_wanted_changes_the_film_unless_guidance_is_off():
    prompt = Prompt.of(TEXTS[0], 4)
    plain, against = (film(ready(negative=n), prompt).int() for n in ("", TEXTS[1]))
    assert (plain - against).abs().max() > 1
    plain, against = (film(ready(negative=n, guidance=1.0), prompt) for n in ("", TEXTS[1]))
    assert torch.equal(plain, against)


# Long films


def test_the_first_moment_is_plain_sampling():
    generator = ready()
    model = generator._model
    assert model is not None
    drawn = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    nothing, none = torch.zeros(2, 2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
    texts = model.encoded([TEXTS[0], ""])

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        made = model(z.expand(2, -1, -1, -1, -1), nothing, none, time.expand(2), *texts)
        told, untold = diffusion.velocity_to(z, made, *diffusion.alpha_sigma(time))
        return diffusion.guided(told, untold, generator.options.guidance)

    with torch.inference_mode():
        plain = diffusion.sample(velocity, drawn, generator.options.steps)
    expected = ((plain + 1) * 127.5).round().clamp(0, 255)
    made = film(generator, Prompt.of(TEXTS[0], 2)).float()
    assert (made - expected).abs().max() <= 1


def test_a_longer_film_begins_like_a_shorter_one():
    generator = ready()
    whole = film(generator, Prompt.of(TEXTS[0], 17))
    for length in (1, 3, 8):
        assert torch.equal(film(generator, Prompt.of(TEXTS[0], length)), whole[:length])


def test_a_moment_is_made_behind_what_comes_before_it():
    """Another beginning, another end, though the text and the noise are the same."""
    generator = ready()
    index = torch.tensor([0, 0, 1, 1])
    mixed = film(generator, Prompt(index=index, texts=TEXTS)).int()
    alone = film(generator, Prompt.of(TEXTS[1], 4)).int()
    assert (mixed[2:] - alone[2:]).abs().max() > 0


def test_a_prompt_holds_from_the_moment_on_in_which_it_begins():
    generator = ready()
    index = torch.tensor([0] * 8 + [1] * 8)
    changed = film(generator, Prompt(index=index, texts=TEXTS))
    alone = film(generator, Prompt.of(TEXTS[0], 16))
    assert torch.equal(changed[:8], alone[:8])
    assert (changed[8:].int() - alone[8:].int()).abs().max() > 1


# Training


def test_training_meets_what_sampling_meets():
    """The frames of a moment, behind those before it, black where there are none."""
    objective = plugin(num_frames=8).objective(SPEC)
    torch.manual_seed(0)
    now = objective._moments(400, 4)
    assert (now == 0).float().mean() == pytest.approx(0.5, abs=0.06)
    assert [int((now == n).sum()) > 40 for n in range(1, 4)] == [True] * 3
    clips = torch.arange(1.0, 9.0).view(1, 8, 1, 1, 1).expand(400, 8, 3, 16, 16)
    moment, before = objective._parts(clips, now)
    assert moment[:, :, 0, 0, 0].tolist() == [[2 * n + 1, 2 * n + 2] for n in now.tolist()]
    seen = before.mean(dim=(2, 3, 4)).round().tolist()
    assert seen == [[max(0, 2 * n - 5 + p) for p in range(6)] for n in now.tolist()]


def batch_of(count: int = 4) -> TrainBatch:
    """Bright clips of the one prompt, dark clips of the other."""
    frames = torch.full((count, 4, 3, 16, 16), 0.8)
    frames[1::2] = -0.8
    return TrainBatch(frames, frames.new_zeros(count, 4, 0, 16, 16), captions=TEXTS * (count // 2))


def test_training_lowers_the_loss_and_learns_which_prompt_is_which(monkeypatch):
    """From noise alone, of first moments, where nothing but the text can tell."""
    monkeypatch.setattr(diffusion, "times", torch.ones)
    monkeypatch.setattr(objective_module, "FIRST", 1.0)
    torch.manual_seed(0)
    objective = plugin(learning_rate=1e-2, untold=0.0).objective(SPEC)
    losses = []
    for step in range(150):
        torch.manual_seed(step)
        objective.at_progress(step / 150)
        losses.append(train_step(objective, batch_of(), Run(step=step), Processes())["G/velocity"])
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    model = objective.generator
    with torch.no_grad():
        nothing, none = torch.zeros(2, 2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
        noise = torch.randn(2, 2, 3, 16, 16)
        made = model(noise, nothing, none, torch.ones(2), *model.encoded(TEXTS))
    bright, dark = made.mean(dim=(1, 2, 3, 4)).tolist()
    assert bright > 0.5 and dark < -0.5


class Letters(TextEncoder):
    """A row for each letter of a prompt, and their mean."""

    def encode(self, prompts):
        made = []
        for prompt in prompts:
            rows = torch.eye(26)[[ord(c) - 97 for c in prompt if c.isalpha()] or [0]]
            pooled = rows.mean(dim=0, keepdim=True)
            made.append(TextEmbedding(pooled=pooled, tokens=rows, prompt=prompt))
        return made


def test_an_encoder_plugin_takes_the_place_of_its_own():
    letters = EntryPoint("letters", f"{__name__}:Letters", registry.group("encoder"))
    with registry.only([letters]):
        generator = ready(encoder="letters")
        assert generator.conditions.words == ()
        one, other = (film(generator, Prompt.of(t, 4)).int() for t in ("any words", "at all"))
        assert (one - other).abs().max() > 2
        state = generator.objective(SPEC).generator.state_dict()
        assert not any(name.startswith("text.") for name in state)
        with pytest.raises(UnknownName, match="no encoder 'leters'"):
            plugin(encoder="leters").objective(SPEC)


def test_options_that_cannot_be_are_refused():
    wrong = {"lora": 4, "num_frames": 2, "untold": 1.0, "width": 12, "text_width": 17, "stride": 3}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name if name != "stride" else "num_frames"):
            plugin(**{name: value})
