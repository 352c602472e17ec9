"""vid2vid: how frames follow from frames, and what training asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidsynth import registry
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps, PoseSequence
from vidsynth.errors import BadOption, BadSubject, DeviceUnavailable, IncompatibleStages
from vidsynth.kinds import Conditions
from vidsynth.objectives import TrainBatch
from vidsynth.plate import BackgroundPlate
from vidsynth.processes import Processes
from vidsynth.stream import Chunk
from vidsynth.training import Run, train_step
from vidsynth_plugins.flow import Remembering
from vidsynth_plugins.pix2pixhd import MultiscalePatchOptions
from vidsynth_plugins.vid2vid import Vid2Vid, Vid2VidOptions, VideoPatch
from vidsynth_plugins.vid2vid.networks import Sequencer, is_cut
from vidsynth_plugins.vid2vid.objective import Vid2VidObjective, _rows, length_at, make

CLASSES = 3
SMALL: dict[str, Any] = {"filters": 4, "blocks": 1, "d_filters": 4, "perceptual": 0.0, "cut": 1.0}
FACE = (6.0, 4.0, 18.0, 20.0)


@pytest.fixture(autouse=True)
def _plugins() -> Iterator[None]:
    where = "vidsynth_plugins."
    group = "vidsynth.discriminators"
    entries = [
        EntryPoint("multiscale_patch", f"{where}pix2pixhd:MultiscalePatch", group),
        EntryPoint("video_patch", f"{where}vid2vid:VideoPatch", group),
    ]
    with registry.only(entries):
        torch.manual_seed(0)
        yield


class Labels(LabelMaps):
    """Label maps that also know where a face is."""

    def regions(self) -> Mapping[str, Tensor]:
        return {"face": torch.tensor(FACE).expand(len(self), 4)}


def conditions(background: bool = False) -> Conditions:
    return Conditions(kinds=(Labels,), channels=CLASSES, background=background)


def spec(height: int = 32, width: int = 32) -> VideoSpec:
    return VideoSpec(height=height, width=width, fps=Fraction(25))


def chunks(num_frames: int, size: int, *, seed: int = 1, pictures: bool = False) -> list[Chunk]:
    """One video of random labels over one random plate, cut into chunks of `size` frames."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (num_frames, 32, 32), generator=rng).to(torch.uint8)
    plate = torch.randint(0, 256, (3, 32, 32), generator=rng).to(torch.uint8)
    frames = torch.randint(0, 256, (num_frames, 3, 32, 32), generator=rng).to(torch.uint8)
    pts = torch.arange(num_frames, dtype=torch.float64) / 25
    found = []
    for start in range(0, num_frames, size):
        span = slice(start, start + size)
        clip = Clip(frames[span], pts[span]) if pictures else None
        chunk = Chunk(pts[span], clip)
        chunk = chunk.with_signal(Labels(labels=labels[span], num_classes=CLASSES))
        index = torch.zeros(len(pts[span]), dtype=torch.int64)
        found.append(chunk.with_signal(BackgroundPlate(image=plate, frame_index=index)))
    return found


