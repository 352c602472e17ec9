import pytest
import torch
import torch.nn.functional as F

from vidsynth import blocks
from vidsynth.errors import DeviceUnavailable


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): the x and the y coordinate of each pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y])[None].float()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (31, 256)])
def test_zero_flow_is_the_identity(size: tuple[int, int]):
    where = ramp(*size)
    read_from = blocks.warp(where, torch.zeros(1, 2, *size))
    assert (read_from - where).abs().max() < 1e-3  # pixels


def test_flow_is_in_pixels_x_first():
    where = ramp(20, 30)
    flow = torch.stack([torch.full((20, 30), 2.5), torch.full((20, 30), -1.0)])[None]
    read_from = blocks.warp(where, flow)
    inside = read_from[:, :, 1:, :27] - where[:, :, 1:, :27]
    assert torch.allclose(inside[:, 0], torch.tensor(2.5), atol=1e-3)
    assert torch.allclose(inside[:, 1], torch.tensor(-1.0), atol=1e-3)
    assert read_from[:, 0].max() <= 29 and read_from[:, 1].min() >= 0  # borders repeat


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 40), (100, 3), (33, 64)])
def test_padding_reaches_two_multiples_and_keeps_the_picture(size: tuple[int, int]):
    image = torch.rand(2, 3, *size)
    padded = blocks.pad_to_multiple(image, 16)
    height, width = padded.shape[-2:]
    assert height % 16 == width % 16 == 0 and min(height, width) >= 32
    assert height < max(size[0] + 16, 33) and width < max(size[1] + 16, 33)
    assert torch.equal(padded[:, :, : size[0], : size[1]], image)


def test_halving_keeps_constants_up_to_the_border():
    assert torch.allclose(blocks.halve(torch.full((1, 1, 7, 10), 0.3)), torch.full((4, 5), 0.3))


def test_halving_averages_three_by_three():
    image = torch.rand(1, 1, 8, 8)
    assert torch.allclose(blocks.halve(image)[0, 0, 1, 2], image[0, 0, 1:4, 3:6].mean())


def test_square_boxes_hold_their_box_in_the_middle():
    given = torch.tensor([[10.0, 20, 30, 24], [5, 5, 5, 5]])
    squares = blocks.square_boxes(given, 64, 48, margin=1.5)
    assert torch.allclose(squares[0], torch.tensor([5.0, 7, 35, 37]))
    x0, y0, x1, y1 = squares[1]
    assert x1 > x0 and torch.isclose(x1 - x0, y1 - y0)  # absent: some square all the same


def test_a_crop_shows_what_lies_in_the_box():
    where = ramp(40, 60)
    crop = blocks.crop_boxes(where, torch.tensor([[12.0, 4, 28, 20]]), 16)
    assert torch.allclose(crop, where[:, :, 4:20, 12:28], atol=1e-3)
    enlarged = blocks.crop_boxes(where, torch.tensor([[12.0, 4, 28, 20]]), 32)
    assert torch.allclose(F.avg_pool2d(enlarged, 2), crop, atol=1e-3)


def test_pasting_puts_a_crop_back_where_it_was_and_nothing_elsewhere():
    image, box = torch.rand(1, 3, 40, 60), torch.tensor([[12.0, 4, 28, 20]])
    pasted = blocks.paste_boxes(blocks.crop_boxes(image, box, 16), box, image)
    expected = torch.zeros_like(image)
    expected[:, :, 4:20, 12:28] = image[:, :, 4:20, 12:28]
    assert torch.allclose(pasted, expected, atol=1e-4)


def test_half_precision_is_refused_on_the_cpu_only():
    with pytest.raises(DeviceUnavailable, match="bfloat16"):
        blocks.refuse_half_on_cpu(torch.float16, "cpu")
    blocks.refuse_half_on_cpu(torch.bfloat16, "cpu")
    blocks.refuse_half_on_cpu(torch.float16, "cuda")
