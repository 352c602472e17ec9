"""Layers and tensor operations that two or more plugins use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.errors import BadSubject, DeviceUnavailable

# B batch, C channels, H, W pixels

Network = TypeVar("Network", bound=nn.Module)


def pad_to_multiple(images_BCHW: Tensor, multiple: int) -> Tensor:
    """Grow H and W to multiples of `multiple`, at least two of them, on the right and below.

    Mirrors the picture where it is large enough for that, else repeats its edge. Two multiples
    leave two pixels at a network's bottleneck, the least that reflection padding and instance
    normalisation can work with.
    """
    height, width = images_BCHW.shape[-2:]
    below = max(2, -(-height // multiple)) * multiple - height
    right = max(2, -(-width // multiple)) * multiple - width
    if not below and not right:
        return images_BCHW
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images_BCHW, (0, right, 0, below), mode=mode)


def halve(images_BCHW: Tensor) -> Tensor:
    """The next level of an image pyramid: 3x3 average, stride 2, (ceil(H/2), ceil(W/2)).

    Padding does not count in the average, so that borders keep their brightness.
    """
    return F.avg_pool2d(images_BCHW, 3, stride=2, padding=1, count_include_pad=False)


def warp(
    images_BCHW: Tensor, flow_B2HW: Tensor, *, mode: Literal["bilinear", "bicubic"] = "bilinear"
) -> Tensor:
    """Sample `images` at each pixel plus its flow; borders repeated.

    Args:
        images_BCHW: floats.
        flow_B2HW: x then y displacement in pixels, from output pixel to where it is read.
        mode: bilinear blurs what lies between pixels; bicubic hardly does, and may overshoot.
    """
    # Pixel centres at -1 and 1 (align_corners), or a zero flow would shift by up to half a pixel.
    height, width = images_BCHW.shape[-2:]
    y = torch.arange(height, device=flow_B2HW.device, dtype=flow_B2HW.dtype)
    x = torch.arange(width, device=flow_B2HW.device, dtype=flow_B2HW.dtype)
    x_BHW = (x + flow_B2HW[:, 0]) * (2 / max(width - 1, 1)) - 1
    y_BHW = (y[:, None] + flow_B2HW[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid_BHW2 = torch.stack([x_BHW, y_BHW], dim=-1).to(images_BCHW.dtype)
    return F.grid_sample(
        images_BCHW, grid_BHW2, mode=mode, padding_mode="border", align_corners=True
    )


def square_boxes(boxes_B4: Tensor, height: int, width: int, *, margin: float) -> Tensor:
    """Squares round boxes, `margin` times their longer side; the whole middle where absent.

    Args:
        boxes_B4: x0, y0, x1, y1 in pixels; absent where x1 <= x0.
        height: of the picture, pixels.
        width: of the picture, pixels.
        margin: 1 touches the box.
    """
    whole = boxes_B4.new_tensor([0, 0, width, height])
    boxes_B4 = torch.where((boxes_B4[:, 2] > boxes_B4[:, 0])[:, None], boxes_B4, whole / 2)
    middle_B2 = (boxes_B4[:, :2] + boxes_B4[:, 2:]) / 2
    half_B1 = (boxes_B4[:, 2:] - boxes_B4[:, :2]).amax(dim=1, keepdim=True) * (margin / 2)
    return torch.cat([middle_B2 - half_B1, middle_B2 + half_B1], dim=1)


def crop_boxes(images_BCHW: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """Each picture's box (x0, y0, x1, y1: pixels, of edges not centres) as (size, size)."""
    scale_B2, shift_B2 = _placement(images_BCHW, boxes_B4)
    return _sample(images_BCHW, scale_B2, shift_B2, size, size, "border")


def paste_boxes(crops_BCSS: Tensor, boxes_B4: Tensor, images_BCHW: Tensor) -> Tensor:
    """Undo `crop_boxes`: the crops at their boxes in pictures like `images`, zero elsewhere."""
    scale_B2, shift_B2 = _placement(images_BCHW, boxes_B4)
    height, width = images_BCHW.shape[-2:]
    return _sample(crops_BCSS, 1 / scale_B2, -shift_B2 / scale_B2, height, width, "zeros")


def refuse_half_on_cpu(dtype: torch.dtype, device: torch.device | str) -> None:
    """Raise DeviceUnavailable for float16 on a CPU, which is some 190 times slower than float32."""
    if dtype == torch.float16 and torch.device(device).type == "cpu":
        raise DeviceUnavailable(
            "float16 on a CPU is hundreds of times slower than float32; use bfloat16 or float32"
        )


def filled(network: Network, weights: Mapping[str, Tensor], *, method: str) -> Network:
    """The network with these weights, on their device and in their precision, ready to render.

    Args:
        network: as the options describe it.
        weights: by the names of its `state_dict`.
        method: what an error calls it.

    Raises:
        BadSubject: the weights are of another network.
        DeviceUnavailable: float16 on a CPU.
    """
    device = next(iter(weights.values())).device
    dtype = next((w.dtype for w in weights.values() if w.is_floating_point()), torch.float32)
    refuse_half_on_cpu(dtype, device)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BadSubject(
            f"these weights are not of the {method} that the options describe ({reason}); "
            "render with the options that the subject was trained with"
        ) from error
    return network.to(device, dtype).eval()


def _placement(images_BCHW: Tensor, boxes_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift from a box's own [-1, 1] square to the picture's."""
    height, width = images_BCHW.shape[-2:]
    size_2 = boxes_B4.new_tensor([width, height])
    scale_B2 = (boxes_B4[:, 2:] - boxes_B4[:, :2]) / size_2
    return scale_B2, (boxes_B4[:, 2:] + boxes_B4[:, :2]) / size_2 - 1


def _sample(
    images_BCHW: Tensor, scale_B2: Tensor, shift_B2: Tensor, height: int, width: int, padding: str
) -> Tensor:
    theta_B23 = torch.cat([torch.diag_embed(scale_B2), shift_B2[:, :, None]], dim=2)
    shape = [len(images_BCHW), images_BCHW.shape[1], height, width]
    # Box edges, not pixel centres, lie at -1 and 1: crop and paste then agree at any size.
    grid_BHW2 = F.affine_grid(theta_B23.to(images_BCHW.dtype), shape, align_corners=False)
    return F.grid_sample(images_BCHW, grid_BHW2, padding_mode=padding, align_corners=False)
