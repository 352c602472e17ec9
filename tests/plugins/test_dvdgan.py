"""DVD-GAN against the paper's arithmetic, closed forms and other implementations' mistakes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from vidsynth import registry
from vidsynth.classes import ClassLabel, Noise
from vidsynth.clip import VideoSpec
from vidsynth.conditioning import LabelMaps
from vidsynth.errors import BadOption, BadSubject
from vidsynth.kinds import Conditions
from vidsynth.objectives import TrainBatch
from vidsynth.processes import Processes
from vidsynth.testing import chunked, times
from vidsynth.training import Run, train_step
from vidsynth_plugins.dvdgan import (
    DVDGAN,
    DVDGANOptions,
    SpatialDiscriminator,
    SpatialOptions,
    TemporalDiscriminator,
    TemporalOptions,
)
from vidsynth_plugins.dvdgan.augment import augmented
from vidsynth_plugins.dvdgan.layers import ConditionalNorm, ConvGRU, orthogonality, settle
from vidsynth_plugins.dvdgan.networks import VideoGenerator, levels_for, widths
from vidsynth_plugins.dvdgan.objective import DVDGANObjective

# B batch, T frames, N classes, C channels, H, W pixels

NAMES = ("walk", "run", "jump")
SPEC = VideoSpec(height=16, width=16, fps=Fraction(12))
SMALL: dict[str, Any] = {"num_frames": 5, "filters": 4, "d_filters": 4, "noise": 8, "embedding": 6}


def plugin(**changes: Any) -> DVDGAN:
    options = DVDGANOptions(**{**SMALL, **changes})
    return DVDGAN(options, conditions=Conditions(kinds=(ClassLabel,), channels=len(NAMES)))


def objective(seed: int = 0, **changes: Any) -> DVDGANObjective:
    torch.manual_seed(seed)
    rule = plugin(**changes).objective(SPEC)
    assert isinstance(rule, DVDGANObjective)
    for phase in rule.phases:
        phase.module.train()
    return rule


def batch(count: int = 4, num_frames: int = 5, size: int = 16) -> TrainBatch:
    rng = torch.Generator().manual_seed(3)
    frames = torch.rand(count, num_frames, 3, size, size, generator=rng) * 2 - 1
    shares = F.one_hot(torch.arange(count) % len(NAMES), len(NAMES)).float()
    return TrainBatch(frames, shares.view(count, 1, -1, 1, 1))


def trained(**changes: Any) -> DVDGAN:
    """With weights after a few steps, so that classes and statistics differ from the start."""
    rule = objective(**changes)
    for step in range(3):
        torch.manual_seed(step)
        train_step(rule, batch(), Run(step=step), Processes())
    made = plugin(**changes)
    made.load_weights(rule.generator.state_dict())
    return made


def frames_of(made: DVDGAN, sizes: tuple[int, ...], *signals: Any, seed: int = 0) -> Tensor:
    count = sum(sizes)
    signals = signals or (ClassLabel.of("run", NAMES, count),)
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        clips = list(made.generate(chunked(times(count), sizes, signals=signals), SPEC, rng=rng))
    return torch.cat([c.frames for c in clips])


# What the paper says ------------------------------------------------------------------------------


def test_the_discriminators_see_the_share_of_pixels_that_the_paper_counts():
    """48 frames of 128x128: 786,432 pixels become 8 x 128^2 + 48 x 64^2 = 327,680, 58 % fewer."""
    frames = torch.zeros(1, 48, 1, 128, 128)
    spatial, temporal = SpatialDiscriminator(), TemporalDiscriminator()
    seen = [spatial.seen(frames), temporal.seen(frames)]
    assert [tuple(s.shape[1:]) for s in seen] == [(8, 1, 128, 128), (48, 1, 64, 64)]
    pixels = sum(s.numel() for s in seen)
    assert (frames.numel(), pixels) == (786_432, 327_680)
    assert 1 - pixels / frames.numel() == pytest.approx(0.58, abs=0.005)


def test_random_frames_are_of_one_clip_in_order_and_never_the_same_twice():
    torch.manual_seed(0)
    frames = torch.arange(2 * 12.0).view(2, 12, 1, 1, 1)
    judge = SpatialDiscriminator(SpatialOptions(filters=2))
    chosen = torch.stack([judge.seen(frames).flatten(1) for _ in range(200)])
    assert chosen.shape == (200, 2, 8)
    assert bool((chosen.diff(dim=2) > 0).all())
    assert bool((chosen[:, 0] < 12).all()) and bool((chosen[:, 1] >= 12).all())
    counts = torch.bincount(chosen[:, 0].flatten().long(), minlength=12) / 200
    assert counts.numpy() == pytest.approx(8 / 12, abs=0.12)  # each as often as any other


def test_the_first_two_blocks_of_motion_are_of_volumes_and_halve_time():
    judge = TemporalDiscriminator(TemporalOptions(filters=4, levels=4), condition_channels=0)
    features = judge(torch.rand(2, 12, 3, 64, 64), None).features[0]
    assert [tuple(f.shape) for f in features] == [
        (2, 4, 6, 16, 16),
        (2, 8, 3, 8, 8),
        (2 * 3, 16, 4, 4),
        (2 * 3, 32, 4, 4),
    ]


def test_scores_of_frames_are_added_up():
    torch.manual_seed(0)
    summed, mean = (
        SpatialDiscriminator(SpatialOptions(filters=4, levels=2, total=total)).eval()
        for total in ("sum", "mean")
    )
    mean.load_state_dict(summed.state_dict())
    still = torch.rand(2, 1, 3, 16, 16).expand(-1, 8, -1, -1, -1)
    with torch.no_grad():
        one = summed(still[:, :1], None).logits[0]
        assert torch.allclose(summed(still, None).logits[0], 8 * one, rtol=1e-4)
        assert torch.allclose(mean(still, None).logits[0], one, rtol=1e-4)


def test_the_gru_is_its_closed_form():
    """h = u h_before + (1 - u) relu(c), with r on the state before the candidate is convolved."""
    torch.manual_seed(0)
    unit = ConvGRU(4).eval()
    seen, state = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 4, 5, 6).relu()
    got, last = unit(seen, 3, state)
    for t in range(3):
        both = torch.cat([seen[:, t], state], dim=1)
        reset, update = unit.reset(both).sigmoid(), unit.update(both).sigmoid()
        candidate = unit.candidate(torch.cat([seen[:, t], reset * state], dim=1)).relu()
        state = update * state + (1 - update) * candidate
        assert torch.allclose(got[:, t], state, atol=1e-5)
    assert torch.equal(last, got[:, -1])


@pytest.mark.parametrize(("bias", "expected"), [(30.0, "before"), (-30.0, "candidate")])
def test_an_open_update_gate_keeps_the_state(bias, expected):
    unit = ConvGRU(2).eval()
    with torch.no_grad():
        unit.update.bias.fill_(bias)
        unit.candidate.bias.fill_(5.0)
    state = torch.rand(1, 2, 4, 4)
    _, last = unit(torch.zeros(1, 1, 2, 4, 4), 1, state)
    assert torch.allclose(last, state, atol=1e-4) == (expected == "before")


def test_what_is_seen_once_is_seen_at_every_step():
    unit = ConvGRU(3).eval()
    seen = torch.randn(2, 1, 3, 4, 4)
    once, _ = unit(seen, 4)
    again, _ = unit(seen.expand(-1, 4, -1, -1, -1), 4)
    assert torch.allclose(once, again, atol=1e-6)


def test_the_generator_fools_by_its_score_and_not_by_a_hinge():
    """Beyond the margin the discriminator's own hinge has no gradient; -D has."""
    rule = objective()
    seen = rule._judged(batch(), rule.make(batch()))
    torch.manual_seed(0)
    losses = rule.losses("G", batch(), 0)
    assert rule._seen is not None
    for name, (made, _) in rule._seen.items():
        assert losses[name].item() == pytest.approx(-made.logits[0].mean().item(), rel=1e-5)
    assert set(seen) == {"spatial", "temporal"}


