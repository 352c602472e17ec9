from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth import registry
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps
from vidsynth.errors import BadOption, BadSubject, BadWeights, DeviceUnavailable, IncompatibleStages
from vidsynth.kinds import Conditions
from vidsynth.losses import PerceptualLoss
from vidsynth.objectives import TrainBatch
from vidsynth.plate import BackgroundPlate
from vidsynth.stream import Chunk
from vidsynth_plugins.pix2pixhd import (
    MultiscalePatch,
    MultiscalePatchOptions,
    Pix2PixHD,
    Pix2PixHDOptions,
)
from vidsynth_plugins.pix2pixhd.layers import ThinConv, WideConv
from vidsynth_plugins.pix2pixhd.networks import GlobalGenerator
from vidsynth_plugins.pix2pixhd.objective import Pix2PixHDObjective, paint, stack_windows
from vidsynth_plugins.pix2pixhd.painter import Painter, likely_subject
from vidsynth_plugins.pix2pixhd.reference_weights import (
    input_channels,
    load_reference_discriminator,
    load_reference_weights,
)

CLASSES = 3
SMALL: dict[str, Any] = {
    "filters": 4,
    "downsamplings": 2,
    "blocks": 1,
    "d_filters": 4,
    "perceptual": 0.0,
}
FACE = (6.0, 4.0, 18.0, 20.0)


@pytest.fixture(autouse=True)
def _plugins() -> Iterator[None]:
    entry = EntryPoint(
        "multiscale_patch", "vidsynth_plugins.pix2pixhd:MultiscalePatch", "vidsynth.discriminators"
    )
    with registry.only([entry]):
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


