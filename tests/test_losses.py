import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth import losses
from vidsynth.errors import MissingWeights
from vidsynth.kinds import Judgement


def judgement(seed: int, scales: int = 2, layers: int = 3) -> Judgement:
    rng = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    return Judgement(
        logits=[make(2, 1, 8 // 2**s, 8 // 2**s) for s in range(scales)],
        features=[[make(2, 4, 9 - n, 9 - n) for n in range(layers)] for _ in range(scales)],
    )


def test_least_squares_sums_over_scales_and_pulls_to_one_and_zero():
    given = judgement(0)
    ones, zeros = ([torch.full_like(x, v) for x in given.logits] for v in (1.0, 0.0))
    expected = [
        sum(F.mse_loss(a, b) for a, b in zip(given.logits, t, strict=True)) for t in (ones, zeros)
    ]
    assert torch.isclose(losses.judge_real(given), torch.as_tensor(expected[0]))
    assert torch.isclose(losses.fool(given), torch.as_tensor(expected[0]))
    assert torch.isclose(losses.judge_fake(given), torch.as_tensor(expected[1]))


def test_vanilla_is_the_cross_entropy_of_the_logits():
    given = judgement(1)
    for value, found in ((1.0, losses.judge_real), (1.0, losses.fool), (0.0, losses.judge_fake)):
        expected = sum(
            F.binary_cross_entropy(x.sigmoid(), torch.full_like(x, value)) for x in given.logits
        )
        assert torch.isclose(found(given, "vanilla"), torch.as_tensor(expected))


def test_hinge_stops_at_the_margin_for_the_judge_but_never_for_the_painter():
    sure = Judgement(logits=[torch.full((1, 1, 2, 2), 3.0, requires_grad=True)], features=[[]])
    assert losses.judge_real(sure, "hinge") == 0
    assert losses.judge_fake(sure, "hinge") == 4
    losses.fool(sure, "hinge").backward()
    grad = sure.logits[0].grad
    assert grad is not None and bool((grad < 0).all())


def test_feature_matching_has_the_published_weights_and_holds_the_real_side_fixed():
    made, real = judgement(2), judgement(3)
    for tensor in [*made.features[0], *real.features[0]]:
        tensor.requires_grad_(True)
    found = losses.feature_matching(made, real)
    n_layers, num_d = 2, 2  # three activations come from n_layers + 1
    expected = sum(
        (1 / num_d) * 4 / (n_layers + 1) * F.l1_loss(a, b)
        for ours, theirs in zip(made.features, real.features, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    assert torch.isclose(found, torch.as_tensor(expected))
    found.backward()
    assert all(t.grad is not None for t in made.features[0])
    assert all(t.grad is None for t in real.features[0])


def test_weighted_l1():
    made, real = torch.rand(1, 2, 3, 4, 4), torch.rand(1, 2, 3, 4, 4)
    weights = torch.rand(1, 2, 1, 4, 4)
    assert torch.isclose(losses.weighted_l1(made, real), F.l1_loss(made, real))
    by_hand = (weights * (made - real).abs()).sum() / made.numel()
    assert torch.isclose(losses.weighted_l1(made, real, weights), by_hand)


def test_bfloat16_is_summed_in_float32():
    logits = torch.full((1, 1, 1, 300), 1 / 3, dtype=torch.bfloat16)
    found = losses.judge_fake(Judgement([logits], [[]]))
    assert found.dtype == torch.float32
    assert torch.isclose(found, logits[0, 0, 0, 0].float().square(), rtol=1e-6)


# VGG19 by the book: 3x3 convolutions by number of channels, "M" a max-pooling.
BOOK = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
RELUS = (1, 6, 11, 20, 29)  # positions of relu1_1, relu2_1, ... in torchvision's `features`


@pytest.fixture(scope="module")
def vgg19_state() -> dict[str, Tensor]:
    """Random weights in torchvision's naming, classifier left out but for one tensor."""
    rng = torch.Generator().manual_seed(4)
    state, channels, position = {}, 3, 0
    for width in BOOK:
        if isinstance(width, int):
            scale = (2 / (9 * channels)) ** 0.5
            weight = torch.randn(width, channels, 3, 3, generator=rng) * scale
            state[f"features.{position}.weight"] = weight
            state[f"features.{position}.bias"] = torch.randn(width, generator=rng) * 0.1
            channels = width
        position += 2 if isinstance(width, int) else 1
    return state | {"classifier.0.bias": torch.zeros(4)}


def activations_by_the_book(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    found, hidden, position = [], image, 0
    for width in BOOK:
        if width == "M":
            hidden = F.max_pool2d(hidden, 2)
            position += 1
            continue
        weight = state[f"features.{position}.weight"]
        hidden = F.conv2d(hidden, weight, state[f"features.{position}.bias"], padding=1).relu()
        if position + 1 in RELUS:
            found.append(hidden)
        position += 2
    return found


@pytest.mark.parametrize("normalise", [False, True])
def test_perceptual_loss_is_that_of_vgg19_by_the_book(
    vgg19_state: dict[str, Tensor], normalise: bool
):
    made, real = torch.rand(2, 1, 3, 32, 48) * 2 - 1
    found = losses.PerceptualLoss(vgg19_state, normalise=normalise)(made, real)
    if normalise:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        made, real = (((x + 1) / 2 - mean) / deviation for x in (made, real))
    pairs = zip(
        (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1),
        activations_by_the_book(vgg19_state, made),
        activations_by_the_book(vgg19_state, real),
        strict=True,
    )
    expected = torch.stack([w * F.l1_loss(a, b) for w, a, b in pairs]).sum()
    assert torch.isclose(found, expected, rtol=1e-4)


def test_perceptual_loss_teaches_the_painter_and_never_itself(vgg19_state: dict[str, Tensor]):
    loss = losses.PerceptualLoss(vgg19_state)
    made = nn.Parameter(torch.rand(1, 3, 32, 32))
    loss(made, torch.rand(1, 3, 32, 32)).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert loss(made, made.detach()) == 0


def test_perceptual_loss_without_weights_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match="VGG19"):
        losses.PerceptualLoss.pretrained(offline=True)


def test_perceptual_loss_takes_a_file_of_torchvision(tmp_path, monkeypatch, vgg19_state):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    torch.save(vgg19_state, tmp_path / "vgg19-dcbb9e9d.pth")
    image = torch.rand(1, 3, 32, 32)
    loaded = losses.PerceptualLoss.pretrained(offline=True)
    expected = activations_by_the_book(vgg19_state, image)[-1]
    assert torch.allclose(loaded.activations(image)[-1], expected, rtol=1e-3, atol=1e-4)
