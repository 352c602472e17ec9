"""The networks of Wang et al. 2018 (vid2vid), and what holds a subject's weights: Sequencer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import halve, pad_to_multiple, warp
from vidsynth_plugins.pix2pixhd.networks import (
    GlobalGenerator,
    ResidualBlock,
    conv7_head,
    conv7_stem,
    down_layers,
    initialise,
    shuffle_head,
    shuffle_stem,
    up_layers,
)
from vidsynth_plugins.pix2pixhd.painter import likely_subject
from vidsynth_plugins.vid2vid.options import Vid2VidOptions

# B batch, L past frames, C channels of one frame's maps, K of a layer (colours, and a mask's
# logit or share where there is a plate), H, W pixels


SHARE_LOGIT = 2.0
"""How sure a network starts out to paint rather than to carry on."""


class Encoder(nn.Module):
    """Stem, strided convolutions, residual blocks."""

    def __init__(
        self, in_channels: int, filters: int, *, downs: int, blocks: int, options: Vid2VidOptions
    ) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(downs + 1)]
        make_stem = shuffle_stem if options.stem == "shuffle" else conv7_stem
        self.stem = make_stem(in_channels, filters, options.norm)
        self.down = nn.ModuleList(down_layers(*pair, options.norm) for pair in pairwise(widths))
        self.blocks = _blocks(widths[-1], blocks, options)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """The features at each resolution, the finest first; the last have been through all."""
        found = [self.stem(images_BCHW)]
        for down in self.down:
            found.append(down(found[-1]))
        return [*found[:-1], self.blocks(found[-1])]


class Decoder(nn.Module):
    """Residual blocks and transposed convolutions: from an encoder's features to full size."""

    def __init__(self, filters: int, *, ups: int, blocks: int, options: Vid2VidOptions) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(ups + 1)]
        self.skips = options.skips
        self.blocks = _blocks(widths[-1], blocks, options)
        self.up = nn.ModuleList(
            up_layers(coarse, fine, options.norm, options.upsampling)
            for fine, coarse in reversed(list(pairwise(widths)))
        )

    def forward(self, found: Sequence[Tensor], coarser_BCHW: Tensor | None) -> Tensor:
        *kept, hidden = found
        if coarser_BCHW is not None:
            hidden = hidden + coarser_BCHW
        hidden = self.blocks(hidden)
        for up in self.up:
            hidden = up(hidden)
            if self.skips:
                hidden = hidden + kept.pop()
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a level hands to the next finer one."""

    paint: Tensor
    motion: Tensor | None
    foreground: Tensor | None

    def detached(self) -> Features:
        return Features(
            self.paint.detach(),
            None if self.motion is None else self.motion.detach(),
            None if self.foreground is None else self.foreground.detach(),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What a level's networks say of a frame, before anything is composed."""

    paint: Tensor
    """(B, K, H, W): colours before their tanh, and the mask's logit."""
    flow: Tensor | None
    """(B, 2, H, W) pixels: what `blocks.warp` takes, from this frame to the one before."""
    share: Tensor | None
    """(B, 1, H, W) in [0, 1]: how much of the frame is paint; the rest is the frame before."""
    foreground: Tensor | None
    """(B, 3, H, W) in [-1, 1]."""
    features: Features