def chunks(num_frames: int, size: int, height: int = 32, width: int = 32) -> list[Chunk]:
    """One video of random labels over one random plate, cut into chunks of `size` frames."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (num_frames, height, width), generator=rng).to(torch.uint8)
    plate = torch.randint(0, 256, (3, height, width), generator=rng).to(torch.uint8)
    pts = torch.arange(num_frames, dtype=torch.float64) / 25
    found = []
    for start in range(0, num_frames, size):
        part = labels[start : start + size]
        chunk = Chunk(pts[start : start + size])
        chunk = chunk.with_signal(Labels(labels=part, num_classes=CLASSES))
        index = torch.zeros(len(part), dtype=torch.int64)
        found.append(chunk.with_signal(BackgroundPlate(image=plate, frame_index=index)))
    return found


def trained(background: bool = False, **options: Any) -> Pix2PixHD:
    """A plugin with weights that make its pictures depend strongly on its maps."""
    plugin = Pix2PixHD(Pix2PixHDOptions(**{**SMALL, **options}), conditions=conditions(background))
    painter = plugin.objective(spec()).generator
    for parameter in painter.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    plugin.load_weights(painter.state_dict())
    return plugin


@torch.inference_mode()
def render(plugin: Pix2PixHD, video: list[Chunk], at: VideoSpec | None = None) -> Clip:
    rng = torch.Generator().manual_seed(0)
    return Clip.concat(list(plugin.generate(iter(video), at or spec(), rng=rng)))


def batch(num_frames: int, dtype: torch.dtype = torch.float32, size: int = 32) -> TrainBatch:
    rng = torch.Generator().manual_seed(2)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float64).to(dtype)

    return TrainBatch(
        frames_BTCHW=rand(2, num_frames, 3, size, size) * 2 - 1,
        maps_BTCHW=rand(2, num_frames, CLASSES, size, size),
        background_CHW=rand(3, size, size) * 2 - 1,
        weights_BT1HW=rand(2, num_frames, 1, size, size),
        regions={"face": torch.tensor(FACE, dtype=dtype).expand(2, num_frames, 4)},
    )


def objective(background: bool = False, **options: Any) -> Pix2PixHDObjective:
    given = Pix2PixHDOptions(**{**SMALL, **options})
    return Pix2PixHDObjective(given, Painter(given, channels=CLASSES, background=background))


def step(rule: Pix2PixHDObjective, on: TrainBatch, progress: float = 0.0) -> dict[str, float]:
    """What the training loop does in one step."""
    rule.at_progress(progress)
    values = {}
    for phase in rule.phases:
        losses = rule.losses(phase.name, on, 0)
        phase.optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        learning = [p for p in phase.module.parameters() if p.requires_grad]
        total.backward(inputs=learning, retain_graph=phase is not rule.phases[-1])
        phase.optimizer.step()
        values |= {f"{phase.name}/{name}": float(v.detach()) for name, v in losses.items()}
    return values


# The published networks


@pytest.mark.parametrize(
    "options, count",
    [
        ({}, 182_443_267),
        ({"filters": 32}, 45_620_867),
        ({"filters": 32, "local_enhancers": 1}, 182_701_827),
    ],
)
def test_generators_have_the_published_number_of_parameters(options: dict[str, int], count: int):
    with torch.device("meta"):
        painter = Painter(Pix2PixHDOptions(**options), channels=3, background=False)
    assert sum(p.numel() for p in painter.parameters()) == count


@pytest.mark.parametrize("scales, count", [(2, 5_535_618), (3, 8_303_427)])
def test_discriminators_have_the_published_number_of_parameters(scales: int, count: int):
    with torch.device("meta"):
        judge = MultiscalePatch(MultiscalePatchOptions(scales=scales), condition_channels=3)
    assert sum(p.numel() for p in judge.parameters()) == count


class Reference:
    """The published networks as plain functions of a state dict in the published naming.

    Walks the numbered sequences and knows a module by its parameters' names and shapes: a 4-D
    weight is a convolution, a 1-D weight a batch normalisation.
    """

    def __init__(self, batch_norm: bool) -> None:
        self.batch_norm = batch_norm
        self.state: dict[str, Tensor] = {}
        self.rng = torch.Generator().manual_seed(3)

    def conv(self, name: str, fan_in: int, out: int, kernel: int, transposed: bool = False) -> None:
        shape = (fan_in, out) if transposed else (out, fan_in)
        self.state[f"{name}.weight"] = self.normal(*shape, kernel, kernel) / (kernel * fan_in**0.5)
        self.state[f"{name}.bias"] = self.normal(out) * 0.1

    def norm(self, name: str, width: int) -> None:
        if self.batch_norm:
            self.state[f"{name}.weight"] = 1 + 0.1 * self.normal(width)
            self.state[f"{name}.bias"] = 0.1 * self.normal(width)
            self.state[f"{name}.running_mean"] = 0.1 * self.normal(width)
            self.state[f"{name}.running_var"] = 1 + 0.1 * self.normal(width).abs()
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(5)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def apply_conv(self, x: Tensor, name: str, **how: Any) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def apply_up(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    def apply_norm(self, x: Tensor, name: str) -> Tensor:
        if not self.batch_norm:
            return F.instance_norm(x)
        s = self.state
        mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"])

    # Generator: names of the sequence `model`, then of `model1_1` and `model1_2`

    def make_global(self, channels: int, width: int, downs: int, blocks: int, head: bool) -> None:
        self.conv("model.1", channels, width, 7)
        self.norm("model.2", width)
        at = 4
        for n in range(downs):
            self.conv(f"model.{at}", width * 2**n, width * 2 ** (n + 1), 3)
            self.norm(f"model.{at + 1}", width * 2 ** (n + 1))
            at += 3
        for _ in range(blocks):
            self.make_block(f"model.{at}", width * 2**downs)
            at += 1
        for n in reversed(range(downs)):
            self.conv(f"model.{at}", width * 2 ** (n + 1), width * 2**n, 3, transposed=True)
            self.norm(f"model.{at + 1}", width * 2**n)
            at += 3
        if head:
            self.conv(f"model.{at + 1}", width, 3, 7)

    def make_block(self, name: str, width: int) -> None:
        for conv, norm in ((1, 2), (5, 6)):
            self.conv(f"{name}.conv_block.{conv}", width, width, 3)
            self.norm(f"{name}.conv_block.{norm}", width)

    def make_enhancer(self, channels: int, width: int, blocks: int) -> None:
        self.conv("model1_1.1", channels, width, 7)
        self.norm("model1_1.2", width)
        self.conv("model1_1.4", width, width * 2, 3)
        self.norm("model1_1.5", width * 2)
        for n in range(blocks):
            self.make_block(f"model1_2.{n}", width * 2)
        self.conv(f"model1_2.{blocks}", width * 2, width, 3, transposed=True)
        self.norm(f"model1_2.{blocks + 1}", width)
        self.conv(f"model1_2.{blocks + 4}", width, 3, 7)

    def block(self, x: Tensor, name: str) -> Tensor:
        y = self.apply_conv(F.pad(x, (1, 1, 1, 1), mode="reflect"), f"{name}.conv_block.1")
        y = self.apply_norm(y, f"{name}.conv_block.2").relu()
        y = self.apply_conv(F.pad(y, (1, 1, 1, 1), mode="reflect"), f"{name}.conv_block.5")
        return x + self.apply_norm(y, f"{name}.conv_block.6")

    def conv7(self, x: Tensor, name: str) -> Tensor:
        return self.apply_conv(F.pad(x, (3, 3, 3, 3), mode="reflect"), name)

    def run_global(self, x: Tensor, downs: int, blocks: int, head: bool) -> Tensor:
        x = self.apply_norm(self.conv7(x, "model.1"), "model.2").relu()
        at = 4
        for _ in range(downs):
            x = self.apply_conv(x, f"model.{at}", stride=2, padding=1)
            x = self.apply_norm(x, f"model.{at + 1}").relu()
            at += 3
        for _ in range(blocks):
            x = self.block(x, f"model.{at}")
            at += 1
        for _ in range(downs):
            x = self.apply_norm(self.apply_up(x, f"model.{at}"), f"model.{at + 1}").relu()
            at += 3
        return self.conv7(x, f"model.{at + 1}").tanh() if head else x

    def run_enhanced(self, x: Tensor, downs: int, blocks: int, local_blocks: int) -> Tensor:
        half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        below = self.run_global(half, downs, blocks, head=False)
        y = self.apply_norm(self.conv7(x, "model1_1.1"), "model1_1.2").relu()
        y = self.apply_conv(y, "model1_1.4", stride=2, padding=1)
        y = self.apply_norm(y, "model1_1.5").relu() + below
        for n in range(local_blocks):
            y = self.block(y, f"model1_2.{n}")
        y = self.apply_up(y, f"model1_2.{local_blocks}")
        y = self.apply_norm(y, f"model1_2.{local_blocks + 1}").relu()
        return self.conv7(y, f"model1_2.{local_blocks + 4}").tanh()

    # Discriminator, in either of its two namings

    def make_judge(self, channels: int, scales: int, layers: int, flat: bool) -> None:
        widths = [channels] + [8 * 2**n for n in range(layers + 1)] + [1]
        for scale in range(scales):
            for n in range(layers + 2):
                conv, norm = self.judge_names(scale, n, flat)
                self.conv(conv, widths[n], widths[n + 1], 4)
                if 0 < n < layers + 1:
                    self.norm(norm, widths[n + 1])

    def judge_names(self, scale: int, layer: int, flat: bool) -> tuple[str, str]:
        if not flat:
            return f"scale{scale}_layer{layer}.0", f"scale{scale}_layer{layer}.1"
        at = 3 * layer - 1 if layer else 0
        return f"layer{scale}.{at}", f"layer{scale}.{at + 1}"

    def run_judge(self, x: Tensor, scales: int, layers: int, flat: bool) -> list[list[Tensor]]:
        """Every layer's output per scale, from the finest, whose names have the highest number."""
        found = []
        for scale in reversed(range(scales)):
            y, kept = x, []
            for n in range(layers + 2):
                conv, norm = self.judge_names(scale, n, flat)
                y = self.apply_conv(y, conv, stride=2 if n < layers else 1, padding=2)
                if 0 < n < layers + 1:
                    y = self.apply_norm(y, norm)
                y = F.leaky_relu(y, 0.2) if n < layers + 1 else y
                kept.append(y)
            found.append(kept)
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return found