def test_discriminators_take_several_steps_to_each_of_the_generator():
    rule = objective(d_steps=3)
    before = [p.clone() for p in rule.network.parameters()]
    changed = []
    for step in range(6):
        train_step(rule, batch(), Run(step=step), Processes())
        after = [p.clone() for p in rule.network.parameters()]
        changed.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        before = after
    assert changed == [True, False, False, True, False, False]


# The mistakes of other implementations ------------------------------------------------------------


def test_gains_are_one_and_offsets_zero_at_first():
    norm = ConditionalNorm(3, 4, steps=2, statistics="step").train()
    hidden = torch.randn(6, 2, 3, 4, 4) * 5 + 2
    done = norm(hidden, torch.randn(6, 1, 4), 0)
    assert done.mean(dim=(0, 3, 4)).abs().max() < 1e-4
    assert (done.var(dim=(0, 3, 4), unbiased=False) - 1).abs().max() < 1e-3


def test_each_time_step_has_statistics_of_its_own():
    hidden = torch.randn(8, 3, 2, 4, 4) + torch.tensor([0.0, 10.0, -5.0]).view(1, 3, 1, 1, 1)
    of_steps, of_clip = (
        ConditionalNorm(2, 4, steps=3, statistics=s).train()  # pyright: ignore
        for s in ("step", "clip")
    )
    condition = torch.zeros(8, 1, 4)
    assert of_steps(hidden, condition, 0).mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert of_clip(hidden, condition, 0).mean(dim=(0, 2, 3, 4)).abs().min() > 0.1
    assert of_clip(hidden, condition, 0).mean().abs() < 1e-4


