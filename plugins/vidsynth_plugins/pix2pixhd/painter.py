"""What holds a subject's weights: a network, what it composites over, the face on top."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import crop_boxes, halve, pad_to_multiple, paste_boxes, square_boxes
from vidsynth.objectives import Recalled
from vidsynth_plugins.pix2pixhd.networks import GlobalGenerator, LocalEnhancer, initialise
from vidsynth_plugins.pix2pixhd.options import Pix2PixHDOptions
from vidsynth_plugins.pix2pixhd.spade import SpadeGenerator

# B batch, C channels, H, W pixels, S side of a face crop


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
    ) -> Painted:
        """One frame per batch item, (B, 3, H, W); smaller while `is_coarse`.

        Args:
            maps_BCHW: conditioning maps in [0, 1], oldest first, the current frame's last.
            previous_B3HW: the frames before in [-1, 1], zeros at the start, with that option.
            plate_3HW: the still background in [-1, 1], when compositing over one.
            faces_B4: face boxes in pixels, x1 <= x0 where absent.
            recalled: exemplars, (B, K, ...), for a painter that looks at them.
        """
        recalled, previous_B3HW = self.looked_at(recalled, previous_B3HW)
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

    def looked_at(
        self, recalled: Recalled | None, previous_B3HW: Tensor | None
    ) -> tuple[Recalled | None, Tensor | None]:
        """The exemplars, and the frame before where the network itself sees it."""
        return recalled, previous_B3HW

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