def imported(reference: Reference, folder: Path) -> Painter:
    torch.save(reference.state, folder / "latest_net_G.pth")
    options, weights = load_reference_weights(folder / "latest_net_G.pth")
    painter = Painter(options, channels=input_channels(weights), background=False).eval()
    painter.load_state_dict(weights)
    return painter


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("downs, blocks", [(1, 3), (3, 1), (2, 0)])
def test_imported_global_generator_paints_the_same(
    tmp_path: Path, batch_norm: bool, downs: int, blocks: int
):
    reference = Reference(batch_norm)
    reference.make_global(5, 6, downs, blocks, head=True)
    painter = imported(reference, tmp_path)
    maps = torch.rand(2, 5, 32, 48)
    expected = reference.run_global(maps, downs, blocks, head=True)
    assert expected.std() > 0.03  # a picture, not a constant
    with torch.no_grad():
        assert (painter(maps).frames - expected).abs().max() < 1e-5


@pytest.mark.parametrize("batch_norm", [False, True])
def test_imported_local_enhancer_paints_the_same(tmp_path: Path, batch_norm: bool):
    reference = Reference(batch_norm)
    reference.make_global(4, 12, 2, 2, head=False)
    reference.make_enhancer(4, 6, 3)
    painter = imported(reference, tmp_path)
    maps = torch.rand(1, 4, 48, 32)
    expected = reference.run_enhanced(maps, 2, 2, 3)
    assert expected.std() > 0.03
    with torch.no_grad():
        assert (painter(maps).frames - expected).abs().max() < 1e-5


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("scales, layers, batch_norm", [(2, 3, False), (3, 2, True), (1, 1, False)])
def test_imported_discriminator_judges_the_same(
    tmp_path: Path, flat: bool, scales: int, layers: int, batch_norm: bool
):
    reference = Reference(batch_norm)
    reference.make_judge(5, scales, layers, flat)
    torch.save(reference.state, tmp_path / "latest_net_D.pth")
    options, weights = load_reference_discriminator(tmp_path / "latest_net_D.pth")
    judge = MultiscalePatch(options, condition_channels=2).eval()
    judge.load_state_dict(weights)
    condition, frames = torch.rand(2, 1, 2, 40, 56), torch.rand(2, 1, 3, 40, 56)
    with torch.no_grad():
        found = judge(frames, condition)
    expected = reference.run_judge(
        torch.cat([condition, frames], dim=2)[:, 0], scales, layers, flat
    )
    for logits, features, layers_out in zip(found.logits, found.features, expected, strict=True):
        for ours, theirs in zip([*features, logits], layers_out, strict=True):
            assert (ours - theirs).abs().max() < 1e-5