def test_statistics_of_the_training_stand_in_at_sampling_and_the_last_for_all_later_steps():
    norm = ConditionalNorm(1, 4, steps=2, statistics="step").eval()
    norm.mean.copy_(torch.tensor([[1.0], [3.0]]))
    hidden = torch.full((1, 4, 1, 2, 2), 3.0)
    done = norm(hidden, torch.zeros(1, 1, 4), 0)[0, :, 0, 0, 0]
    assert done.tolist() == pytest.approx([2, 0, 0, 0], abs=1e-3)
    assert norm(hidden, torch.zeros(1, 1, 4), 5).abs().max() < 1e-3


def test_frames_of_a_clip_are_of_its_own_noise_and_class():
    """Rows of a batch of clips are batch-major: clip 0's frames, then clip 1's."""
    made = trained()
    assert made._network is not None
    noise = torch.randn(2, 1, 8)
    shares = torch.eye(3)[[0, 2]][:, None]
    with torch.no_grad():
        both, _ = made._network(noise, shares, 4)
        alone = [made._network(noise[n : n + 1], shares[n : n + 1], 4)[0] for n in (0, 1)]
    assert torch.allclose(both, torch.cat(alone), atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_norms_are_followed_in_training_steps_only():
    network = objective().network
    vectors = {n: b.clone() for n, b in network.named_buffers() if n.endswith("_u")}
    assert vectors
    inputs = torch.randn(2, 1, 8), torch.eye(3)[:2, None]
    network.eval()
    network(*inputs, 5)
    assert all(torch.equal(b, vectors[n]) for n, b in network.named_buffers() if n in vectors)
    network.train()
    network(*inputs, 5)
    assert any(not torch.equal(b, vectors[n]) for n, b in network.named_buffers() if n in vectors)


def test_a_step_runs_one_power_iteration_of_each_network():
    rule = objective()
    judge = rule.judges.get_submodule("spatial")
    assert isinstance(judge, SpatialDiscriminator)
    layer = judge.blocks[0].first
    norm = layer.parametrizations["weight"][0]
    matrix, u = layer.parametrizations["weight"].original.flatten(1), norm._u.clone()
    expected = F.normalize(matrix @ F.normalize(matrix.T @ u, dim=0), dim=0).detach()
    train_step(rule, batch(), Run(step=0), Processes())
    assert torch.allclose(norm._u, expected, atol=1e-5)


def test_sampling_weights_have_a_largest_singular_value_of_one():
    """Even of averaged weights, whose vectors are no unit vectors any more."""
    rule = objective()
    state = rule.generator.state_dict()
    for name in state:
        if name.endswith(("_u", "_v")):
            state[name] = state[name] * 0.1
    network = VideoGenerator(rule.options, classes=3, height=16, width=16)
    network.load_state_dict(state)
    settle(network)
    assert not any(parametrize.is_parametrized(m) for m in network.modules())
    for name, weight in network.named_parameters():
        if name.endswith("weight") and not name.endswith(("gain.weight", "bias.weight")):
            largest = torch.linalg.matrix_norm(weight.flatten(1), 2)
            assert float(largest) == pytest.approx(1, abs=0.02), name


def test_weights_start_orthogonal_and_the_regulariser_measures_it():
    network = objective().network
    assert orthogonality(network.to_frames).item() == pytest.approx(0, abs=1e-8)
    layer = network.to_frames.parametrizations["weight"]
    with torch.no_grad():
        layer.original[1].copy_(layer.original[0])
    row = layer.original[0].square().sum().item()
    assert orthogonality(network.to_frames).item() == pytest.approx(2 * row**2, rel=1e-4)


def test_the_regulariser_is_a_loss_of_its_own():
    assert "orthogonal" in objective(orthogonal=1e-4).losses("G", batch(), 0)
    assert "orthogonal" not in objective().losses("G", batch(), 0)


# Clips of any length ------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrence", ["each", "first", "none"])
@pytest.mark.parametrize("noise_per", ["clip", "frame"])
def test_pieces_join_to_the_clip_made_at_once(recurrence, noise_per):
    made = trained(recurrence=recurrence, noise_per=noise_per)
    whole = frames_of(made, (20,))
    pieces = frames_of(made, (1, 6, 13))
    assert (whole.float() - pieces.float()).abs().max() <= 1
    assert whole.shape == (20, 3, 16, 16)


def test_a_longer_clip_begins_like_a_shorter_one():
    made = trained()
    assert (frames_of(made, (5,)).int() - frames_of(made, (20,))[:5].int()).abs().max() <= 1


@pytest.mark.parametrize("noise_per", ["clip", "frame"])
def test_after_a_run_up_clips_are_judged_from_where_a_film_has_come_to(noise_per):
    rule = objective(run_up=7, noise_per=noise_per)
    for step in range(3):
        train_step(rule, batch(), Run(step=step), Processes())
    rule.network.eval()
    shares = batch().maps_BTCHW.mean(dim=(1, 3, 4))[:, None]
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        made = rule.make(batch())
        torch.manual_seed(seed)
        before = int(torch.randint(8, ()))
        noise = torch.randn(4, before + 5 if noise_per == "frame" else 1, 8)
        film, _ = rule.network(noise, shares, before + 5)
        torch.testing.assert_close(made, film[:, before:], rtol=1e-4, atol=1e-5)


def test_nothing_is_learnt_from_the_run_up(monkeypatch):
    rule = objective(run_up=7)
    seen: list[tuple[int, bool]] = []
    forward = rule.network.forward

    def noted(noise, shares, num_frames, memory=None):
        seen.append((num_frames, torch.is_grad_enabled()))
        return forward(noise, shares, num_frames, memory)

    monkeypatch.setattr(rule.network, "forward", noted)
    for seed in range(12):
        torch.manual_seed(seed)
        rule.make(batch())
    lengths = {frames for frames, learnt in seen if not learnt}
    assert lengths <= set(range(1, 8)) and len(lengths) > 3
    assert [frames for frames, learnt in seen if learnt] == [5] * 12


def test_only_memory_or_noise_makes_frames_differ():
    still = frames_of(trained(recurrence="none", statistics="clip"), (4,)).int()
    assert (still - still[:1]).abs().max() <= 1
    for changes in ({"recurrence": "first"}, {"recurrence": "none", "noise_per": "frame"}):
        moving = frames_of(trained(statistics="clip", **changes), (4,)).int()
        assert (moving - moving[:1]).abs().max() > 1


def test_another_seed_or_class_is_another_clip():
    made = trained()
    first = frames_of(made, (4,)).int()
    assert (first - frames_of(made, (4,), seed=1).int()).abs().max() > 2
    jump = ClassLabel.of("jump", NAMES, 4)
    assert (first - frames_of(made, (4,), jump).int()).abs().max() > 0


def test_noise_in_the_stream_is_what_is_used():
    made = trained()
    label = ClassLabel.of("run", NAMES, 6)
    noise = made.noise(6, rng=torch.Generator().manual_seed(0))
    assert torch.equal(frames_of(made, (6,), label, noise, seed=9), frames_of(made, (6,), seed=0))


@pytest.mark.parametrize("noise_per", ["clip", "frame"])
def test_truncated_noise_stays_within_and_keeps_its_shape(noise_per):
    rng = torch.Generator().manual_seed(0)
    noise = plugin(noise_per=noise_per).noise(7, rng=rng, truncation=0.5)
    assert isinstance(noise, Noise) and noise.values.shape == (7, 8)
    assert 0.3 < noise.values.abs().max() <= 0.5
    same = torch.equal(noise.values[0], noise.values[6])
    assert same == (noise_per == "clip")


# Discriminators, augmentation, options ------------------------------------------------------------


@pytest.mark.parametrize(("spatial", "temporal"), [("dvd_spatial", ""), ("", "dvd_temporal")])
def test_either_discriminator_can_be_left_out(spatial, temporal):
    rule = objective(spatial=spatial, temporal=temporal)
    names = {name.split("_")[0] for name in rule.losses("D", batch(), 1)}
    assert names == {"spatial"} if spatial else {"temporal"}


def test_without_any_discriminator_nothing_would_be_learnt():
    with pytest.raises(ValueError, match="at least one"):
        DVDGANOptions(spatial="", temporal="")


@pytest.mark.parametrize("name", ["dvd_spatial", "dvd_temporal"])
def test_other_generators_can_be_judged_by_them(name):
    """pix2pixHD on label maps, with pairs of frames."""
    other: Any = registry.load("generator", "pix2pixhd")
    small = {"filters": 4, "downsamplings": 1, "blocks": 1, "d_filters": 4, "perceptual": 0.0}
    options = other.Options(**small, discriminator=name, gan="hinge", previous=True)
    conditions = Conditions(kinds=(LabelMaps,), channels=2)
    rule = other(options, conditions=conditions).objective(SPEC)
    frames, maps = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 2, 16, 16)
    losses = train_step(rule, TrainBatch(frames, maps), Run(), Processes())
    assert losses["G/gan"] != 0 and losses["G/feature_matching"] > 0


