"""Weight files in the naming of vid2vid's published program paint what it would paint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.conditioning import LabelMaps
from vidsynth.errors import BadOption, BadSubject, BadWeights
from vidsynth.kinds import Conditions
from vidsynth_plugins.vid2vid import Vid2Vid
from vidsynth_plugins.vid2vid.networks import Past, Sequencer
from vidsynth_plugins.vid2vid.reference_weights import load_reference_weights

CHANNELS, PAST = 4, 2
CAR = 1


@dataclass
class Reference:
    """The published networks as plain functions of state dicts in the published naming.

    One state dict per level, the coarsest first. Batch normalisation uses the frame's own
    statistics, as the published program does when it renders.
    """

    batch_norm: bool
    downs: int
    blocks: int
    local_blocks: int
    levels: int
    foreground: bool
    flow: bool = True
    states: list[dict[str, Tensor]] = field(default_factory=list)
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))

    def __post_init__(self) -> None:
        for level in range(self.levels):
            self.states.append({})
            self.make_level(level, width=8 // 2**level)

    # Making weights

    def conv(self, name: str, out: int, into: int, kernel: int) -> None:
        scale = (kernel * kernel * into) ** -0.5
        weight = torch.randn(out, into, kernel, kernel, generator=self.rng) * scale
        self.states[-1][f"{name}.weight"] = weight
        self.states[-1][f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.rng)

    def transposed(self, name: str, out: int, into: int) -> None:
        self.conv(name, into, out, 3)
        self.states[-1][f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.rng)

    def norm(self, name: str, width: int) -> None:
        state = self.states[-1]
        # What the published modules register, used when they render or not.
        state[f"{name}.running_mean"] = torch.randn(width, generator=self.rng)
        state[f"{name}.running_var"] = 1 + torch.rand(width, generator=self.rng)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        if self.batch_norm:
            state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=self.rng)
            state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.rng)

    def block(self, name: str, width: int) -> None:
        for at in (1, 5):
            self.conv(f"{name}.conv_block.{at}", width, width, 3)
            self.norm(f"{name}.conv_block.{at + 1}", width)

    def encoder(self, name: str, into: int, width: int, downs: int, blocks: int) -> None:
        self.conv(f"{name}.1", width, into, 7)
        self.norm(f"{name}.2", width)
        for n in range(downs):
            self.conv(f"{name}.{4 + 3 * n}", width * 2 ** (n + 1), width * 2**n, 3)
            self.norm(f"{name}.{5 + 3 * n}", width * 2 ** (n + 1))
        for n in range(blocks):
            self.block(f"{name}.{4 + 3 * downs + n}", width * 2**downs)

    def decoder(self, name: str, width: int, ups: int, blocks: int) -> None:
        for n in range(blocks):
            self.block(f"{name}.{n}", width * 2**ups)
        for n in range(ups):
            fine = width * 2 ** (ups - 1 - n)
            self.transposed(f"{name}.{blocks + 3 * n}", fine, fine * 2)
            self.norm(f"{name}.{blocks + 3 * n + 1}", fine)

    def make_level(self, level: int, width: int) -> None:
        maps, downs = CHANNELS * (PAST + 1), 1 if level else self.downs
        early = 0 if level else self.blocks - self.blocks // 2
        late = self.local_blocks if level else 0
        branches = ["img", "flow"] if self.flow else ["img"]
        self.encoder("model_down_seg", maps, width, downs, early)
        self.encoder("model_down_img", 3 * PAST, width, downs, early)
        for branch in branches:
            for n in range(0 if level else self.blocks // 2):
                self.block(f"model_res_{branch}.{n}", width * 2**downs)
            self.decoder(f"model_up_{branch}", width, downs, late)
        self.conv("model_final_img.1", 3, width, 7)
        if self.flow:
            self.conv("model_final_flow.1", 2, width, 7)
            self.conv("model_final_w.1", 1, width, 7)
        if self.foreground:
            own = width // 2 if self.downs > 2 else width
            self.encoder("indv_down", maps, own, downs, 0)
            for n in range(0 if level else self.blocks):
                self.block(f"indv_res.{n}", own * 2**downs)
            self.decoder("indv_up", own, downs, late)
            self.conv("indv_final.1", 3, own, 7)

    # Running them

    def run(self, x: Tensor, state: dict[str, Tensor], sequence: str) -> Tensor:
        """All modules of a sequence, known by the names and shapes of their parameters."""
        places = {int(n.split(".")[1]) for n in state if n.startswith(f"{sequence}.")}
        for at in sorted(places):
            name = f"{sequence}.{at}"
            if f"{name}.conv_block.1.weight" in state:
                y = F.pad(x, (1, 1, 1, 1), mode="reflect")
                y = self.normed(
                    self.convolved(y, state, f"{name}.conv_block.1"), state, f"{name}.conv_block.2"
                )
                y = F.pad(y.relu(), (1, 1, 1, 1), mode="reflect")
                x = x + self.normed(
                    self.convolved(y, state, f"{name}.conv_block.5"), state, f"{name}.conv_block.6"
                )
            elif f"{name}.running_mean" in state:
                x = self.normed(x, state, name).relu()
            elif sequence.split("_")[-2] == "up" or sequence == "indv_up":
                x = F.conv_transpose2d(
                    x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1, output_padding=1
                )
            elif state[f"{name}.weight"].shape[-1] == 7:
                x = self.convolved(F.pad(x, (3, 3, 3, 3), mode="reflect"), state, name)
            else:
                x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1)
        return x

    def convolved(self, x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(self, x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
        learned = (
            (state[f"{name}.weight"], state[f"{name}.bias"]) if self.batch_norm else (None,) * 2
        )
        return F.batch_norm(x, None, None, *learned, training=True)

    def film(self, maps: Tensor) -> list[Tensor]:
        """Frames (1, 3, H, W) for maps (T, 1, C, H, W), the first one all paint after zeros."""
        height, width = maps.shape[-2:]
        sizes = [(height // 2**n, width // 2**n) for n in reversed(range(self.levels))]
        past = [torch.zeros(1, 3 * PAST, *size, dtype=maps.dtype) for size in sizes]
        seen, film = [maps[0]] * PAST, []
        for now in maps:
            seen = [*seen[-PAST:], now]
            pyramid = [torch.cat(seen, dim=1)]
            while len(pyramid) < self.levels:
                half = F.avg_pool2d(pyramid[0], 3, 2, 1, count_include_pad=False)
                pyramid.insert(0, half)
            below: tuple[Tensor | float, ...] = (0.0, 0.0, 0.0)
            for level, state in enumerate(self.states):
                frame, below = self.frame(
                    level, state, pyramid[level], past[level], below, first=not film
                )
                past[level] = torch.cat([past[level][:, 3:], frame], dim=1)
            film.append(frame)
        return film

    def frame(self, level, state, maps, past, below, *, first):
        found = self.run(maps, state, "model_down_seg") + self.run(past, state, "model_down_img")
        paint = self.run(self.run(found + below[0], state, "model_res_img"), state, "model_up_img")
        frame = self.run(paint, state, "model_final_img").tanh()
        motion, front = 0.0, 0.0
        if self.flow:
            motion = self.run(
                self.run(found + below[1], state, "model_res_flow"), state, "model_up_flow"
            )
            flow = 20 * 2**level * self.run(motion, state, "model_final_flow")
            share = self.run(motion, state, "model_final_w").sigmoid()
            if not first:
                frame = share * frame + (1 - share) * sampled(past[:, -3:], flow)
        if self.foreground:
            front = self.run(maps, state, "indv_down") + below[2]
            front = self.run(self.run(front, state, "indv_res"), state, "indv_up")
            mask = maps[:, -CHANNELS:][:, CAR : CAR + 1]
            frame = mask * self.run(front, state, "indv_final").tanh() + (1 - mask) * frame
        return frame, (paint, motion, front)

    def double(self) -> Reference:
        self.states = [
            {n: w.double() if w.is_floating_point() else w for n, w in state.items()}
            for state in self.states
        ]
        return self

    def save(self, folder: Path) -> Path:
        for level, state in enumerate(self.states):
            torch.save(state, folder / f"latest_net_G{level}.pth")
        return folder / f"latest_net_G{self.levels - 1}.pth"


def sampled(image: Tensor, flow: Tensor) -> Tensor:
    """`image` at each pixel's place plus `flow`, pixel by pixel, its border repeated."""
    _, _, height, width = image.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (x + flow[0, 0]).clamp(0, width - 1)
    y = (y + flow[0, 1]).clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, below = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    u, v = x - left, y - top
    upper = image[0, :, top, left] * (1 - u) + image[0, :, top, right] * u
    lower = image[0, :, below, left] * (1 - u) + image[0, :, below, right] * u
    return (upper * (1 - v) + lower * v)[None]