class Level(nn.Module):
    """One resolution: labels and past frames are encoded apart and added; paint and motion branch
    off after that. A level above the coarsest adds the features of the one below."""

    def __init__(self, channels: int, index: int, layer_channels: int, options: Vid2VidOptions):
        """Untrained.

        Args:
            channels: of one frame's maps.
            index: 0 for the coarsest.
            layer_channels: K.
            options: the architecture.
        """
        super().__init__()
        o, seen = options, options.past + 1
        filters = o.filters // 2**index
        downs = 1 if index else o.downsamplings
        early, late = (0, o.local_blocks) if index else (o.blocks - o.blocks // 2, o.blocks // 2)
        make_head = shuffle_head if o.stem == "shuffle" else conv7_head
        self.flow_px, self.least_paint = o.flow_px * 2**index, o.least_paint
        self.labels = Encoder(channels * seen, filters, downs=downs, blocks=early, options=o)
        self.images = Encoder(3 * o.past, filters, downs=downs, blocks=early, options=o)
        self.paint = Decoder(filters, ups=downs, blocks=late, options=o)
        self.paint_head = make_head(filters, layer_channels)
        self.motion = None
        if o.flow:
            self.motion = Decoder(filters, ups=downs, blocks=late, options=o)
            self.flow_head = make_head(filters, 2)
            self.share_head = make_head(filters, 1)
        self.front = None
        if o.foreground:
            width = filters // 2 if o.downsamplings > 2 else filters  # as published
            whole = 0 if index else o.blocks
            self.front_labels = Encoder(
                channels * seen, width, downs=downs, blocks=0, options=replace(o, skips=False)
            )
            self.front = Decoder(
                width, ups=downs, blocks=whole or late, options=replace(o, skips=False)
            )
            self.front_head = make_head(width, 3)
        initialise(self)
        if o.flow:  # nothing moves, and little is carried on, until it is known better
            for parameter in (*self.flow_head[-1].parameters(), *self.share_head[-1].parameters()):
                nn.init.zeros_(parameter)
            nn.init.constant_(self.share_head[-1].bias, SHARE_LOGIT)  # pyright: ignore

    def forward(
        self, maps_BCHW: Tensor, past_BCHW: Tensor, coarser: Features | None = None
    ) -> Proposal:
        """Of `past + 1` frames' maps and `past` frames, stacked along the channels."""
        found = [a + b for a, b in zip(self.labels(maps_BCHW), self.images(past_BCHW), strict=True)]
        paint = self.paint(found, coarser and coarser.paint)
        motion = flow = share = front = picture = None
        if self.motion is not None:
            motion = self.motion(found, coarser and coarser.motion)
            flow = self.flow_head(motion) * self.flow_px
            share = self.least_paint + (1 - self.least_paint) * self.share_head(motion).sigmoid()
        if self.front is not None:
            front = self.front(self.front_labels(maps_BCHW), coarser and coarser.foreground)
            picture = self.front_head(front).tanh()
        return Proposal(
            self.paint_head(paint), flow, share, picture, Features(paint, motion, front)
        )


def _blocks(width: int, count: int, options: Vid2VidOptions) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, options.norm) for _ in range(count)))


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What a sequence remembers. Sizes are the padded ones that the networks run at."""

    maps: Tensor
    """(B, L * C, H, W), oldest first."""
    frames: tuple[Tensor, ...]
    """Per level, the coarsest first: (B, L * 3, h, w) frames as that level made them."""
    layers: tuple[Tensor, ...]
    """Per level, (B, K, h, w): the last frame without what it was composited over; its last
    channel is the mask in [0, 1] where there is a plate."""
    made: int
    """Frames since the sequence began."""

    def detached(self) -> Past:
        """Beyond which no gradient runs."""
        frames, layers = (tuple(x.detach() for x in xs) for xs in (self.frames, self.layers))
        return Past(self.maps, frames, layers, self.made)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for `of_tensors`."""
        levels = {f"frames.{n}": x for n, x in enumerate(self.frames)}
        levels |= {f"layers.{n}": x for n, x in enumerate(self.layers)}
        return {"maps": self.maps, "made": torch.tensor(self.made), **levels}

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor], device: torch.device) -> Past:
        """What `tensors` gave, on the device."""
        levels = range(sum(name.startswith("frames.") for name in tensors))
        frames, layers = (
            tuple(tensors[f"{name}.{n}"].to(device) for n in levels)
            for name in ("frames", "layers")
        )
        return Past(tensors["maps"].to(device), frames, layers, int(tensors["made"]))


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A frame, and how it came about; H, W as asked for."""

    frame: Tensor
    """(B, 3, H, W) in about [-1, 1]."""
    raw: Tensor
    """(B, 3, H, W): all paint, nothing carried on."""
    flow: Tensor | None
    """(B, 2, H, W) pixels, as of `Proposal`; None where no frame came before or none is used."""
    share: Tensor | None
    """(B, 1, H, W) in [0, 1], as of `Proposal`."""
    past: Past


class Sequencer(nn.Module):
    """Conditioning and the frames before in, a frame out: all that the weights of a subject hold.

    `coarse_only`, a part of the weights, says that the finest level has not been trained yet:
    frames then come at half the resolution of the maps, from the levels below.
    """

    coarse_only: Tensor

    def __init__(self, options: Vid2VidOptions, *, channels: int, background: bool) -> None:
        """Untrained.

        Args:
            options: the architecture.
            channels: of one frame's conditioning maps.
            background: composite over a plate.
        """
        super().__init__()
        self.options = options
        self.channels = channels
        self.background = background
        layer_channels = 4 if background else 3
        self.levels = nn.ModuleList(
            Level(channels, index, layer_channels, options) for index in range(options.levels)
        )
        self.stride = 2 ** (options.downsamplings + options.levels - 1)
        self.stride *= 2 if options.stem == "shuffle" else 1
        self.opener = None
        if options.start == "image":
            self.opener = GlobalGenerator(
                channels,
                layer_channels,
                filters=options.filters,
                downsamplings=options.downsamplings,
                blocks=options.blocks,
                norm=options.norm,
                stem=options.stem,
                upsampling=options.upsampling,
                skips=options.skips,
            )
            initialise(self.opener)
        if options.coarse_fraction:
            self.register_buffer("coarse_only", torch.tensor(True))
        self.coarse_is_fixed = False

    @property
    def is_coarse(self) -> bool:
        """Frames come at half the maps' size, because the finest level has not joined yet."""
        return bool(self.options.coarse_fraction) and bool(self.coarse_only)

    def forward(
        self,
        maps_BCHW: Tensor,
        past: Past | None,
        plate_3HW: Tensor | None = None,
        given_B3HW: Tensor | None = None,
    ) -> Made:
        """The next frame of each sequence in the batch.

        Args:
            maps_BCHW: conditioning maps in [0, 1].
            past: as the frame before left it; None begins a sequence.
            plate_3HW: the still background in [-1, 1], when compositing over one.
            given_B3HW: the frame itself in [-1, 1]: it is remembered, and nothing is made.
        """
        size = (maps_BCHW.shape[2], maps_BCHW.shape[3])
        maps_BCHW = pad_to_multiple(maps_BCHW, self.stride)
        past = past or self._nothing_yet(maps_BCHW)
        plate_13HW = None
        if self.background:
            if plate_3HW is None:
                raise ValueError("this network composites over a plate, and was given none")
            plate_13HW = pad_to_multiple(plate_3HW[None], self.stride)
        maps_BXHW = torch.cat([past.maps, maps_BCHW], dim=1)
        if given_B3HW is not None:
            made = self._remembered(pad_to_multiple(given_B3HW, self.stride), past)
        elif self.opener is not None and past.made < self.options.past:
            made = self._opened(maps_BCHW, plate_13HW, past)
        else:
            made = self._continued(maps_BXHW, plate_13HW, past)
        height, width = size
        return Made(
            *(
                None if x is None else x[:, :, :height, :width]
                for x in (made.frame, made.raw, made.flow, made.share)
            ),  # pyright: ignore[reportArgumentType] - the first two are never None
            past=replace(made.past, maps=maps_BXHW[:, self.channels :]),
        )

    def _nothing_yet(self, maps_BCHW: Tensor) -> Past:
        """Before the first frame its maps repeat, and the pictures are grey."""
        past, layer_channels = self.options.past, 4 if self.background else 3
        maps = maps_BCHW.repeat(1, past, 1, 1)
        batch, _, height, width = maps.shape
        sizes = [(height >> n, width >> n) for n in reversed(range(len(self._active())))]
        return Past(
            maps,
            tuple(maps.new_zeros(batch, past * 3, *size) for size in sizes),
            tuple(maps.new_zeros(batch, layer_channels, *size) for size in sizes),
            made=0,
        )

    def _active(self) -> list[nn.Module]:
        levels = list(self.levels)
        return levels[:-1] if self.is_coarse else levels

    def _remembered(self, frame_B3HW: Tensor, past: Past) -> Made:
        layer_BKHW = frame_B3HW
        if self.background:
            layer_BKHW = torch.cat([frame_B3HW, torch.ones_like(frame_B3HW[:, :1])], dim=1)
        return self._made_without_motion(frame_B3HW, layer_BKHW, past)

    def _opened(self, maps_BCHW: Tensor, plate_13HW: Tensor | None, past: Past) -> Made:
        assert self.opener is not None
        painted_BKHW = _in_own_precision(self.opener, maps_BCHW)
        layer_BKHW = self._layer(painted_BKHW, maps_BCHW)
        return self._made_without_motion(_composited(layer_BKHW, plate_13HW), layer_BKHW, past)

    def _made_without_motion(self, frame_B3HW: Tensor, layer_BKHW: Tensor, past: Past) -> Made:
        frames, layers = ([x] for x in (frame_B3HW, layer_BKHW))
        for _ in past.frames[1:]:
            frames.insert(0, halve(frames[0]))
            layers.insert(0, halve(layers[0]))
        return Made(frame_B3HW, frame_B3HW, None, None, _after(past, frames, layers))

    def _continued(self, maps_BXHW: Tensor, plate_13HW: Tensor | None, past: Past) -> Made:
        levels = self._active()
        pyramid: list[tuple[Tensor, Tensor | None]] = [(maps_BXHW, plate_13HW)]
        for _ in levels[1:]:
            maps, plate = pyramid[0]
            pyramid.insert(0, (halve(maps), None if plate is None else halve(plate)))
        first = past.made == 0
        frames: list[Tensor] = []
        layers: list[Tensor] = []
        features = raw = proposal = None
        for index, (level, (maps, plate)) in enumerate(zip(levels, pyramid, strict=True)):
            seen = past.frames[index]
            if self.training and self.options.past_noise and not first:
                seen = seen + self.options.past_noise * torch.randn_like(seen)
            proposal = _proposed(level, maps, seen, features)
            features = proposal.features
            if self.coarse_is_fixed and index < len(levels) - 1:
                features = features.detached()
            paint_BKHW = layer_BKHW = self._layer(proposal.paint, maps[:, -self.channels :])
            if proposal.flow is not None and proposal.share is not None and not first:
                # Where the share is low, the frame before is carried on by the flow.
                carried_BKHW = warp(past.layers[index], proposal.flow)
                layer_BKHW = carried_BKHW + proposal.share * (paint_BKHW - carried_BKHW)
            frame, raw = (_composited(x, plate) for x in (layer_BKHW, paint_BKHW))
            frame, raw = (self._fronted(x, proposal, maps) for x in (frame, raw))
            frames.append(frame)
            layers.append(layer_BKHW if self.background else frame)
        assert proposal is not None and raw is not None
        flow, share = (None, None) if first else (proposal.flow, proposal.share)
        return Made(frames[-1], raw, flow, share, _after(past, frames, layers))

    def _layer(self, painted_BKHW: Tensor, maps_BCHW: Tensor) -> Tensor:
        """Colours in [-1, 1] and, with a plate, how much of the subject covers it."""
        colours_B3HW = painted_BKHW[:, :3].tanh()
        if not self.background:
            return colours_B3HW
        drawn_B1HW = maps_BCHW.amax(dim=1, keepdim=True)
        size = (maps_BCHW.shape[2], maps_BCHW.shape[3])
        mask_B1HW = (painted_BKHW[:, 3:] + likely_subject(drawn_B1HW, size)).sigmoid()
        return torch.cat([colours_B3HW, mask_B1HW], dim=1)

    def _fronted(self, frame_B3HW: Tensor, proposal: Proposal, maps_BXHW: Tensor) -> Tensor:
        if proposal.foreground is None:
            return frame_B3HW
        classes = maps_BXHW[:, -self.channels :][:, list(self.options.foreground)]
        mask_B1HW = classes.sum(dim=1, keepdim=True).clamp(0, 1)
        return frame_B3HW + mask_B1HW * (proposal.foreground - frame_B3HW)