def noisy(module: nn.Module) -> nn.Module:
    """With weights that make its pictures depend strongly on what it is given."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return module


def trained(background: bool = False, **options: Any) -> Vid2Vid:
    plugin = Vid2Vid(Vid2VidOptions(**{**SMALL, **options}), conditions=conditions(background))
    plugin.load_weights(noisy(plugin.objective(spec()).generator).state_dict())
    return plugin


@torch.inference_mode()
def render(plugin: Vid2Vid, video: list[Chunk], at: VideoSpec | None = None) -> Clip:
    rng = torch.Generator().manual_seed(0)
    return Clip.concat(list(plugin.generate(iter(video), at or spec(), rng=rng)))


def sequencer(background: bool = False, **options: Any) -> Sequencer:
    given = Vid2VidOptions(**{**SMALL, **options})
    return Sequencer(given, channels=CLASSES, background=background)


def objective(background: bool = False, **options: Any) -> Vid2VidObjective:
    network = sequencer(background, **options)
    return Vid2VidObjective(network.options, network)


def batch(num_frames: int, *, batch: int = 2, size: int = 32) -> TrainBatch:
    """A blurred noise picture that drifts one pixel a frame to the left, under random maps."""
    rng = torch.Generator().manual_seed(2)
    wide = torch.rand(batch, 3, size, size + num_frames, generator=rng) * 2 - 1
    wide = nn.functional.avg_pool2d(wide, 5, 1, 2)
    frames = torch.stack([wide[..., n : n + size] for n in range(num_frames)], dim=1)
    return TrainBatch(
        frames_BTCHW=frames,
        maps_BTCHW=torch.rand(batch, num_frames, CLASSES, size, size, generator=rng),
        background_CHW=torch.rand(3, size, size, generator=rng) * 2 - 1,
        weights_BT1HW=torch.rand(batch, num_frames, 1, size, size, generator=rng),
        regions={"face": torch.tensor(FACE).expand(batch, num_frames, 4)},
    )


def step(rule: Vid2VidObjective, on: TrainBatch, progress: float = 0.0) -> dict[str, float]:
    rule.at_progress(progress)
    return train_step(rule, on, Run(), Processes())


# How a frame is composed


def head(module: Sequencer, name: str) -> nn.Conv2d:
    return getattr(module.levels[-1], name)[-1]


def pinned(*, share: float, flow: tuple[float, float] = (0.0, 0.0), **options: Any) -> Sequencer:
    """A noisy network that carries on by this flow, and paints this share (0 or 1)."""
    made = sequencer(stem="conv7", **{"least_paint": 0.0, **options})
    noisy(made)
    for name, values in (("share_head", [1000 * (2 * share - 1)]), ("flow_head", flow)):
        conv = head(made, name)
        nn.init.zeros_(conv.weight)
        conv.bias.data = torch.tensor(values) / (made.options.flow_px if name == "flow_head" else 1)
    return made


@torch.no_grad()
def film(network: Sequencer, maps: Tensor, plate: Tensor | None = None) -> list[Any]:
    past, found = None, []
    for now in maps:
        found.append(network(now, past, plate))
        past = found[-1].past
    return found


def test_where_the_share_of_paint_is_nil_the_frame_before_is_shifted_by_the_flow():
    maps = torch.rand(3, 1, CLASSES, 32, 32)
    first, second, third = film(pinned(share=0.0, flow=(2.0, -1.0)), maps)
    assert first.frame.std() > 0.1
    for before, now in ((first, second), (second, third)):
        inside = now.frame[..., 1:, :-2] - before.frame[..., :-1, 2:]
        assert inside.abs().max() < 1e-5


def test_no_flow_and_no_paint_repeat_a_frame_for_ever():
    made = film(pinned(share=0.0), torch.rand(30, 1, CLASSES, 32, 32))
    assert (made[-1].frame - made[0].frame).abs().max() < 1e-3


def test_what_is_carried_on_fades_by_the_least_share_of_paint():
    network, maps = pinned(share=0.0, least_paint=0.25), torch.rand(6, 1, CLASSES, 32, 32)
    made = film(network, maps)
    expected = made[0].frame
    for found in made[1:]:
        expected = 0.75 * expected + 0.25 * found.raw
        assert (found.frame - expected).abs().max() < 1e-4


def test_the_past_is_seen_through_noise_in_training_only():
    network, maps = sequencer(past_noise=0.3), torch.rand(3, 1, CLASSES, 32, 32)
    noisy(network)

    def frames(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([made.frame for made in film(network, maps)])

    once, again = (frames(seed) for seed in (1, 2))
    assert torch.equal(once[0], again[0]), "a first frame has no past"
    assert not torch.equal(once[1], again[1])
    assert torch.equal(once, frames(1)), "the noise is that of the step"
    network.eval()
    assert torch.equal(frames(1), frames(2))


def test_where_all_is_paint_nothing_is_carried_on():
    made = film(pinned(share=1.0, flow=(2.0, -1.0)), torch.rand(3, 1, CLASSES, 32, 32))
    assert all((m.frame - m.raw).abs().max() < 1e-6 for m in made)


def test_the_first_frame_is_all_paint_and_has_no_flow():
    first, second = film(pinned(share=0.0), torch.rand(2, 1, CLASSES, 32, 32))
    assert torch.equal(first.frame, first.raw) and first.flow is None
    assert second.flow is not None and second.share is not None


def test_the_plate_shows_where_the_subjects_layer_is_clear_whatever_is_carried_on():
    network = pinned(share=0.0, flow=(3.0, 3.0), background=True)
    conv = head(network, "paint_head")
    conv.weight.data[3:] = 0
    conv.bias.data[3:] = -1000.0
    plate = torch.rand(3, 32, 32)
    for made in film(network, torch.rand(3, 1, CLASSES, 32, 32), plate):
        assert torch.equal(made.frame[0], plate)
    with pytest.raises(ValueError, match="plate"):
        network(torch.rand(1, CLASSES, 32, 32), None)


def test_the_subject_moves_without_its_background():
    """What is carried on is the layer, so that no plate sticks to it."""
    network = pinned(share=0.0, flow=(4.0, 0.0), background=True)
    maps = torch.zeros(2, 1, CLASSES, 32, 32)
    plate = torch.linspace(-1, 1, 32).expand(3, 32, 32)
    first, second = film(network, maps, plate)
    mask = first.past.layers[0][:, 3:]
    expected = first.past.layers[0][..., 4:]
    assert 0.0 < float(mask.mean()) < 1.0
    assert (second.past.layers[0][..., :-4] - expected).abs().max() < 1e-5


def test_foreground_classes_have_a_painter_of_their_own():
    network = sequencer(foreground=(2,))
    noisy(network)
    maps = torch.zeros(1, 1, CLASSES, 32, 32)
    maps[..., 2, 8:24, 8:24] = 1
    (before,) = film(network, maps)
    noisy(network.levels[0].front_head)  # pyright: ignore
    (after,) = film(network, maps)
    changed = (after.frame - before.frame).abs().amax(dim=1)[0]
    assert changed[8:24, 8:24].mean() > 0.05
    changed[8:24, 8:24] = 0
    assert changed.max() == 0


def test_without_flow_every_frame_is_paint():
    network = sequencer(flow=False)
    made = film(network, torch.rand(2, 1, CLASSES, 32, 32))
    assert all(m.flow is None and torch.equal(m.frame, m.raw) for m in made)


def test_a_finer_level_adds_to_the_features_of_the_one_below():
    network = sequencer(levels=2, stem="conv7")
    noisy(network)
    maps = torch.rand(2, 1, CLASSES, 32, 48)
    before = film(network, maps)[1].frame
    noisy(network.levels[0].paint.blocks)  # pyright: ignore
    noisy(network.levels[0].labels)  # pyright: ignore
    assert (film(network, maps)[1].frame - before).abs().max() > 0.01


# How a sequence begins and ends


def test_given_frames_open_a_sequence_untouched():
    video = chunks(5, 2, pictures=True)
    made = render(trained(start="given"), video)
    given = torch.cat([c.clip.frames for c in video if c.clip])
    assert torch.equal(made.frames[:2], given[:2])
    assert not torch.equal(made.frames[2:], given[2:])


def test_other_opening_frames_lead_to_another_film():
    video = chunks(4, 4, pictures=True)
    plugin = trained(start="given")
    assert video[0].clip is not None
    other = video[0].with_clip(Clip(255 - video[0].clip.frames, video[0].pts))
    ours, theirs = render(plugin, video).frames[2:], render(plugin, [other]).frames[2:]
    assert (ours.float() - theirs.float()).abs().mean() > 1


def test_given_frames_that_are_not_there_are_asked_for():
    with pytest.raises(IncompatibleStages, match=r"generator\.start"):
        render(trained(start="given"), chunks(1, 1))


def test_an_image_network_opens_from_the_current_maps_alone():
    network = sequencer(start="image")
    noisy(network)
    maps = torch.rand(3, 1, CLASSES, 32, 32)
    one, other = film(network, maps), film(network, maps.flip(0)[1:])
    assert torch.equal(one[1].frame, other[0].frame)  # the same maps, the first or the second
    assert one[1].flow is None and one[2].flow is not None


def test_a_cut_in_the_conditioning_starts_anew():
    plugin = trained(cut=0.8)
    here, there = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    here[:, 4:12, 4:12], there[:, 20:28, 20:28] = 1, 2

    class OnlySquares(Labels):
        def draw(self, height: int, width: int) -> Tensor:
            return (
                super().draw(height, width)
                * torch.tensor([0, 1, 1], dtype=torch.uint8)[:, None, None]
            )

    plugin.conditions = Conditions(kinds=(OnlySquares,), channels=CLASSES)

    def squares(*parts: Tensor) -> list[Chunk]:
        labels = torch.cat(parts)
        pts = torch.arange(len(labels), dtype=torch.float64) / 25
        return [Chunk(pts).with_signal(OnlySquares(labels=labels, num_classes=CLASSES))]

    joined = render(plugin, squares(here, there)).frames
    assert torch.equal(joined[3:], render(plugin, squares(there)).frames)
    plugin.options = replace(plugin.options, cut=1.0)
    carried = render(plugin, squares(here, there)).frames
    assert not torch.equal(carried[3:], joined[3:])


def test_cuts_are_large_changes_and_motion_is_none():
    there = torch.zeros(1, 1, 64, 64)
    there[..., 16:48, 16:48] = 1
    assert not is_cut(there, there.roll(4, dims=3), 0.8)
    assert is_cut(there, there.roll(32, dims=3), 0.8)
    assert not is_cut(there * 0, there * 0, 0.8)
    assert is_cut(there * 0, there, 0.8)


@pytest.mark.parametrize(
    "options", [{}, {"background": True}, {"start": "image", "past": 3}], ids=str
)
def test_frames_do_not_depend_on_how_the_video_is_chunked(options: dict[str, Any]):
    plugin = trained(**options)
    whole = render(plugin, chunks(7, 7)).frames
    assert whole.float().std() > 10
    for size in (1, 3):
        assert torch.equal(render(plugin, chunks(7, size)).frames, whole)


def test_two_streams_do_not_disturb_each_other():
    plugin = trained()
    videos = [chunks(4, 2, seed=seed) for seed in (1, 5)]
    alone = [render(plugin, video).frames for video in videos]
    streams = [plugin.generate(iter(v), spec(), rng=torch.Generator()) for v in videos]
    with torch.inference_mode():
        pairs = [tuple(next(s).frames for s in streams) for _ in range(2)]
    for together, expected in zip(zip(*pairs, strict=True), alone, strict=True):
        assert torch.equal(torch.cat(together), expected)


def test_what_is_remembered_does_not_grow_with_the_film():
    network = sequencer(levels=2, stem="conv7")
    made = film(network, torch.rand(6, 1, CLASSES, 32, 32))
    sizes = [sum(x.numel() for x in (m.past.maps, *m.past.frames, *m.past.layers)) for m in made]
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("height, width", [(1, 1), (17, 33), (50, 20)])
def test_any_size_renders(height: int, width: int):
    clip = render(trained(), chunks(2, 2), spec(height, width))
    assert clip.frames.shape == (2, 3, height, width)


def test_empty_chunks_and_empty_streams_pass():
    plugin = trained()
    empty = Chunk(torch.zeros(0, dtype=torch.float64))
    clips = list(plugin.generate(iter([empty, *chunks(2, 2)]), spec(), rng=torch.Generator()))
    assert [len(c) for c in clips] == [0, 2]
    assert list(plugin.generate(iter([]), spec(), rng=torch.Generator())) == []


def test_half_precision_on_the_cpu_is_refused():
    plugin = trained()
    assert plugin._sequencer is not None
    with pytest.raises(DeviceUnavailable):
        plugin.load_weights({n: w.half() for n, w in plugin._sequencer.state_dict().items()})


def test_weights_of_other_options_are_refused_by_what_does_not_fit():
    with pytest.raises(BadSubject, match="options"):
        trained(filters=8).load_weights(sequencer().state_dict())


# Training


def test_no_gradient_runs_back_beyond_the_cut():
    on = batch(4)

    def reach(backprop: int) -> list[bool]:
        """Which frames' maps the last frame's gradient reaches through the frames it was made
        from; each frame sees the maps of two frames before it anyway."""
        maps = on.maps_BTCHW.clone().requires_grad_()
        network = sequencer(backprop=backprop, past=1, learnt=4)
        noisy(network)
        made = make(network, replace(on, maps_BTCHW=maps))
        made[-1].frame.square().mean().backward()
        assert maps.grad is not None
        return (maps.grad.abs().flatten(2).sum(dim=(0, 2)) > 0).tolist()

    assert reach(1) == [False, False, True, True]
    assert reach(2) == [False, True, True, True]
    assert reach(4) == [True, True, True, True]


def test_training_sees_the_frames_it_made_and_not_the_real_ones():
    rule = objective()
    on = batch(3)
    other = replace(on, frames_BTCHW=-on.frames_BTCHW)
    ours, theirs = (make(rule.sequencer, b) for b in (on, other))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.frame, b.frame)
    again = film(rule.sequencer, on.maps_BTCHW.transpose(0, 1), on.background_CHW)
    for a, b in zip(ours, again, strict=True):
        assert torch.allclose(a.frame, b.frame, atol=1e-6)


def test_given_frames_open_training_sequences_and_are_not_learnt():
    rule = objective(start="given")
    assert rule.num_frames == 2 + rule.options.sequence
    assert len(make(rule.sequencer, batch(rule.num_frames))) == rule.options.sequence


def test_only_the_end_of_a_sequence_is_learnt():
    made = make(sequencer(learnt=2), batch(5))
    assert [m.frame.requires_grad for m in made] == [False, False, False, True, True]


def test_what_is_learnt_lies_anywhere_in_a_sequence():
    rule, on = objective(learnt=2), batch(6)
    lengths = set()
    for step_number in range(40):
        shown = rule._shown(on, step_number)
        lengths.add(shown.num_frames)
        assert torch.equal(shown.frames_BTCHW[:, -1], on.frames_BTCHW[:, -1])
        assert shown.regions["face"].shape[1] == shown.num_frames
    assert lengths == {2, 3, 4, 5, 6}


def test_the_real_flow_is_found_and_trusted_where_it_holds():
    rule, on = objective(), batch(3, size=64)
    made = make(rule.sequencer, on)
    motion = rule._motion(made, on.frames_BTCHW, 3)
    assert motion is not None
    inside = motion.true[..., 8:-8, 8:-8]
    assert inside[:, :, 0].mean() == pytest.approx(1.0, abs=0.1)
    assert inside[:, :, 1].abs().mean() < 0.1
    assert motion.sure[..., 8:-8, 8:-8].mean() > 0.9
    unlike = rule._motion(made, torch.rand_like(on.frames_BTCHW) * 2 - 1, 3)
    assert unlike is not None and unlike.sure.mean() < 0.5


class Known:
    """Says that everything moves two pixels to the right and one up."""

    name = "known"
    asked = 0

    def flow_between(self, first: Tensor, second: Tensor):
        Known.asked += 1
        flow = torch.tensor([2.0, -1.0]).expand(*first.shape[1:], 2)
        return flow.clone().numpy()


INSIDE = 30 / 32 * 31 / 32
"""Share of the picture that was in the picture before."""


def motion_losses(share: float, flow: tuple[float, float], **options: Any) -> dict[str, Tensor]:
    """Of a network with this flow, on a film whose flow is known to be (2, -1)."""
    weights = {"flow_weight": 10.0, "carry_weight": 1.0, "learnt": 3}
    network = pinned(share=share, flow=flow, **weights, **options)
    rule = Vid2VidObjective(network.options, network)
    rule._flow = Known()
    # A picture that moves by that flow: pixel (x, y) was at (x + 2, y - 1).
    wide = nn.functional.avg_pool2d(torch.rand(1, 3, 40, 40) * 2 - 1, 5, 1, 2)
    frames = torch.stack([wide[..., 4 - n : 36 - n, 2 * n : 2 * n + 32] for n in range(3)], 1)
    maps = torch.rand(1, 3, CLASSES, 32, 32)
    return rule.losses("G", TrainBatch(frames, maps), 0)


def test_the_flow_losses_are_nil_for_the_true_flow():
    true = motion_losses(0.0, (2.0, -1.0))
    assert true["flow"] < 1e-4
    still = motion_losses(0.0, (0.0, 0.0))
    # 10 times the mean of |2| and |-1|, where the flow holds: all but parts of two edges.
    assert 15 * INSIDE <= float(still["flow"].detach()) < 15
    assert true["flow_warp"] < 0.25 * still["flow_warp"]


def test_a_film_that_carries_on_by_the_true_flow_is_steady():
    assert motion_losses(0.0, (2.0, -1.0))["steady"] < 1e-4
    assert motion_losses(1.0, (2.0, -1.0))["steady"] > 0.5


def test_paint_costs_where_the_flow_holds():
    assert motion_losses(0.0, (2.0, -1.0))["carry"] == 0
    assert INSIDE <= float(motion_losses(1.0, (2.0, -1.0))["carry"].detach()) < 1


def test_no_pair_of_frames_is_looked_at_twice():
    Known.asked = 0
    flow = Remembering(Known(), megabytes=1)
    first, second = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    ours = flow.flow_between(first, second)
    assert (ours == flow.flow_between(first, second)).all() and Known.asked == 1
    flow.flow_between(second, first)
    assert Known.asked == 2


def test_what_was_not_asked_for_longest_is_forgotten_first():
    flow = Remembering(Known(), megabytes=1)
    frames = torch.randint(0, 256, (6, 3, 256, 256), dtype=torch.uint8)  # 256 KiB a flow
    for n in range(5):
        flow.flow_between(frames[n], frames[n + 1])
    Known.asked = 0
    flow.flow_between(frames[4], frames[5])
    assert Known.asked == 0
    flow.flow_between(frames[0], frames[1])
    assert Known.asked == 1


def test_rows_of_frames_end_at_the_last_in_what_is_learnt():
    assert _rows(7, 7, 3, 1) == [[1, 2, 3], [4, 5, 6]]
    assert _rows(7, 3, 3, 1) == [[4, 5, 6]]
    assert _rows(7, 1, 3, 3) == [[0, 3, 6]]
    assert _rows(6, 6, 3, 3) == []


def test_video_discriminators_join_when_sequences_are_long_enough():
    rule = objective(sequence=2, longest=8, learnt=8, temporal_scales=2)
    names = []
    for progress in (0.0, 0.5, 0.99):
        rule.at_progress(progress)
        values = step(rule, batch(rule.num_frames), progress)
        names.append({n for n in values if n.startswith("G/video") and n.endswith("_gan")})
    assert names == [set(), {"G/video0_gan"}, {"G/video0_gan", "G/video1_gan"}]


def test_sequences_double_in_equal_shares_of_the_training():
    found = [length_at(n / 8, 2, 12) for n in range(9)]
    assert found == [2, 2, 4, 4, 8, 8, 12, 12, 12]
    assert length_at(0.9, 3, 3) == 3


def test_the_video_discriminator_sees_frames_then_the_flows_between_them():
    judge = VideoPatch(MultiscalePatchOptions(filters=4), condition_channels=2, num_frames=3)
    frames, flows = torch.rand(1, 6, 3, 16, 16), torch.rand(1, 6, 2, 16, 16)
    seen = judge.stack(frames, flows)
    first = [frames[:, 0], frames[:, 1], frames[:, 2], flows[:, 1], flows[:, 2]]
    second = [frames[:, 3], frames[:, 4], frames[:, 5], flows[:, 4], flows[:, 5]]
    assert torch.equal(seen, torch.cat([torch.cat(first, 1), torch.cat(second, 1)]))


def test_regions_have_a_discriminator():
    rule, on = objective(regions=("face",)), batch(3)
    assert {"G/face_gan", "D/face_real", "D/face_fake"} <= step(rule, on).keys()
    # Of several processes all have the same losses, whatever each one's sample shows.
    absent = replace(on, regions={"face": torch.zeros(2, 3, 4)})
    assert step(rule, absent).keys() == step(rule, on).keys()
    assert "G/face_gan" not in step(rule, replace(on, regions={}))


def test_the_paint_is_judged_too_where_asked_for():
    assert "G/raw_gan" not in step(objective(), batch(2))
    assert {"G/raw_gan", "D/raw_fake"} <= step(objective(judge_raw=True, raw=1.0), batch(2)).keys()


@pytest.mark.parametrize(
    "options",
    [
        {"background": True, "regions": ("face",), "region_size": 16},
        {"start": "image", "gan": "hinge", "judge_raw": True},
        {"levels": 2, "stem": "conv7", "norm": "affine", "foreground": (1,)},
        {"flow": False, "start": "given"},
    ],
    ids=str,
)
def test_a_sequencer_learns_its_batch(options: dict[str, Any]):
    rule = objective(learning_rate=2e-3, **options)
    on = batch(rule.num_frames)

    def distance() -> float:
        with torch.no_grad():
            made = torch.stack([m.frame for m in make(rule.sequencer, on)], 1)
        return float((made - on.frames_BTCHW[:, -made.shape[1] :]).abs().mean())

    before = distance()
    for _ in range(25):
        values = step(rule, on)
    assert all(torch.isfinite(torch.tensor(list(values.values()))))
    assert distance() < 0.9 * before


def test_levels_are_trained_from_coarse_to_fine():
    rule = objective(levels=2, stem="conv7", coarse_fraction=0.25, fixed_fraction=0.25)
    on, network = batch(rule.num_frames), rule.sequencer

    def moved(progress: float) -> list[bool]:
        before = [[p.detach().clone() for p in level.parameters()] for level in network.levels]
        step(rule, on, progress)
        return [
            any(not torch.equal(p, q) for p, q in zip(level.parameters(), old, strict=True))
            for level, old in zip(network.levels, before, strict=True)
        ]

    assert moved(0.0) == [True, False]
    assert network.is_coarse
    assert moved(0.3) == [False, True]
    assert moved(0.6) == [True, True]


def test_a_resumed_schedule_keeps_its_stage():
    rule = objective(levels=2, stem="conv7", coarse_fraction=0.25, fixed_fraction=0.25)
    rule.at_progress(0.3)
    fresh = objective(levels=2, stem="conv7", coarse_fraction=0.25, fixed_fraction=0.25)
    fresh.load_state(rule.state())
    assert not fresh.sequencer.is_coarse and fresh.sequencer.coarse_is_fixed


def test_coarse_weights_render_at_full_size():
    options = Vid2VidOptions(**SMALL, levels=2, stem="conv7", coarse_fraction=0.5)
    plugin = Vid2Vid(options, conditions=conditions(background=True))
    plugin.load_weights(plugin.objective(spec()).generator.state_dict())
    assert render(plugin, chunks(2, 2), spec(31, 45)).frames.shape == (2, 3, 31, 45)


def test_learning_rates_fall_linearly_over_the_second_half():
    rule = objective(learning_rate=1e-3, d_learning_rate=4e-3)
    for progress, share in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0), (1.2, 0.0)):
        rule.at_progress(progress)
        rates = [phase.optimizer.param_groups[0]["lr"] for phase in rule.phases]
        assert rates == pytest.approx([1e-3 * share, 4e-3 * share])


# Options


@pytest.mark.parametrize(
    "options, named",
    [
        ({"past": 0}, "past"),
        ({"blocks": -1}, "blocks"),
        ({"cut": 0.0}, "cut"),
        ({"sequence": 8, "longest": 4}, "longest"),
        ({"d_frames": 1, "temporal_scales": 1}, "d_frames"),
        ({"levels": 2}, "conv7"),
        ({"coarse_fraction": 0.2}, "levels"),
        ({"levels": 2, "stem": "conv7", "coarse_fraction": 0.8, "fixed_fraction": 0.5}, "exceed"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        Vid2VidOptions(**options)


def test_a_foreground_needs_labels():
    with pytest.raises(BadOption, match="foreground"):
        Vid2Vid(
            Vid2VidOptions(foreground=(1,)),
            conditions=Conditions(kinds=(PoseSequence,), channels=3),
        )


def test_pictures_too_small_to_judge_are_refused():
    plugin = Vid2Vid(Vid2VidOptions(**SMALL), conditions=conditions())
    with pytest.raises(BadOption, match="16 pixels"):
        plugin.objective(spec(8, 64))
    step(plugin.objective(spec(16, 16)), batch(2, size=16))  # pyright: ignore