VARIANTS = {
    "global": {"downs": 2, "blocks": 3, "local_blocks": 2, "levels": 1, "foreground": False},
    "cars": {"downs": 3, "blocks": 2, "local_blocks": 2, "levels": 1, "foreground": True},
    "enhanced": {"downs": 2, "blocks": 2, "local_blocks": 1, "levels": 2, "foreground": False},
    "enhanced cars": {"downs": 3, "blocks": 3, "local_blocks": 2, "levels": 3, "foreground": True},
    "without flow": {
        "downs": 1, "blocks": 2, "local_blocks": 2, "levels": 1, "foreground": False, "flow": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("batch_norm", [True, False], ids=["batch", "instance"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_imported_weights_paint_the_same_film(tmp_path: Path, variant: str, batch_norm: bool):
    reference = Reference(batch_norm=batch_norm, **VARIANTS[variant])
    options, weights = load_reference_weights(reference.save(tmp_path))
    classes = (CAR,) if reference.foreground else ()
    sequencer = Sequencer(replace(options, foreground=classes), channels=CHANNELS, background=False)
    sequencer.load_state_dict(weights)
    # In double precision: networks of noise amplify rounding from frame to frame.
    sequencer.double().eval()
    size = (16 * 2**reference.levels, 24 * 2**reference.levels)
    maps = torch.rand(4, 1, CHANNELS, *size, generator=torch.Generator().manual_seed(0)).double()
    past: Past | None = None
    for now, expected in zip(maps, reference.double().film(maps), strict=True):
        with torch.no_grad():
            made = sequencer(now, past)
        past = made.past
        assert expected.std() > 0.05  # a picture, not a constant
        assert (made.frame - expected).abs().max() < 1e-5


def test_single_precision_agrees_on_the_first_frames(tmp_path: Path):
    reference = Reference(batch_norm=True, **VARIANTS["global"])
    options, weights = load_reference_weights(reference.save(tmp_path))
    sequencer = Sequencer(options, channels=CHANNELS, background=False).eval()
    sequencer.load_state_dict(weights)
    maps = torch.rand(1, 1, CHANNELS, 32, 48)
    with torch.no_grad():
        assert (sequencer(maps[0], None).frame - reference.film(maps)[0]).abs().max() < 1e-5


def test_the_architecture_is_read_from_the_file(tmp_path: Path):
    reference = Reference(batch_norm=True, **VARIANTS["enhanced cars"])
    options, _ = Vid2Vid.read_published(reference.save(tmp_path))
    found = (options.past, options.filters, options.downsamplings, options.blocks)
    assert found == (PAST, 8, 3, 3)
    assert (options.levels, options.local_blocks, options.norm) == (3, 2, "affine")
    assert options.foreground == (26,)
    assert (options.stem, options.skips, options.background) == ("conv7", False, False)


def test_imported_weights_load_into_the_plugin(tmp_path: Path):
    path = Reference(batch_norm=False, **VARIANTS["global"]).save(tmp_path)
    options, weights = Vid2Vid.read_published(path)
    Vid2Vid(options, conditions=Conditions(kinds=(LabelMaps,), channels=CHANNELS)).load_weights(
        weights
    )
    other = Conditions(kinds=(LabelMaps,), channels=CHANNELS + 1)
    with pytest.raises(BadSubject, match="options"):
        Vid2Vid(options, conditions=other).load_weights(weights)


def test_a_foreground_outside_of_the_labels_is_refused(tmp_path: Path):
    path = Reference(batch_norm=False, **VARIANTS["cars"]).save(tmp_path)
    options, _ = Vid2Vid.read_published(path)
    with pytest.raises(BadOption, match="26"):
        Vid2Vid(options, conditions=Conditions(kinds=(LabelMaps,), channels=CHANNELS))


def test_a_finer_level_alone_is_refused(tmp_path: Path):
    reference = Reference(batch_norm=False, **VARIANTS["enhanced"])
    finest = reference.save(tmp_path)
    alone = finest.rename(tmp_path / "finest.pth")
    with pytest.raises(BadSubject, match=r"finest\.pth.*latest_net_G0"):
        load_reference_weights(alone)


def test_a_missing_coarser_level_is_named(tmp_path: Path):
    finest = Reference(batch_norm=False, **VARIANTS["enhanced"]).save(tmp_path)
    (tmp_path / "latest_net_G0.pth").unlink()
    with pytest.raises(BadWeights, match=r"latest_net_G0\.pth"):
        load_reference_weights(finest)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path, content: bytes | None):
    path = tmp_path / "x.pth"
    if content is None:
        torch.save({"model.1.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(BadSubject if content is None else BadWeights, match=r"x\.pth"):
        load_reference_weights(path)
