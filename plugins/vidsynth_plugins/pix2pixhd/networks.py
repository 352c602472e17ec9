"""The networks of Wang et al. 2018 (pix2pixHD), and what holds a subject's weights: the Painter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import crop_boxes, halve, pad_to_multiple, paste_boxes, square_boxes
from vidsynth.kinds import Discriminator, Judgement
from vidsynth.objectives import Recalled
from vidsynth_plugins.pix2pixhd.options import Norm, Pix2PixHDOptions, Stem, Upsampling
from vidsynth_plugins.pix2pixhd.spade import SpadeGenerator

# B batch, T frames, C channels, H, W pixels, S side of a face crop


class GlobalGenerator(nn.Module):
    """G1: convolution, strided convolutions, residual blocks, transposed convolutions, head.

    Without its head (`out_channels` 0) it gives the features that a local enhancer builds on. With
    the "shuffle" stem the finest features are at half the resolution of the picture.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        filters: int,
        downsamplings: int,
        blocks: int,
        norm: Norm = "instance",
        stem: Stem = "conv7",
        upsampling: Upsampling = "transposed",
        skips: bool = False,
    ) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(downsamplings + 1)]
        steps = list(pairwise(widths))
        self.skips = skips
        self.stride = 2**downsamplings * (2 if stem == "shuffle" else 1)
        make_stem = shuffle_stem if stem == "shuffle" else conv7_stem
        make_head = shuffle_head if stem == "shuffle" else conv7_head
        self.stem = make_stem(in_channels, filters, norm)
        self.down = nn.ModuleList(down_layers(fine, coarse, norm) for fine, coarse in steps)
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1], norm) for _ in range(blocks)))
        self.up = nn.ModuleList(
            up_layers(coarse, fine, norm, upsampling) for fine, coarse in reversed(steps)
        )
        self.head = make_head(filters, out_channels) if out_channels else nn.Identity()

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        hidden = self.stem(maps_BCHW)
        kept = []
        for down in self.down:
            if self.skips:
                kept.append(hidden)
            hidden = down(hidden)
        hidden = self.blocks(hidden)
        for up in self.up:
            hidden = up(hidden)
            if self.skips:
                hidden = hidden + kept.pop()
        return self.head(hidden)


class LocalEnhancer(nn.Module):
    """G2: the global generator at a fraction of the resolution, doubled by each enhancer.

    Each enhancer adds its own downsampled features to those from the level below. `coarse_only`,
    a part of the weights, says that the enhancers have not been trained yet: the picture is then
    that of the global generator, at its lower resolution.
    """

    coarse_only: Tensor

    def __init__(self, in_channels: int, out_channels: int, options: Pix2PixHDOptions) -> None:
        super().__init__()
        levels = options.local_enhancers
        self.stride = 2 ** (levels + options.downsamplings)
        self.coarse = GlobalGenerator(
            in_channels,
            0,
            filters=options.filters * 2**levels,
            downsamplings=options.downsamplings,
            blocks=options.blocks,
            norm=options.norm,
            upsampling=options.upsampling,
            skips=options.skips,
        )
        widths = [options.filters * 2**level for level in reversed(range(levels))]
        self.encoders = nn.ModuleList(_enhancer_down(in_channels, w, options.norm) for w in widths)
        self.decoders = nn.ModuleList(_enhancer_up(w, options) for w in widths)
        self.head = conv7_head(options.filters, out_channels)
        self.coarse_head: nn.Module | None = None
        if options.coarse_fraction:
            self.coarse_head = conv7_head(options.filters * 2**levels, out_channels)
            self.register_buffer("coarse_only", torch.tensor(True))

    @property
    def is_coarse(self) -> bool:
        return self.coarse_head is not None and bool(self.coarse_only)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        pyramid = [maps_BCHW]
        for _ in self.encoders:
            pyramid.append(halve(pyramid[-1]))
        hidden = self.coarse(pyramid.pop())
        if self.coarse_head is not None and self.is_coarse:
            return self.coarse_head(hidden)
        for encode, decode in zip(self.encoders, self.decoders, strict=True):
            hidden = decode(encode(pyramid.pop()) + hidden)
        return self.head(hidden)