def test_safetensors_files_import_too(tmp_path: Path):
    from safetensors.torch import save_file

    reference = Reference(batch_norm=False)
    reference.make_global(3, 4, 2, 1, head=True)
    save_file(reference.state, tmp_path / "g.safetensors")
    options, weights = load_reference_weights(tmp_path / "g.safetensors")
    assert (options.filters, options.downsamplings, options.blocks) == (4, 2, 1)
    Painter(options, channels=3, background=False).load_state_dict(weights)


def test_statistics_of_instance_norms_in_old_files_are_dropped(tmp_path: Path):
    reference = Reference(batch_norm=False)
    reference.make_global(3, 4, 1, 1, head=True)
    reference.state["model.2.running_mean"] = torch.zeros(4)
    assert imported(reference, tmp_path).body.stem[1].out_channels == 4


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path, content: bytes | None):
    path = tmp_path / "x.pth"
    if content is None:
        torch.save({"somebody.elses": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    refusal = BadSubject if content is None else BadWeights
    for load in (load_reference_weights, load_reference_discriminator):
        with pytest.raises(refusal, match=r"x\.pth"):
            load(path)


# The schedule


def reference_schedule(rule: Pix2PixHDObjective, on: TrainBatch, steps: int) -> None:
    """Three discriminator passes per step, G before D, as train.py of the reference does it."""
    painter, judge = rule.painter, rule.judges.frames
    adam_g = torch.optim.Adam(painter.parameters(), 2e-4, betas=(0.5, 0.999), foreach=False)
    adam_d = torch.optim.Adam(judge.parameters(), 2e-4, betas=(0.5, 0.999), foreach=False)
    maps, real = on.maps_BTCHW, on.frames_BTCHW

    def gan(judged: Any, target: float) -> Tensor:
        return sum(
            (F.mse_loss(x, torch.full_like(x, target)) for x in judged.logits), torch.zeros(())
        )

    for _ in range(steps):
        fake = painter(maps[:, 0], None, on.background_CHW).frames[:, None]
        judged_detached = judge(fake.detach(), maps)
        judged_real = judge(real, maps)
        judged_fake = judge(fake, maps)
        loss_g = gan(judged_fake, 1.0)
        for ours, theirs in zip(judged_fake.features, judged_real.features, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                loss_g = loss_g + 10 * (1 / 2) * (4 / 4) * F.l1_loss(a, b.detach())
        loss_d = 0.5 * (gan(judged_detached, 0.0) + gan(judged_real, 1.0))
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()


def biases_before_norms(module: nn.Module) -> set[str]:
    """Instance normalisation takes them away again, so that their gradient is rounding noise,
    which depends on memory alignment and which Adam scales up to steps."""
    return {
        f"{name}.{index}.bias"
        for name, sequence in module.named_modules()
        if isinstance(sequence, nn.Sequential)
        for index, after in enumerate(sequence[1:])
        if isinstance(after, nn.InstanceNorm2d)
    }


def test_shared_pass_equals_the_reference_schedule():
    on = batch(1, torch.float64)
    ours = objective(background=True)
    for phase in ours.phases:
        phase.module.double()
    theirs = copy.deepcopy(ours)
    before = [p.detach().clone() for p in ours.painter.parameters()]
    for _ in range(3):
        step(ours, on)
    reference_schedule(theirs, on, 3)
    for mine, plain in ((ours.painter, theirs.painter), (ours.judges, theirs.judges)):
        without_effect = biases_before_norms(mine)
        for name, parameter in plain.named_parameters():
            if name not in without_effect:
                assert (mine.get_parameter(name) - parameter).abs().max() < 1e-10, name
    moved = max(
        float((a.detach() - b).abs().max())
        for a, b in zip(ours.painter.parameters(), before, strict=True)
    )
    assert moved > 1e-4


def test_a_phase_alone_or_on_another_batch_judges_anew():
    rule, one, other = objective(), batch(1), batch(1, size=48)
    rule.losses("G", one, 0)
    found = rule.losses("D", other, 0)
    expected = rule.losses("D", other, 0)
    assert found.keys() == expected.keys() == {"real", "fake"}
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    "options",
    [
        {"stem": "shuffle", "skips": True, "l1": 10.0, "subject_weight": 4.0},
        {"window": 3, "previous": True, "face": True, "face_size": 16, "gan": "hinge"},
        {"local_enhancers": 1, "norm": "batch", "gan": "vanilla"},
    ],
)
def test_a_painter_learns_its_batch(options: dict[str, Any]):
    rule = objective(background=True, learning_rate=2e-3, **options)
    on = batch(rule.num_frames)
    smooth = F.avg_pool2d(on.frames_BTCHW.flatten(0, 1), 9, 1, 4).unflatten(0, (2, -1))
    on = TrainBatch(smooth, on.maps_BTCHW, on.background_CHW, on.weights_BT1HW, on.regions)

    def distance() -> float:
        with torch.no_grad():
            made = paint(rule.painter, rule.options, on).frames
        return float((made - on.frames_BTCHW[:, -made.shape[1] :]).abs().mean())

    before = distance()
    for _ in range(25):
        values = step(rule, on)
    assert all(torch.isfinite(torch.tensor(list(values.values()))))
    assert distance() < 0.9 * before


def test_learning_rates_fall_linearly_over_the_second_half():
    rule = objective(learning_rate=1e-3, d_learning_rate=4e-3)
    for progress, share in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0), (1.2, 0.0)):
        rule.at_progress(progress)
        rates = [phase.optimizer.param_groups[0]["lr"] for phase in rule.phases]
        assert rates == pytest.approx([1e-3 * share, 4e-3 * share])