def _composited(layer_BKHW: Tensor, plate_13HW: Tensor | None) -> Tensor:
    if plate_13HW is None:
        return layer_BKHW
    colours_B3HW, mask_B1HW = layer_BKHW.split([3, 1], dim=1)
    return plate_13HW + mask_B1HW * (colours_B3HW - plate_13HW)


def _after(past: Past, frames: Sequence[Tensor], layers: Sequence[Tensor]) -> Past:
    """With one more frame remembered, and the oldest forgotten."""
    shifted = (
        torch.cat([old[:, 3:], new], dim=1) for old, new in zip(past.frames, frames, strict=True)
    )
    return Past(past.maps, tuple(shifted), tuple(layers), past.made + 1)


def _proposed(level: nn.Module, maps: Tensor, past: Tensor, coarser: Features | None) -> Proposal:
    """By a level in its own precision; float32 at least comes out."""
    dtype = next(level.parameters()).dtype
    found: Proposal = level(maps.to(dtype), past.to(dtype), coarser)
    return replace(
        found,
        paint=_wide(found.paint),
        flow=_wide(found.flow),
        share=_wide(found.share),
        foreground=_wide(found.foreground),
    )


def _in_own_precision(network: nn.Module, images: Tensor) -> Tensor:
    made = _wide(network(images.to(next(network.parameters()).dtype)))
    assert made is not None
    return made


def _wide(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def is_cut(before_1CHW: Tensor, now_1CHW: Tensor, share: float) -> bool:
    """Whether more than `share` of the conditioning changed at once, at an eighth of its size.

    What is drawn in both frames counts as unchanged; nothing drawn in either is no change.
    """
    coarse = (
        F.avg_pool2d(x.float(), 8, ceil_mode=True, count_include_pad=False)
        for x in (before_1CHW, now_1CHW)
    )
    before, now = coarse
    total = float((before + now).sum())
    return total > 0 and float((before - now).abs().sum()) > share * total
