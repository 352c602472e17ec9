"""Both ports, with tiny networks of random weights."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch
import transformers
from vidsynth_ports.depth import DepthExtractor, DepthMaps, DepthOptions
from vidsynth_ports.image_to_image import ImageToImage, ImageToImageOptions

import vidsynth
from vidsynth import pipeline, video
from vidsynth.clip import Clip
from vidsynth.errors import BadOption, MissingWeights
from vidsynth.kinds import Conditions
from vidsynth.stream import Chunk
from vidsynth.testing import Case, examine, moving_squares, times


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDSYNTH_OFFLINE", "1")
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory):
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=12,
        neck_hidden_sizes=[8, 8],
        reassemble_factors=[2, 1],
        fusion_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
    )
    folder = tmp_path_factory.mktemp("depth")
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():  # far enough from nothing that rounding does not decide
        for weight in model.parameters():
            weight.mul_(3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def diffusion_model(tmp_path_factory):
    import diffusers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("diffusion")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "clay</w>", "figure</w>"]
    vocabulary = {w: n for n, w in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    text = transformers.CLIPTextConfig(
        vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    blocks = {"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2}
    made = diffusers.StableDiffusionImg2ImgPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            **blocks,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, cross_attention_dim=8, attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **blocks,
        ),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder)
    return folder


SLOW = "imports_without_a_gpu"


def broken(case):
    """The checks that fail, with their reasons; what imports is seen by importing it above."""
    return {f.check: f.reason for f in examine(case) if not f.ok and f.check != SLOW}


def test_the_depth_extractor_keeps_every_promise(depth_model):
    options = {"model": str(depth_model), "size": 28}
    assert broken(Case.of(DepthExtractor, options=options, tolerance=2.0)) == {}


def test_the_image_generator_keeps_every_promise(diffusion_model):
    options = {"model": str(diffusion_model), "steps": 2, "strength": 0.5, "prompt": "a figure"}
    case = Case.of(ImageToImage, options=options, kinds=(DepthMaps,), signals={DepthMaps: hill})
    assert broken(case) == {}


def hill(num_frames, height, width):
    """Something near in the middle that comes and goes."""
    across, down = (torch.linspace(-1, 1, n).square() for n in (width, height))
    shape = 255 * (1 - (across + down[:, None]) / 2)
    moments = torch.linspace(0.5, 1, max(num_frames, 1))[:num_frames]
    return DepthMaps(nearness=(moments[:, None, None] * shape).to(torch.uint8))


def test_depth_is_what_the_librarys_own_processor_makes_of_it(depth_model):
    model = transformers.AutoModelForDepthEstimation.from_pretrained(depth_model)
    frame = moving_squares(1, 56, 84)
    processor = transformers.DPTImageProcessor(
        size={"height": 56, "width": 84},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    seen = processor(frame.frames[0].permute(1, 2, 0).numpy(), return_tensors="pt")
    with torch.no_grad():
        answer = model(**seen)
    (found,) = processor.post_process_depth_estimation(answer, [(56, 84)])
    expected = found["predicted_depth"]
    expected = 255 * (expected - expected.min()) / (expected.max() - expected.min())
    options = DepthOptions(model=str(depth_model), size=56)
    (ours,) = DepthExtractor(options).extract(iter([frame]))
    # Theirs resizes the answer bicubically, ours linearly, so that nothing overshoots.
    assert float((ours.nearness[0].float() - expected).abs().mean()) < 4


def test_metres_are_turned_round(depth_model):
    frame = moving_squares(1, 42, 42)
    near, far = (
        next(DepthExtractor(DepthOptions(model=str(depth_model), size=42, nearest_is_largest=flag))
             .extract(iter([frame]))).nearness.int()
        for flag in (True, False)
    )  # fmt: skip
    assert int((near + far - 255).abs().max()) <= 1


def test_the_pipeline_itself_says_the_same(diffusion_model):
    import diffusers

    options = ImageToImageOptions(
        model=str(diffusion_model), steps=4, strength=0.5, prompt="a clay figure", device="cpu"
    )
    signal = hill(1, 32, 40)
    generator = ImageToImage(options, conditions=Conditions(kinds=(DepthMaps,), channels=1))
    rng = torch.Generator().manual_seed(5)
    spec = vidsynth.VideoSpec(height=32, width=40, fps=Fraction(25))
    (clip,) = generator.generate(iter([Chunk(times(1)).with_signal(signal)]), spec, rng=rng)
    theirs = diffusers.AutoPipelineForImage2Image.from_pretrained(diffusion_model)
    seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(5)))
    picture = signal.draw(32, 40).expand(-1, 3, -1, -1).float() / 255
    answer = theirs(
        prompt="a clay figure", image=picture, strength=0.5, num_inference_steps=4,
        guidance_scale=5.0, generator=torch.Generator().manual_seed(seed), output_type="pt",
    )  # fmt: skip
    expected = (answer.images * 255).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(clip.frames, expected.cpu())


def test_models_that_are_not_here_or_of_another_sort_are_told(tmp_path, depth_model):
    frame = moving_squares(1, 28, 28)
    (tmp_path / "other").mkdir()
    transformers.CLIPTextConfig(vocab_size=9).save_pretrained(tmp_path / "other")
    for model, error in (
        ("", BadOption),
        (str(tmp_path / "none"), MissingWeights),
        (str(tmp_path / "other"), BadOption),
    ):
        with pytest.raises(error):
            list(DepthExtractor(DepthOptions(model=model)).extract(iter([frame])))


def test_both_in_one_pipeline(tmp_path, depth_model, diffusion_model):
    clip = moving_squares(4, 40, 56)
    film = tmp_path / "film.mp4"
    video.write_video(film, iter([Chunk(clip.pts, clip)]), fps=Fraction(25))
    chain = tmp_path / "pipeline.toml"
    chain.write_text(
        f'[[stages]]\nextract = "depth"\nmodel = {json.dumps(str(depth_model))}\nsize = 28\n'
        f'[[stages]]\ngenerate = "image_to_image"\nmodel = {json.dumps(str(diffusion_model))}\n'
        'prompt = "a clay figure"\nsteps = 2\nstrength = 0.5\n'
        '[[stages]]\nstage = "colour_match"\n'
    )
    ran = pipeline.run(film, chain, tmp_path / "out.mp4", device="cpu")
    made = Clip.concat([c.clip for c in vidsynth.read_chunks(ran.path) if c.clip])
    assert ran.num_frames == 4 and made.frames.shape == clip.frames.shape
    assert float((made.frames.float() - clip.frames.float()).abs().mean()) > 5