def test_staged_schedule_trains_coarse_then_enhancers_then_all():
    rule = objective(local_enhancers=1, coarse_fraction=0.25, fixed_fraction=0.25, l1=1.0)
    on, body = batch(1), rule.painter.body

    def moved(progress: float) -> dict[str, bool]:
        before = {n: p.detach().clone() for n, p in body.named_parameters()}
        step(rule, on, progress)
        after = {n: not torch.equal(p, before[n]) for n, p in body.named_parameters()}
        parts = ("coarse.", "coarse_head.", "encoders.", "decoders.", "head.")
        return {part: any(m for n, m in after.items() if n.startswith(part)) for part in parts}

    enhancers = {"encoders.", "decoders.", "head."}
    assert {p for p, m in moved(0.0).items() if m} == {"coarse.", "coarse_head."}
    assert paint(rule.painter, rule.options, on).frames.shape[-2:] == (16, 16)
    assert {p for p, m in moved(0.3).items() if m} == enhancers
    assert paint(rule.painter, rule.options, on).frames.shape[-2:] == (32, 32)
    moved(0.4)
    assert {p for p, m in moved(0.6).items() if m} == enhancers | {"coarse."}
    # A new Adam at each stage: one step taken since.
    steps = {int(s["step"]) for phase in rule.phases for s in phase.optimizer.state.values()}
    assert steps == {1}


def test_a_resumed_schedule_keeps_its_stage_and_its_adam():
    rule = objective(local_enhancers=1, coarse_fraction=0.25, fixed_fraction=0.25)
    on = batch(1)
    step(rule, on, 0.3)
    resumed = copy.deepcopy(rule)
    fresh = objective(local_enhancers=1, coarse_fraction=0.25, fixed_fraction=0.25)
    for new, old in zip(fresh.phases, rule.phases, strict=True):
        new.module.load_state_dict(old.module.state_dict())
        new.optimizer.load_state_dict(copy.deepcopy(old.optimizer.state_dict()))
    fresh.load_state(rule.state())
    assert step(fresh, on, 0.35) == step(resumed, on, 0.35)
    for a, b in zip(fresh.painter.parameters(), resumed.painter.parameters(), strict=True):
        assert torch.equal(a, b)


def test_coarse_weights_render_at_full_size():
    plugin = Pix2PixHD(
        Pix2PixHDOptions(**SMALL, local_enhancers=1, coarse_fraction=0.5), conditions=conditions()
    )
    plugin.load_weights(plugin.objective(spec()).generator.state_dict())
    clip = render(plugin, chunks(2, 2, 31, 45), spec(31, 45))
    assert clip.frames.shape == (2, 3, 31, 45)


# Everybody Dance Now and Deep Video Portraits


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("size", [(7, 7), (9, 12)])
@pytest.mark.parametrize(("out_channels", "side"), [(1, 4), (1, 7), (2, 7), (3, 7)])
def test_a_thin_convolution_gives_what_pytorchs_gives(
    out_channels: int, side: int, size: tuple[int, int], padding: int
) -> None:
    torch.manual_seed(0)
    quick = ThinConv(5, out_channels, side, padding=padding).double()
    plain = torch.nn.Conv2d(5, out_channels, side, padding=padding).double()
    plain.load_state_dict(quick.state_dict())
    found = []
    for layer in (quick, plain):
        hidden = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(1)).double()
        made = layer(hidden.requires_grad_())
        slopes = torch.autograd.grad(made.square().sum(), [hidden, layer.weight, layer.bias])
        found.append((made, *slopes))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    light = copy.deepcopy(quick).bfloat16()
    assert light(hidden.bfloat16()).dtype == torch.bfloat16  # what follows has such weights