class ResidualBlock(nn.Module):
    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            _norm(width, norm),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            _norm(width, norm),
        )

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        return hidden_BCHW + self.body(hidden_BCHW)


class Blur(nn.Module):
    """1-2-1 in both directions: blind to the finest checkerboard, keeps sums."""

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        channels = hidden_BCHW.shape[1]
        taps = hidden_BCHW.new_tensor([0.25, 0.5, 0.25])
        kernel = (taps[:, None] * taps).expand(channels, 1, 3, 3)
        padded = F.pad(hidden_BCHW, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, kernel, groups=channels)


def conv7_stem(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, width, 7)
    return nn.Sequential(nn.ReflectionPad2d(3), conv, _norm(width, norm), nn.ReLU(inplace=True))


def conv7_head(width: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7))


def shuffle_stem(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(in_channels * 4, width, 3),
        _norm(width, norm),
        nn.ReLU(inplace=True),
    )


def shuffle_head(width: int, out_channels: int) -> nn.Sequential:
    # A few channels unfold to full resolution, where one more convolution removes the 2x2 grid
    # that unfolding straight to colours would leave.
    fine = max(out_channels, width // 4)
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(width, fine * 4, 3),
        nn.PixelShuffle(2),
        # Leaky: so few channels, with no normalisation, die for good under a plain ReLU, and
        # colours with them.
        nn.LeakyReLU(0.2, inplace=True),
        nn.ReflectionPad2d(1),
        nn.Conv2d(fine, out_channels, 3),
    )