@pytest.mark.parametrize("policy", ["colour", "translation", "cutout"])
def test_augmentation_is_the_same_in_every_frame_and_another_in_every_clip(policy):
    torch.manual_seed(0)
    still = torch.rand(6, 1, 3, 16, 16).expand(-1, 5, -1, -1, -1) - 0.5
    changed = augmented(still, (policy,))
    assert changed.shape == still.shape
    assert (changed - changed[:, :1]).abs().max() < 1e-6
    assert (changed - still).abs().amax(dim=(1, 2, 3, 4)).gt(0.01).sum() >= 4
    same = still[:1].expand(6, -1, -1, -1, -1)
    assert augmented(same, (policy,)).std(dim=0).max() > 0.01


def test_translation_moves_by_whole_pixels():
    torch.manual_seed(1)
    frames = torch.zeros(32, 1, 1, 16, 16)
    frames[:, :, :, 8, 8] = 1.0
    moved = augmented(frames, ("translation",))
    assert torch.allclose(moved.sum(dim=(1, 2, 3, 4)), torch.ones(32))
    places = moved.flatten(1).argmax(dim=1)
    rows, columns = places // 16, places % 16
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}


def test_gradients_pass_through_augmentation():
    frames = torch.rand(2, 3, 3, 16, 16, requires_grad=True)
    augmented(frames, ("colour", "translation")).sum().backward()
    assert frames.grad is not None and frames.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("size", "levels", "grid"),
    [((32, 32), 3, (4, 4)), ((64, 64), 4, (4, 4)), ((128, 128), 5, (4, 4)), ((48, 64), 3, (6, 8))],
)
def test_the_coarsest_grid_has_four_to_seven_places(size, levels, grid):
    assert levels_for(*size) == levels
    assert tuple(-(-s // 2**levels) for s in size) == grid


def test_channels_double_up_to_eight_times():
    assert widths(2, 5) == [2, 4, 8, 16, 16, 16]


def test_too_small_a_picture_is_refused():
    with pytest.raises(BadOption, match="16 pixels each way"):
        plugin().objective(VideoSpec(height=8, width=8, fps=Fraction(12)))


def test_a_run_up_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="run_up"):
        DVDGANOptions(run_up=-1)


def test_weights_of_other_options_are_refused():
    with pytest.raises(BadSubject, match="options"):
        plugin(filters=6).load_weights(objective().generator.state_dict())


def test_the_discriminators_are_found_by_name():
    assert registry.load("discriminator", "dvd_spatial") is SpatialDiscriminator
    assert registry.load("discriminator", "dvd_temporal") is TemporalDiscriminator