def test_a_wide_convolutions_gradients_are_pytorchs_to_the_rounding_of_bfloat16():
    torch.manual_seed(0)
    quick, plain = WideConv(24, 16, 3), torch.nn.Conv2d(24, 16, 3).double()
    plain.load_state_dict(quick.state_dict())
    hidden = torch.randn(2, 24, 9, 7)
    found = []
    for layer in (quick, plain):
        given = hidden.to(layer.weight).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=layer is quick):
            made = layer(given)
        slope = torch.linspace(-1, 2, made.numel(), dtype=made.dtype).view_as(made)
        slopes = torch.autograd.grad(made, [given, layer.weight, layer.bias], slope)
        found.append((made, *slopes))
    assert found[0][0].dtype == torch.bfloat16
    for ours, theirs in zip(*found, strict=True):
        assert (ours.double() - theirs).norm() < 0.01 * theirs.norm()


def test_a_wide_convolution_is_pytorchs_own_where_that_is_quicker():
    torch.manual_seed(0)
    layer, hidden = WideConv(4, 4, 3), torch.randn(1, 4, 8, 8)
    many = torch.randn(1, 4, 80, 80)
    assert layer(hidden).grad_fn.name() == "ConvolutionBackward0"
    with torch.autocast("cpu", torch.bfloat16):
        assert "WideConv" in layer(hidden).grad_fn.name()
        assert layer(many).grad_fn.name() == "ConvolutionBackward0"


def test_pairs_are_judged_as_both_conditions_then_both_frames():
    judge = MultiscalePatch(MultiscalePatchOptions(filters=4), condition_channels=2, num_frames=2)
    seen = []
    judge.scales[0][0].register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    frames, condition = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 2, 16, 16)
    judge(frames, condition)
    stacked = [condition[:, 0], condition[:, 1], frames[:, 0], frames[:, 1]]
    assert torch.equal(seen[0], torch.cat(stacked, dim=1))


def test_clips_longer_than_a_stack_are_judged_stack_by_stack():
    judge = MultiscalePatch(MultiscalePatchOptions(filters=4), condition_channels=2).eval()
    frames, condition = torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 2, 16, 16)
    together = judge(frames, condition).logits[0]
    alone = judge(frames[1:, 2:], condition[1:, 2:]).logits[0]
    assert torch.allclose(together[5:], alone, atol=1e-6)


def test_the_second_frame_sees_the_first_generated_one_and_teaches_it():
    rule = objective(previous=True)
    on = batch(2)
    made = paint(rule.painter, rule.options, on).frames
    zeros = torch.zeros_like(on.frames_BTCHW[:, 0])
    first = rule.painter(on.maps_BTCHW[:, 0], zeros).frames
    assert torch.allclose(made[:, 0], first, atol=1e-6)
    second = rule.painter(on.maps_BTCHW[:, 1], first).frames
    assert torch.allclose(made[:, 1], second, atol=1e-6)

    maps = on.maps_BTCHW.clone().requires_grad_(True)
    again = TrainBatch(on.frames_BTCHW, maps)
    paint(rule.painter, rule.options, again).frames[:, 1].square().mean().backward()
    assert maps.grad is not None and maps.grad[:, 0].abs().sum() > 0


def test_windows_hold_past_maps_oldest_first():
    maps = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(1, 5, 2, 1, 1)
    assert stack_windows(maps, 3)[0, :, :, 0, 0].tolist() == [
        [0, 0, 1, 1, 2, 2],
        [1, 1, 2, 2, 3, 3],
        [2, 2, 3, 3, 4, 4],
    ]


def test_rendering_repeats_the_first_maps_before_the_start():
    plugin = trained(window=3)
    video = chunks(4, 4)
    maps = conditions().draw(video[0], 32, 32).float() / 255
    assert plugin._painter is not None
    with torch.inference_mode():
        seen = torch.cat([maps[0], maps[0], maps[1]])[None]
        expected = Clip.from_float(plugin._painter(seen).frames, video[0].pts[1:2])
    assert torch.equal(render(plugin, video).frames[1:2], expected.frames)


def test_the_face_refiner_changes_the_face_and_nothing_else():
    rule = objective(face=True, face_size=16)
    painter, on = rule.painter, batch(1)
    boxes = torch.tensor([FACE, (5.0, 5.0, 5.0, 5.0)])  # the second has no face
    nn.init.normal_(painter.face.network.head[1].weight, 0, 0.5)  # pyright: ignore
    plain = painter(on.maps_BTCHW[:, 0], faces_B4=None).frames
    refined = painter(on.maps_BTCHW[:, 0], faces_B4=boxes).frames
    change = (refined - plain).abs().amax(dim=1)
    x0, y0, x1, y1 = (int(v) for v in FACE)
    assert change[0, y0:y1, x0:x1].mean() > 0.05
    assert change[0, :, x1 + 8 :].max() == 0 and change[0, y1 + 4 :].max() == 0
    assert change[1].max() == 0