def down_layers(fine: int, coarse: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
    return nn.Sequential(conv, _norm(coarse, norm), nn.ReLU(inplace=True))


def up_layers(coarse: int, fine: int, norm: Norm, upsampling: Upsampling) -> nn.Sequential:
    conv = nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
    blur = [Blur()] if upsampling == "smooth" else []
    return nn.Sequential(conv, *blur, _norm(fine, norm), nn.ReLU(inplace=True))


def _enhancer_down(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *conv7_stem(in_channels, width, norm), *down_layers(width, width * 2, norm)
    )


def _enhancer_up(width: int, options: Pix2PixHDOptions) -> nn.Sequential:
    body = (ResidualBlock(width * 2, options.norm) for _ in range(options.local_blocks))
    return nn.Sequential(*body, *up_layers(width * 2, width, options.norm, options.upsampling))


def _norm(width: int, norm: Norm) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.InstanceNorm2d(width, affine=norm == "affine")


def initialise(network: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch-norm scales N(1, 0.02), as published."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """Frames (..., 3, H, W) in about [-1, 1], and how they came about."""

    frames: Tensor
    raw: Tensor
    """All paint: no exemplar shown, nor the face refined."""


class Painter(nn.Module):
    """Conditioning in, a frame out: everything that the weights of a subject hold."""

    slots = 0
    """Exemplars that it looks at."""

    def __init__(
        self,
        options: Pix2PixHDOptions,
        *,
        channels: int,
        background: bool,
        more_in: int = 0,
        more_out: int = 0,
    ) -> None:
        """Untrained.

        Args:
            options: the architecture.
            channels: of one frame's conditioning maps.
            background: composite over a plate.
            more_in: channels that `also_seen` gives.
            more_out: channels that `coloured` wants beyond colours and mask.
        """
        super().__init__()
        self.channels = channels
        self.background = background
        in_channels = channels * options.window + (3 if options.previous else 0) + more_in
        out_channels = (4 if background else 3) + more_out
        if options.local_enhancers:
            self.body = LocalEnhancer(in_channels, out_channels, options)
        elif options.network == "spade":
            self.body = SpadeGenerator(
                in_channels,
                out_channels,
                filters=options.filters,
                downsamplings=options.downsamplings,
                blocks=options.blocks,
                norm=options.norm,
            )
        else:
            self.body = GlobalGenerator(
                in_channels,
                out_channels,
                filters=options.filters,
                downsamplings=options.downsamplings,
                blocks=options.blocks,
                norm=options.norm,
                stem=options.stem,
                upsampling=options.upsampling,
                skips=options.skips,
            )
        self.face = FaceRefiner(options, channels) if options.face else None
        initialise(self)

    @property
    def is_coarse(self) -> bool:
        """Frames come out smaller, because the local enhancers have not joined yet."""
        return isinstance(self.body, LocalEnhancer) and self.body.is_coarse

    def forward(
        self,
        maps_BCHW: Tensor,
        previous_B3HW: Tensor | None = None,
        plate_3HW: Tensor | None = None,
        faces_B4: Tensor | None = None,
        recalled: Recalled | None = None,
    ) -> Tensor:
        """One frame per batch item, (B, 3, H, W) in about [-1, 1]; smaller while `is_coarse`.

        Args:
            maps_BCHW: conditioning maps in [0, 1], oldest first, the current frame's last.
            previous_B3HW: the frames before in [-1, 1], zeros at the start, with that option.
            plate_3HW: the still background in [-1, 1], when compositing over one.
            faces_B4: face boxes in pixels, x1 <= x0 where absent.
            recalled: exemplars, (B, K, ...), for a painter that looks at them.
        """
        return self.paint(maps_BCHW, previous_B3HW, plate_3HW, faces_B4, recalled).frames

    def paint(
        self,
        maps_BCHW: Tensor,
        previous_B3HW: Tensor | None = None,
        plate_3HW: Tensor | None = None,
        faces_B4: Tensor | None = None,
        recalled: Recalled | None = None,
    ) -> Painted:
        """As `forward`, and what of it is paint."""
        size = (maps_BCHW.shape[2], maps_BCHW.shape[3])
        given = [maps_BCHW, *self.also_seen(recalled)]
        if previous_B3HW is not None:
            given.append(F.interpolate(previous_B3HW, size, mode="bilinear"))
        painted_BCHW = _padded(self.body, torch.cat(given, dim=1))
        if self.is_coarse:
            shrunk = 2 ** len(self.body.encoders)  # pyright: ignore[reportArgumentType]
            size = (-(-size[0] // shrunk), -(-size[1] // shrunk))
        painted_BCHW = painted_BCHW[:, :, : size[0], : size[1]]
        raw_B3HW = painted_BCHW[:, :3].tanh()
        frames_B3HW = self.coloured(raw_B3HW, painted_BCHW, recalled, plate_3HW)
        if self.background:
            if plate_3HW is None:
                raise ValueError("this painter composites over a plate, and was given none")
            plate_B3HW = halved_to(plate_3HW[None], frames_B3HW)
            drawn_B1HW = maps_BCHW[:, -self.channels :].amax(dim=1, keepdim=True)
            mask_B1HW = (painted_BCHW[:, 3:4] + likely_subject(drawn_B1HW, size)).sigmoid()
            frames_B3HW = plate_B3HW + mask_B1HW * (frames_B3HW - plate_B3HW)
            raw_B3HW = plate_B3HW + mask_B1HW.detach() * (raw_B3HW - plate_B3HW)
        if self.face is not None and faces_B4 is not None and not self.is_coarse:
            current_BCHW = maps_BCHW[:, -self.channels :]
            frames_B3HW = frames_B3HW + self.face(frames_B3HW, current_BCHW, faces_B4)
        return Painted(frames_B3HW, raw_B3HW)

    def also_seen(self, recalled: Recalled | None) -> list[Tensor]:
        """What the network sees beside the maps: pictures (B, C, H, W)."""
        return []

    def coloured(
        self,
        raw_B3HW: Tensor,
        painted_BCHW: Tensor,
        recalled: Recalled | None,
        plate_3HW: Tensor | None,
    ) -> Tensor:
        """The subject (B, 3, H, W) from the paint and all that the network made: colours, then the
        mask's logits with a background, then what a kind of painter asked for."""
        return raw_B3HW


def likely_subject(drawn_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a mask starts from, (B, 1, *size) in logits: the subject is near what is drawn of it.

    So the background is right from the first step. Near the drawing it takes as much to hide the
    subject as a little further to show it; an eighth of the height away it takes twice that, and
    a pose never trained on leaves no ghosts.
    """
    # At a quarter of the resolution: softness is all there is to it.
    coarse_B1HW = F.max_pool2d((drawn_B1HW > 0.02).float(), 4, stride=4, ceil_mode=True)
    reach = max(1, coarse_B1HW.shape[2] // 32)
    likely_B1HW = 2 * _grown(coarse_B1HW, reach) + _grown(coarse_B1HW, 4 * reach) - 2
    return MASK_LOGITS * F.interpolate(likely_B1HW, size, mode="bilinear")


def _grown(shape_B1HW: Tensor, reach: int) -> Tensor:
    """A shape of 0 and 1, grown by `reach` pixels and then blurred as far."""
    side = 2 * reach + 1
    shape_B1HW = F.max_pool2d(shape_B1HW, side, stride=1, padding=reach)
    return F.avg_pool2d(shape_B1HW, side, stride=1, padding=reach, count_include_pad=False)


MASK_LOGITS = 4.0
"""How sure the mask starts out, on either side."""


def _padded(
    network: GlobalGenerator | LocalEnhancer | SpadeGenerator, images_BCHW: Tensor
) -> Tensor:
    """Run on a size the network can take, in its own precision; float32 at least comes out."""
    dtype = next(network.parameters()).dtype
    made_BCHW = network(pad_to_multiple(images_BCHW, network.stride).to(dtype))
    return made_BCHW.to(torch.promote_types(made_BCHW.dtype, torch.float32))


def halved_to(images_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """`images`, taken down the pyramid until they are no wider than `like`."""
    while images_BCHW.shape[-1] > like_BCHW.shape[-1]:
        images_BCHW = halve(images_BCHW)
    return images_BCHW


FACE_MARGIN = 1.3
"""Face crops are squares this many times the longer side of the face's box."""


class FaceRefiner(nn.Module):
    """The face generator of Chan et al. 2019: a residual for the face's crop, pasted back.

    The edge of the crop fades out, so that no seam shows.
    """

    window: Tensor

    def __init__(self, options: Pix2PixHDOptions, channels: int) -> None:
        super().__init__()
        self.size = options.face_size
        self.network = GlobalGenerator(
            channels + 3,
            3,
            filters=max(1, options.filters // 2),
            downsamplings=2,
            blocks=5,
            norm=options.norm,
            upsampling=options.upsampling,
        )
        ramp_S = (torch.arange(self.size) + 0.5) / self.size
        edge_S = (8 * torch.minimum(ramp_S, 1 - ramp_S)).clamp(max=1)  # an eighth on each side
        self.register_buffer("window", edge_S * edge_S[:, None], persistent=False)

    def forward(self, frames_B3HW: Tensor, maps_BCHW: Tensor, faces_B4: Tensor) -> Tensor:
        """What to add to the frames; zero outside the faces, and where there is none."""
        boxes_B4 = square_boxes(faces_B4, *frames_B3HW.shape[-2:], margin=FACE_MARGIN)
        crops_BCSS = crop_boxes(torch.cat([maps_BCHW, frames_B3HW], dim=1), boxes_B4, self.size)
        made_B3SS = _padded(self.network, crops_BCSS)[:, :, : self.size, : self.size]
        residual_B3SS = made_B3SS.tanh() * self.window
        seen_B111 = (faces_B4[:, 2] > faces_B4[:, 0])[:, None, None, None]
        return paste_boxes(residual_B3SS, boxes_B4, frames_B3HW) * seen_B111


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiscalePatchOptions:
    """The published discriminators.

    Attributes:
        filters: channels of the first layer; they double per layer up to 512.
        layers: strided layers of each discriminator.
        scales: discriminators, each at half the resolution of the one before.
        norm: "instance", "batch" or "affine" normalisation.
    """

    filters: int = 64
    layers: int = 3
    scales: int = 2
    norm: Norm = "instance"


class MultiscalePatch(Discriminator):
    """PatchGAN discriminators on an image pyramid, the finest first.

    With `num_frames` above 1 they judge stacks of that many frames: all conditions, then all
    frames, along the channels.
    """

    Options = MultiscalePatchOptions
    paper = (
        'Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with '
        'Conditional GANs"'
    )
    checked: ClassVar = {"options": {"filters": 8}}
    options: MultiscalePatchOptions

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options, condition_channels=condition_channels, num_frames=num_frames)
        self.scales = nn.ModuleList(
            _patch_layers(self.channels_seen(), self.options) for _ in range(self.options.scales)
        )
        initialise(self)

    def channels_seen(self) -> int:
        """Of what `stack` gives."""
        return self.num_frames * (self.condition_channels + 3)

    def stack(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Tensor:
        """What is judged as one picture: (B * T / num_frames, channels_seen, H, W)."""
        seen = self._stacked(frames_BTCHW)
        if condition_BTCHW is None:
            return seen
        return torch.cat([self._stacked(condition_BTCHW), seen], dim=1)

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        seen = self.stack(frames_BTCHW, condition_BTCHW)
        logits, features = [], []
        for index, layers in enumerate(self.scales):
            seen = halve(seen) if index else seen
            hidden, kept = seen, []
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = layer(hidden)
                kept.append(hidden)
            logits.append(kept.pop())
            features.append(kept)
        return Judgement(logits, features)

    def _stacked(self, images_BTCHW: Tensor) -> Tensor:
        """(B * T / num_frames, num_frames * C, H, W)"""
        height, width = images_BTCHW.shape[-2:]
        return images_BTCHW.reshape(-1, self.num_frames * images_BTCHW.shape[2], height, width)


def _patch_layers(in_channels: int, options: MultiscalePatchOptions) -> nn.ModuleList:
    widths = [min(options.filters * 2**level, 512) for level in range(options.layers + 1)]
    leaky = nn.LeakyReLU(0.2, inplace=True)
    first = nn.Conv2d(in_channels, options.filters, 4, stride=2, padding=2)
    layers = nn.ModuleList([nn.Sequential(first, leaky)])
    for level, (fine, coarse) in enumerate(pairwise(widths), 1):
        conv = nn.Conv2d(fine, coarse, 4, stride=2 if level < options.layers else 1, padding=2)
        layers.append(nn.Sequential(conv, _norm(coarse, options.norm), leaky))
    layers.append(nn.Sequential(LogitConv(widths[-1], 1, 4, padding=2)))
    return layers


class LogitConv(nn.Conv2d):
    """A convolution to one channel.

    On CPUs as a product with each tap and their shifted sum: the same numbers, several times
    quicker than by kernels that are made for many channels.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - what is given has a shape
        self, hidden_BCHW: Tensor
    ) -> Tensor:
        if hidden_BCHW.device.type != "cpu" or self.bias is None:
            return super().forward(hidden_BCHW)
        side, pad = self.kernel_size[0], int(self.padding[0])
        taps_KC11 = self.weight.flip(2, 3)[0].flatten(1).mT[..., None, None]
        each_BKP = F.conv2d(hidden_BCHW, taps_KC11).flatten(2)
        each_BKP = each_BKP.to(torch.promote_types(each_BKP.dtype, torch.float32))
        height, width = (n + 2 * pad - side + 1 for n in hidden_BCHW.shape[2:])
        summed_B1HW = F.fold(each_BKP, (height, width), side, padding=side - 1 - pad)
        return summed_B1HW + self.bias[:, None, None]
