"""Painting from the subject's own frames: what is copied, what is chosen, what is learned."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from vidsynth.clip import VideoSpec
from vidsynth.conditioning import FaceSequence, PoseSequence
from vidsynth.errors import IncompatibleStages
from vidsynth.kinds import Conditions
from vidsynth.objectives import Recalled, TrainBatch
from vidsynth.stream import Chunk
from vidsynth.testing import nodding_face, times
from vidsynth_plugins.exemplar import (
    Exemplar,
    ExemplarObjective,
    ExemplarOptions,
    ExemplarPainter,
    blended,
)

# B batch, K exemplars, H, W pixels

SMALL: dict[str, Any] = {"filters": 8, "blocks": 1, "d_filters": 8}
FACE = Conditions(kinds=(FaceSequence,), channels=6, exemplars=2)
BODY = Conditions(kinds=(PoseSequence,), channels=3, background=True, exemplars=2)
SIZE = 32


def recalled(images_BK3HW: Tensor, valid: float = 1.0) -> Recalled:
    batch, slots, _, height, width = images_BK3HW.shape
    return Recalled(
        images_BK3HW,
        torch.zeros(batch, slots, 2, height, width),
        torch.full((batch, slots, 1, height, width), valid),
    )


def untrained(conditions: Conditions = FACE, **options: Any) -> ExemplarPainter:
    torch.manual_seed(0)
    return ExemplarPainter(ExemplarOptions(**SMALL, **options), conditions).eval()


def with_output(painter: ExemplarPainter, output_C: Tensor) -> ExemplarPainter:
    """The painter whose network says the same everywhere."""

    class Says(torch.nn.Module):
        stride = 1

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images_BCHW: Tensor) -> Tensor:
            shape = (len(images_BCHW), len(output_C), *images_BCHW.shape[2:])
            return output_C[None, :, None, None].expand(shape)

    painter.body = Says()  # pyright: ignore[reportAttributeAccessIssue]
    return painter


def smooth(batch: int, slots: int) -> Tensor:
    x = torch.linspace(-0.8, 0.8, SIZE)
    rows = torch.stack([(x * (k + 1)).clamp(-1, 1) for k in range(slots)])
    return rows[None, :, None, None].expand(batch, slots, 3, SIZE, SIZE).clone()


def test_what_the_network_is_sure_of_is_copied_exactly() -> None:
    painter = untrained(background=False)
    says = torch.zeros(3 + 3 * 2)
    says[3], says[4] = -50.0, 50.0  # only the second exemplar
    painter = with_output(painter, says)
    images = smooth(2, 2)
    made = painter(torch.zeros(2, 6, SIZE, SIZE), recalled=recalled(images)).frames
    torch.testing.assert_close(made, images[:, 1], atol=1e-5, rtol=0)


def test_where_nothing_is_valid_more_is_painted_new() -> None:
    """The same network, exemplars that show what is wanted and exemplars that do not."""
    painter = untrained(background=False)
    says = torch.zeros(3 + 3 * 2)
    says[:3] = 5.0  # white
    painter = with_output(painter, says)
    maps, black = torch.zeros(1, 6, SIZE, SIZE), -torch.ones(1, 2, 3, SIZE, SIZE)
    sure, unsure = (painter(maps, recalled=recalled(black, v)).frames.mean() for v in (1.0, 0.0))
    assert float(unsure) > float(sure) + 0.1


def test_corrections_move_an_exemplar_as_far_as_the_option_says() -> None:
    painter = untrained(background=False, correction=0.125)
    says = torch.zeros(3 + 3 * 2)
    says[3], says[4] = 50.0, -50.0
    says[5:7] = torch.tensor([50.0, 0.0])  # x of the first exemplar, all the way
    painter = with_output(painter, says)
    images = smooth(1, 2)
    made = painter(torch.zeros(1, 6, SIZE, SIZE), recalled=recalled(images)).frames
    inner = made[..., : SIZE - 6]
    torch.testing.assert_close(inner, images[:, 0, :, :, 4:-2], atol=1e-4, rtol=0)


def test_paint_is_held_to_the_truth_even_where_exemplars_hide_it() -> None:
    options = ExemplarOptions(**SMALL, background=False, l1=20.0, raw=0.5)
    rule = ExemplarObjective(options, untrained(background=False))
    says = torch.zeros(3 + 3 * 2)
    says[:3], says[3] = 0.5, 50.0  # a grey of its own, and surely the first exemplar instead
    rule.painter = with_output(untrained(background=False), says)
    images = smooth(1, 2)
    batch = TrainBatch(
        frames_BTCHW=images[:, :1],
        maps_BTCHW=torch.zeros(1, 1, 6, SIZE, SIZE),
        recalled=recalled(images).each(lambda x: x[:, None]),
    )
    losses = rule.losses("G", batch, 0)
    unlike = (images[:, 0] - torch.tensor(0.5).tanh()).abs().mean()
    torch.testing.assert_close(losses["l1"], torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(losses["raw"], 0.5 * 20.0 * unlike)


def test_over_a_still_background_only_the_subject_of_an_exemplar_is_copied() -> None:
    """The background that an exemplar brought along is not shown where its subject moved."""
    painter = untrained(BODY)
    says = torch.zeros(4 + 3 * 2)
    says[3], says[4] = 50.0, 50.0  # all of the window is foreground; the first exemplar is taken
    painter = with_output(painter, says)
    images, plate = smooth(1, 2), torch.full((3, SIZE, SIZE), 0.25)
    cover = -torch.ones(1, 2, 1, SIZE, SIZE)
    cover[..., : SIZE // 2] = 1.0
    made = painter(
        torch.zeros(1, 3, SIZE, SIZE),
        plate_3HW=plate,
        recalled=recalled(torch.cat([images, cover], dim=2)),
    ).frames
    left, right = made[..., : SIZE // 2 - 2], made[..., SIZE // 2 + 2 :]
    torch.testing.assert_close(left, images[:, 0, :, :, : SIZE // 2 - 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(right, torch.full_like(right, 0.25), atol=1e-4, rtol=0)


def test_detail_is_chosen_and_not_averaged() -> None:
    """Two fine patterns out of step: their mean would be flat, the blend is one of them."""
    stripes = torch.ones(SIZE).cumsum(0) % 2 * 2 - 1
    both = torch.stack([stripes, -stripes])[None, :, None, None].expand(1, 2, 3, SIZE, SIZE)
    logits = torch.tensor([0.5, 0.0])[None, :, None, None].expand(1, 2, SIZE, SIZE)
    contrast = float(blended(both, logits, detail=6.0)[..., 4:-4].abs().mean())
    averaged = float((both * logits.softmax(dim=1)[:, :, None]).sum(dim=1).abs().mean())
    assert averaged < 0.3 and contrast > 0.85
    flat = torch.tensor([0.2, 0.6])[None, :, None, None, None].expand(1, 2, 3, SIZE, SIZE)
    expected = (flat * logits.softmax(dim=1)[:, :, None]).sum(dim=1)
    torch.testing.assert_close(blended(flat, logits, detail=6.0), expected)


def test_a_blend_of_equal_pictures_is_that_picture() -> None:
    picture = torch.rand(1, 1, 3, SIZE, SIZE).expand(1, 3, 3, SIZE, SIZE)
    made = blended(picture, torch.randn(1, 3, SIZE, SIZE), detail=6.0)
    torch.testing.assert_close(made, picture[:, 0], atol=1e-5, rtol=0)


def test_a_stream_without_exemplars_is_refused_by_name() -> None:
    generator = Exemplar(ExemplarOptions(**SMALL), conditions=FACE)
    spec = VideoSpec(height=SIZE, width=SIZE, fps=Fraction(25))
    generator.load_weights(generator.objective(spec).generator.state_dict())
    chunk = Chunk(times(1)).with_signal(nodding_face(1, SIZE, SIZE))
    with pytest.raises(IncompatibleStages, match="exemplars"):
        next(generator.generate(iter([chunk]), spec, rng=torch.Generator()))


def test_options_that_cannot_be_are_refused() -> None:
    for name, value in {"exemplars": 0, "gallery": 0, "local_enhancers": 1}.items():
        with pytest.raises(ValueError, match=name.replace("_", ".")):
            replace(ExemplarOptions(), **{name: value})


def test_the_frame_before_is_one_more_exemplar() -> None:
    """Where the network is sure of it, it is copied along its way; where nothing came before, the
    others are."""
    painter = untrained(background=False, previous=True, carry=True)
    says = torch.zeros(3 + 3 * 3)
    says[3:6] = torch.tensor([-50.0, -50.0, 50.0])
    painter = with_output(painter, says)
    others = recalled(smooth(1, 2))
    moved = torch.zeros(1, 1, 2, SIZE, SIZE)
    moved[:, :, 0] = 2.0  # what is wanted was two pixels to the right
    told = Recalled(
        others.images,
        torch.cat([others.flow, moved], dim=1),
        torch.cat([others.valid, torch.ones(1, 1, 1, SIZE, SIZE)], dim=1),
    )
    before = torch.rand(1, 3, SIZE, SIZE)
    made = painter(torch.zeros(1, 6, SIZE, SIZE), before, recalled=told).frames
    torch.testing.assert_close(made[..., :-4], before[..., 2:-2], atol=1e-4, rtol=0)


def test_carrying_on_needs_frames_made_one_by_one() -> None:
    with pytest.raises(ValueError, match="previous"):
        ExemplarOptions(carry=True)


def test_only_frames_that_are_made_come_with_exemplars() -> None:
    """With a window of past maps, those of the current frame; with pairs of frames, of both."""
    spec = VideoSpec(height=SIZE, width=SIZE, fps=Fraction(25))
    body = Conditions(kinds=(PoseSequence,), channels=3, exemplars=2)
    windowed = Exemplar(ExemplarOptions(**SMALL, window=3), conditions=FACE).objective(spec)
    assert (windowed.num_frames, windowed.num_recalled) == (3, 1)
    paired = Exemplar(ExemplarOptions(**SMALL, previous=True), conditions=body).objective(spec)
    assert (paired.num_frames, paired.num_recalled) == (2, 2)