def test_faces_have_a_discriminator_of_their_own():
    rule = objective(face=True, face_size=16)
    values = step(rule, batch(1))
    assert {"G/face_gan", "D/face_real", "D/face_fake"} <= values.keys()
    assert "G/face_gan" not in step(rule, TrainBatch(*vars_of(batch(1))[:4]))


def vars_of(on: TrainBatch) -> list[Any]:
    return [getattr(on, name) for name in TrainBatch.__dataclass_fields__]


def test_face_boxes_are_scaled_to_the_rendered_size():
    plugin = trained(face=True, face_size=16)
    found = plugin._faces(chunks(1, 1)[0], spec(64, 96), torch.device("cpu"))
    assert found is not None
    assert found[0].tolist() == [FACE[0] * 3, FACE[1] * 2, FACE[2] * 3, FACE[3] * 2]


# The plate


def test_where_the_mask_is_closed_the_plate_shows_exactly():
    plugin = trained(background=True)
    painter = plugin._painter
    assert painter is not None and painter.background
    video = chunks(2, 2)
    with torch.no_grad():
        painter.body.head[1].weight[3:] = 0  # pyright: ignore
        painter.body.head[1].bias[3:] = -40  # pyright: ignore
    plate = video[0].require(BackgroundPlate).image
    assert torch.equal(render(plugin, video).frames, plate.expand(2, -1, -1, -1))
    with torch.no_grad():
        painter.body.head[1].bias[3:] = 40  # pyright: ignore
    assert (render(plugin, video).frames.float() - plate.float()).abs().mean() > 5


def test_without_a_plate_in_the_stream_the_whole_frame_is_painted():
    assert not trained(background=False)._painter.background  # pyright: ignore
    plugin = trained(background=True)
    with pytest.raises(IncompatibleStages, match="background"):
        bare = [c.with_clip(None) for c in chunks(1, 1)]
        bare = [Chunk(c.pts, None, {Labels: c.require(Labels)}) for c in bare]
        render(plugin, bare)


# Rendering


VARIANTS: list[dict[str, Any]] = [
    {},
    {"background": True, "stem": "shuffle", "skips": True},
    {"window": 4},
    {"previous": True, "window": 2},
    {"face": True, "face_size": 16, "previous": True},
    {"local_enhancers": 1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_pictures_do_not_depend_on_how_the_video_is_chunked(options: dict[str, Any]):
    plugin = trained(**options)
    whole = render(plugin, chunks(9, 9))
    assert whole.frames.float().std() > 10
    for size in (1, 4):
        parts = render(plugin, chunks(9, size))
        assert torch.equal(parts.pts, whole.pts)
        assert (parts.frames.int() - whole.frames.int()).abs().max() <= 1


def test_two_streams_do_not_disturb_each_other():
    plugin = trained(previous=True, window=3)
    one = chunks(6, 2)
    two = [Chunk(a.pts, None, b.signals) for a, b in zip(one, reversed(one), strict=True)]
    alone = [render(plugin, video).frames for video in (one, two)]
    rng = torch.Generator()
    first, second = (plugin.generate(iter(v), spec(), rng=rng) for v in (one, two))
    with torch.inference_mode():
        pairs = [(next(first).frames, next(second).frames) for _ in range(3)]
    for together, expected in zip(zip(*pairs, strict=True), alone, strict=True):
        assert torch.equal(torch.cat(together), expected)


def test_an_untrained_mask_shows_the_plate_away_from_the_subject_and_paint_on_it():
    maps = torch.zeros(1, 3, 128, 128)
    maps[:, :, 40:80, 60:64] = 1.0
    painter = Painter(Pix2PixHDOptions(**SMALL), channels=3, background=True)
    with torch.no_grad():
        white, black = (
            painter(maps, plate_3HW=torch.full((3, 128, 128), v)).frames for v in (1.0, -1.0)
        )
    shows_through = ((white - black) / 2).mean(dim=1)[0]  # 1 - mask
    assert shows_through[45:75, 61:63].max() < 0.2
    assert shows_through[45:75, 75:80].min() > 0.9
    assert shows_through[45:75, 110:].min() > 0.998


@pytest.mark.parametrize("height, width", [(1, 1), (3, 40), (128, 96)])
def test_where_the_subject_is_likely_is_known_at_any_size(height: int, width: int):
    everywhere = likely_subject(torch.ones(1, 1, height, width), (height, width))
    nowhere = likely_subject(torch.zeros(1, 1, height, width), (height, width))
    assert torch.equal(everywhere, torch.full_like(everywhere, 4.0))
    assert torch.equal(nowhere, torch.full_like(nowhere, -8.0))


def test_smooth_upsampling_has_no_grid_where_the_transposed_has():
    def ripple(upsampling: str) -> float:
        """How much a flat surface differs from pixel to pixel, away from the borders."""
        torch.manual_seed(0)
        network = GlobalGenerator(
            3, 3, filters=4, downsamplings=1, blocks=1, upsampling=upsampling
        ).double()
        convolved = nn.Sequential(*list(network.up[0])[:-2])  # before the norm and the ReLU
        surface = convolved(torch.ones(1, 8, 12, 12, dtype=torch.float64))[..., 3:-3, 3:-3]
        return float(surface.detach().flatten(2).std(dim=2).max())

    assert ripple("smooth") < 1e-12 < 0.01 < ripple("transposed")


@pytest.mark.parametrize("height, width", [(1, 1), (17, 33), (50, 20)])
@pytest.mark.parametrize("stem, upsampling", [("conv7", "transposed"), ("shuffle", "smooth")])
def test_any_size_renders(height: int, width: int, stem: str, upsampling: str):
    plugin = trained(stem=stem, upsampling=upsampling)
    clip = render(plugin, chunks(2, 2, height, width), spec(height, width))
    assert clip.frames.shape == (2, 3, height, width)


def test_empty_chunks_and_empty_streams_pass():
    plugin = trained()
    video = chunks(2, 2)
    empty = Chunk(torch.zeros(0, dtype=torch.float64))
    clips = list(plugin.generate(iter([empty, *video]), spec(), rng=torch.Generator()))
    assert [len(c) for c in clips] == [0, 2]
    assert list(plugin.generate(iter([]), spec(), rng=torch.Generator())) == []


def test_bfloat16_weights_paint_nearly_the_same():
    plugin = trained(background=True)
    exact = render(plugin, chunks(2, 2)).frames.float()
    assert plugin._painter is not None
    plugin.load_weights({n: w.bfloat16() for n, w in plugin._painter.state_dict().items()})
    error = (render(plugin, chunks(2, 2)).frames.float() - exact).square().mean()
    assert 10 * torch.log10(255**2 / error) > 25


def test_half_precision_on_the_cpu_is_refused():
    plugin = trained()
    assert plugin._painter is not None
    with pytest.raises(DeviceUnavailable):
        plugin.load_weights({n: w.half() for n, w in plugin._painter.state_dict().items()})


def test_weights_of_other_options_are_refused_by_what_does_not_fit():
    weights = objective(filters=8).generator.state_dict()
    with pytest.raises(BadSubject, match="options"):
        Pix2PixHD(Pix2PixHDOptions(**SMALL), conditions=conditions()).load_weights(weights)


# Options


@pytest.mark.parametrize(
    "options, named",
    [
        ({"stem": "shuffle", "local_enhancers": 1}, "stem"),
        ({"coarse_fraction": 0.2}, "local_enhancers"),
        ({"local_enhancers": 1, "coarse_fraction": 0.8, "fixed_fraction": 0.5}, "exceed"),
        ({"window": 0}, "window"),
        ({"blocks": -1}, "blocks"),
    ],
)
def test_options_that_cannot_go_together_are_refused(options: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        Pix2PixHDOptions(**options)


def test_pictures_too_small_to_judge_are_refused():
    plugin = Pix2PixHD(Pix2PixHDOptions(**SMALL), conditions=conditions())
    with pytest.raises(BadOption, match="16 pixels"):
        plugin.objective(spec(8, 64))
    step(plugin.objective(spec(16, 16)), batch(1, size=16))  # pyright: ignore[reportArgumentType]


def test_missing_perceptual_weights_are_named_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        rule = objective(perceptual=10.0)
    assert "VGG19" in caplog.text and "575 MB" in caplog.text
    assert "G/perceptual" not in step(rule, batch(1))


def test_perceptual_weights_are_used_when_present(monkeypatch: pytest.MonkeyPatch):
    class Halves(nn.Module):
        def forward(self, made: Tensor, real: Tensor) -> Tensor:
            return (made - real).abs().mean() * 0 + 0.5

    monkeypatch.setattr(PerceptualLoss, "pretrained", lambda **_: Halves())
    rule = objective(perceptual=10.0, face=True, face_size=16)
    values = step(rule, batch(1))
    assert values["G/perceptual"] == pytest.approx(5.0)
    assert values["G/face_perceptual"] == pytest.approx(2.5)


def test_the_subject_counts_more_in_the_l1():
    on = batch(1)
    plain, weighted = objective(l1=2.0), objective(l1=2.0, subject_weight=3.0)
    weighted.painter.load_state_dict(plain.painter.state_dict())
    made = paint(plain.painter, plain.options, on).frames
    difference = (made - on.frames_BTCHW).abs()
    assert on.weights_BT1HW is not None
    expected = 2 * (difference * (1 + 3 * on.weights_BT1HW)).mean()
    assert torch.isclose(plain.losses("G", on, 0)["l1"], 2 * difference.mean())
    assert torch.isclose(weighted.losses("G", on, 0)["l1"], expected)
