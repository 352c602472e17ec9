"""The open text-to-video families, with tiny random weights of the real classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_diffusers import MAKERS, libraries, motion_adapter, saved, stable_diffusion

from vidsynth import video
from vidsynth.classes import Prompt
from vidsynth.cli import main
from vidsynth.clip import VideoSpec
from vidsynth.errors import (
    BadOption,
    BadWeights,
    DeviceUnavailable,
    MissingWeights,
    UnsupportedVideo,
    VidsynthError,
)
from vidsynth.kinds import Conditions
from vidsynth.stream import Chunk
from vidsynth.subject import write_picture
from vidsynth.testing import Case, checks_of, times
from vidsynth.testing.conformance import COMMON
from vidsynth_plugins.clip_text import joined_tokens
from vidsynth_plugins.text2video import Text2Video, Text2VideoOptions
from vidsynth_plugins.text2video.families import FAMILIES
from vidsynth_plugins.text2video.folder import look
from vidsynth_plugins.text2video.memory import GB, place
from vidsynth_plugins.text2video.takes import Take, in_lengths, takes_of

CUDA = torch.device("cuda")
SMALL = {  # family -> width, height, frames: the shortest films of more than one latent
    "wan": (32, 16, 5),
    "wan_image": (32, 16, 5),
    "ltx": (64, 32, 9),
    "cogvideox": (32, 16, 9),
    "hunyuan": (32, 16, 5),
    "mochi": (32, 16, 7),
    "animatediff": (32, 16, 3),
    "text_to_video_sd": (32, 16, 3),
}


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = saved(tmp_path_factory.mktemp(name), MAKERS[name])
        return made[name]

    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """Red above, blue below, wider than high."""
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    colours = torch.zeros(3, 60, 90, dtype=torch.uint8)
    colours[0, :30], colours[2, 30:] = 220, 200
    write_picture(path, colours)
    return path


@pytest.fixture
def writable(model, tmp_path) -> Callable[[str], Path]:
    """A copy of a model that a test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(model(name), tmp_path / name))

    return copy


def generator(folder: Path | str, **options: Any) -> Text2Video:
    usual = {"steps": 2, "precision": "fp32"}
    chosen = Text2VideoOptions(model=str(folder), device="cpu", **{**usual, **options})
    return Text2Video(chosen, conditions=Conditions(kinds=(Prompt,), channels=0))


def pipeline_of(made: Text2Video) -> Any:
    assert made._opened is not None
    return made._opened.pipeline


def film(made: Text2Video, name: str, prompt: str = "a red kite", seed: int = 0) -> torch.Tensor:
    """(T, 3, H, W) of a small film."""
    width, height, count = SMALL[name]
    spec, count = made.film(width=width, height=height, num_frames=count)
    told = Prompt.of(prompt, count)
    chunks = iter([Chunk(times(count)[s], None).with_signal(told[s]) for s in halves(count)])
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        clips = list(made.generate(chunks, spec, rng=rng))
    assert [len(c) for c in clips] == [len(told[s]) for s in halves(count)]
    return torch.cat([c.frames for c in clips])


def halves(count: int) -> tuple[slice, slice]:
    return slice(0, count // 2), slice(count // 2, count)


def directly(folder: Path, kind: str, **given: Any) -> Any:
    """What diffusers makes of the folder by itself."""
    diffusers, _ = libraries()
    pipeline = getattr(diffusers, kind).from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        return pipeline(num_inference_steps=2, **given).frames[0]


def seeded(seed: int) -> torch.Generator:
    """The generator that the plugin gives a pipeline."""
    drawn = torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed))
    return torch.Generator().manual_seed(int(drawn))


@pytest.mark.parametrize("name", SMALL)
def test_every_family_makes_the_film_that_was_asked_for(name, model, picture):
    made = generator(model(name), image=picture if name == "wan_image" else None)
    width, height, count = SMALL[name]
    first, again, other = (film(made, name, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (count, 3, height, width) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.float().std()) > 2  # something is to be seen


@pytest.mark.parametrize("name", ["wan", "ltx", "hunyuan", "cogvideox", "mochi"])
def test_lengths_that_the_library_would_change_are_refused(name, model):
    """The pipeline itself makes as many frames as allowed ones ask for, and of others not."""
    folder = model(name)
    limits, (width, height, count) = look(str(folder)).limits, SMALL[name]
    for asked in (count, count + limits.step // 2):
        answer = directly(
            folder,
            look(str(folder)).family.pipeline,
            prompt="a",
            width=width,
            height=height,
            num_frames=asked,
            output_type="pt",
        )
        allowed = (asked - limits.first) % limits.step == 0
        assert allowed == (len(answer) == asked), (asked, len(answer))


@pytest.mark.parametrize("name", [*SMALL])
def test_sizes_that_the_library_refuses_are_refused_with_the_nearest(name, model, picture):
    folder = model(name)
    made = generator(folder, image=picture if name == "wan_image" else None)
    multiple = look(str(folder)).limits.multiple
    with pytest.raises(BadOption, match=f"{2 * multiple} or {3 * multiple}"):
        made.film(width=2 * multiple + 4, height=multiple)
    extra = {"image": None} if name == "wan_image" else {}
    with pytest.raises(Exception, match=r"divisible|match|shape|size|image"):
        directly(
            folder,
            look(str(folder)).family.pipeline,
            prompt="a",
            width=2 * multiple + 4,
            height=2 * multiple,
            num_frames=SMALL[name][2],
            **extra,
        )


@pytest.mark.parametrize(
    ("kind", "settings", "asked", "nearest"),
    [
        ("WanPipeline", {}, 80, "77 or 81"),
        ("WanPipeline", {}, 82, "81 or 85"),
        ("LTXPipeline", {}, 160, "153 or 161"),
        ("CogVideoXPipeline", {}, 48, "41 or 49"),
        ("HunyuanVideoPipeline", {}, 128, "125 or 129"),
        ("MochiPipeline", {}, 84, "79 or 85"),
        ("AnimateDiffPipeline", {"motion_adapter": {"motion_max_seq_length": 24}}, 40, "24"),
    ],
)
def test_published_models_lengths(kind, settings, asked, nearest):
    """What the models' cards say: Wan and HunyuanVideo 4n + 1, LTX and CogVideoX 8n + 1..."""
    limits = FAMILIES[kind].limits(settings)
    with pytest.raises(BadOption, match=f"the nearest: {nearest}$"):
        limits.film("it", None, None, None, asked)
    spec, count = limits.film("it", None, None, None, None)
    assert limits.film("it", spec.width, spec.height, spec.fps, count) == (spec, count)


def test_published_models_sizes():
    """Wan 2.2's small model has an autoencoder of 16 pixels: 1280x704, multiples of 32."""
    small = FAMILIES["WanPipeline"].limits(
        {"vae": {"scale_factor_spatial": 16}, "transformer": {"patch_size": [1, 2, 2]}}
    )
    assert small.film("it", None, None, None, None)[0] == VideoSpec(
        width=1280, height=704, fps=Fraction(24)
    )
    with pytest.raises(BadOption, match="704 or 736"):
        small.film("it", 1280, 720, None, None)
    fixed = FAMILIES["CogVideoXImageToVideoPipeline"].limits(
        {"transformer": {"use_learned_positional_embeddings": True}}
    )
    with pytest.raises(BadOption, match="720x480 and of no other size"):
        fixed.film("it", 736, 480, None, None)
    wan = FAMILIES["WanPipeline"].limits({})
    assert wan.film("it", None, 240, None, None)[0].width == 416


def test_a_film_is_what_the_pipeline_itself_makes(model):
    answer = directly(
        model("text_to_video_sd"),
        "TextToVideoSDPipeline",
        prompt="a red kite",
        negative_prompt="blur",
        guidance_scale=4.0,
        width=32,
        height=16,
        num_frames=3,
        generator=seeded(5),
        output_type="np",
    )
    made = generator(model("text_to_video_sd"), guidance=4.0, negative="blur")
    expected = torch.from_numpy(np.rint(answer * 255).astype(np.uint8)).permute(0, 3, 1, 2)
    ours = film(made, "text_to_video_sd", seed=5)
    assert int((ours.int() - expected.int()).abs().max()) <= 1
    without = film(generator(model("text_to_video_sd"), guidance=4.0), "text_to_video_sd", seed=5)
    assert not torch.equal(ours, without)  # the negative prompt was heard


def test_a_picture_goes_in_and_comes_out_as_red_green_blue(model, picture):
    """Against the pipeline with a picture that Pillow read, cut to the film's shape."""
    from PIL import Image

    with Image.open(picture) as opened:
        cut = opened.convert("RGB").crop((0, 7.5, 90, 52.5)).resize((32, 16), 1)
    assert cut.getpixel((16, 2))[0] > 200 and cut.getpixel((16, 13))[2] > 180
    answers = directly(
        model("wan_image"),
        "WanImageToVideoPipeline",
        image=cut,
        prompt="a red kite",
        width=32,
        height=16,
        num_frames=5,
        generator=seeded(0),
        output_type="pil",
    )
    expected = torch.stack([torch.from_numpy(np.array(p)) for p in answers]).permute(0, 3, 1, 2)
    made = film(generator(model("wan_image"), image=picture), "wan_image")
    assert float((made.float() - expected.float()).abs().mean()) < 2  # edges are cut elsewhere
    swapped = (made.float() - expected.flip(1).float()).abs().mean()
    assert float(swapped) > 10


def test_a_model_that_needs_no_picture_may_start_from_one(model, picture):
    plain, started = generator(model("ltx")), generator(model("ltx"), image=picture)
    assert not torch.equal(film(plain, "ltx"), film(started, "ltx"))
    assert type(pipeline_of(started)).__name__ == "LTXImageToVideoPipeline"


# Films in takes


def told_in(made: Text2Video, texts: tuple[str, ...], counts: tuple[int, ...]) -> torch.Tensor:
    """(T, 3, 32, 64) of these prompts, one after the other, asked for in chunks of 5 frames."""
    index = torch.arange(len(texts)).repeat_interleave(torch.tensor(counts))
    told, total = Prompt(index=index, texts=texts), len(index)
    pts = times(total)
    spans = [slice(start, start + 5) for start in range(0, total, 5)]
    chunks = iter([Chunk(pts[span], None).with_signal(told[span]) for span in spans])
    spec = VideoSpec(width=64, height=32, fps=Fraction(24))
    with torch.inference_mode():
        clips = list(made.generate(chunks, spec, rng=torch.Generator().manual_seed(0)))
    assert [len(clip) for clip in clips] == [len(pts[span]) for span in spans]
    return torch.cat([clip.frames for clip in clips])


def test_a_prompt_after_another_goes_on_from_the_last_frame(model):
    """Against the two pipelines of the library, one after the other."""
    from PIL import Image

    rng = torch.Generator().manual_seed(0)
    seeds = [int(torch.randint(2**62, (), generator=rng)) for _ in range(2)]
    common: dict[str, Any] = {"width": 64, "height": 32, "num_frames": 9, "output_type": "np"}
    first, second = (
        {"prompt": p, "generator": torch.Generator().manual_seed(s), "frame_rate": 24.0}
        for p, s in zip(("a kite", "the sea"), seeds, strict=True)
    )
    began = np.rint(directly(model("ltx"), "LTXPipeline", **common, **first) * 255)
    last = Image.fromarray(began[-1].astype(np.uint8))
    kind = "LTXImageToVideoPipeline"
    went = np.rint(directly(model("ltx"), kind, image=last, **common, **second) * 255)
    expected = torch.from_numpy(np.concatenate([began, went[1:]])).permute(0, 3, 1, 2)
    made = generator(model("ltx"))
    told: list[tuple[int, int]] = []
    made.watch(lambda step, of: told.append((step, of)))
    ours = told_in(made, ("a kite", "the sea"), (9, 8))
    assert float((ours.float() - expected.float()).abs().max()) <= 1
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = told_in(made, ("a kite", "the sea"), (9, 8))
    assert torch.equal(again, ours)  # the first take starts from no picture again


def test_a_film_longer_than_a_window_is_made_in_takes(model, picture):
    made = generator(model("wan_image"), image=picture, window=5)
    for count in (5, 9, 12):
        spec, number = made.film(width=32, height=16, num_frames=count)
        assert number == count
        told = Prompt.of("a kite", count)
        chunk = Chunk(times(count), None).with_signal(told)
        with torch.inference_mode():
            (clip,) = made.generate(iter([chunk]), spec, rng=torch.Generator().manual_seed(0))
        assert len(clip) == count
    assert made.film(width=32, height=16)[1] == 5
    with pytest.raises(BadOption, match="6 are asked for; the nearest: 5 or 9"):
        generator(model("wan_image"), image=picture, window=6).film()
    with pytest.raises(BadOption, match=r"starts from no picture, and 2 takes are asked for"):
        generator(model("wan"), window=5).film(width=32, height=16, num_frames=9)
    with pytest.raises(ValueError, match="0, or 2 or more"):
        Text2VideoOptions(window=1)


def test_a_schedule_is_as_long_as_its_prompts_last(model, tmp_path):
    (tmp_path / "plan.toml").write_text(
        '[[prompt]]\nat = "0s"\ntext = "a kite"\n[[prompt]]\nat = "0.5s"\ntext = "the sea"\n'
    )
    words = f"generate --schedule {tmp_path}/plan.toml --model {model('ltx')} --size 64x32"
    steps = ["-s", "generator.steps=1", "-o", str(tmp_path / "out.mp4")]
    done = CliRunner().invoke(main, [*words.split(), *steps])
    assert done.exit_code == 0, done.output
    assert video.probe(tmp_path / "out.mp4").num_frames == 24
    assert "window = 161" in (tmp_path / "out.mp4.toml").read_text()


def test_takes_hold_every_frame_once_and_in_order():
    told = [
        Prompt(index=torch.tensor([0, 0, 0]), texts=("a", "b")),
        Prompt(index=torch.tensor([0, 1, 1]), texts=("a", "b")),
    ]
    assert takes_of(told) == [Take("a", 4), Take("b", 2)]
    assert takes_of(told, 3) == [Take("a", 3), Take("a", 1), Take("b", 2)]
    assert takes_of([Prompt.of("a", 7)], 3) == [Take("a", 3), Take("a", 2), Take("a", 2)]
    assert takes_of([], 3) == []
    parts = [torch.arange(start, stop) for start, stop in ((0, 0), (0, 4), (4, 6))]
    found = list(in_lengths(iter(parts), [0, 1, 4, 0, 1]))
    assert [f.tolist() for f in found] == [[], [0], [1, 2, 3, 4], [], [5]]


def test_a_model_of_pictures_makes_films_with_a_motion_adapter(tmp_path):
    folder = saved(tmp_path / "pictures", stable_diffusion)
    motion_adapter().save_pretrained(tmp_path / "motion")
    made = generator(folder, motion=str(tmp_path / "motion"))
    assert film(made, "animatediff").shape == (3, 3, 16, 32)
    with pytest.raises(BadOption, match="at most 24"):
        made.film(num_frames=25)
    with pytest.raises(BadOption, match=r"makes pictures.*generator\.motion"):
        generator(folder).film()


@pytest.mark.parametrize("name", ["wan", "text_to_video_sd"])
def test_progress_is_told_step_by_step_and_cancels(name, model):
    made = generator(model(name), steps=3)
    told: list[tuple[int, int]] = []
    made.watch(lambda step, of: told.append((step, of)))
    film(made, name)
    assert told == [(1, 3), (2, 3), (3, 3)]

    class Enough(Exception):
        pass

    def stop(step: int, of: int) -> None:
        told.append((step, of))
        raise Enough

    made.watch(stop)
    with pytest.raises(Enough):
        film(made, name)
    assert len(told) == 4  # after the first step nothing more was done


def test_options_change_the_film(model):
    base = film(generator(model("wan")), "wan")
    for change in (
        {"steps": 3},
        {"guidance": 1.0},
        {"scheduler": "unipc"},
        {"precision": "bf16"},
    ):
        assert not torch.equal(film(generator(model("wan"), **change), "wan"), base), change


@pytest.mark.parametrize(
    ("name", "chosen", "kind"),
    [
        ("wan", "dpm", "DPMSolverMultistepScheduler"),
        ("cogvideox", "dpm", "CogVideoXDPMScheduler"),
        ("animatediff", "euler", "EulerDiscreteScheduler"),
        ("text_to_video_sd", "dpm", "DPMSolverMultistepScheduler"),
    ],
)
def test_schedulers(name, chosen, kind, model):
    made = generator(model(name), scheduler=chosen)
    assert film(made, name).float().std() > 2
    assert type(pipeline_of(made).scheduler).__name__ == kind
    if name == "wan":  # it was trained with a shift of 7, by flow matching
        settings = pipeline_of(made).scheduler.config
        assert (settings.flow_shift, settings.use_flow_sigmas) == (7.0, True)


def test_a_lora_counts_as_much_as_it_is_told_to(model, tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict

    diffusers, _ = libraries()
    pipeline = diffusers.WanPipeline.from_pretrained(model("wan"))
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    torch.manual_seed(0)
    weights = get_peft_model_state_dict(pipeline.transformer)
    weights = {name: torch.randn_like(value) for name, value in weights.items()}
    diffusers.WanPipeline.save_lora_weights(tmp_path, transformer_lora_layers=weights)
    (path,) = tmp_path.glob("*.safetensors")
    base = film(generator(model("wan")), "wan")
    none, half, whole = (
        film(generator(model("wan"), lora=path, lora_weight=w), "wan") for w in (0.0, 0.5, 1.0)
    )
    assert torch.equal(none, base)
    assert not torch.equal(whole, base) and not torch.equal(half, whole)
    for bad in (tmp_path / "lora.ckpt", tmp_path / "not there.safetensors"):
        with pytest.raises((BadWeights, MissingWeights)):
            film(generator(model("wan"), lora=bad), "wan")
    with pytest.raises(BadWeights, match="does not fit"):
        film(generator(model("ltx"), lora=path), "ltx")


def test_long_prompts_are_read_to_their_end_by_clip(model):
    made = generator(model("animatediff"))
    start = "a kite " * 40  # more than 77 tokens of a tokenizer that knows letters
    first, second = (film(made, "animatediff", start + end) for end in ("is red", "is blue"))
    assert not torch.equal(first, second)
    pipeline = pipeline_of(made)
    with torch.no_grad():
        ours = joined_tokens(pipeline.tokenizer, pipeline.text_encoder, ["a red kite", ""])
        theirs = pipeline.encode_prompt("a red kite", "cpu", 1, True, "")
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours[:, None], theirs, strict=True))


def test_prompts_in_any_writing(model):
    for name in ("wan", "text_to_video_sd"):
        made = generator(model(name))
        for prompt in ("красный змей", "紅い凧", "🪁🌊"):
            assert film(made, name, prompt).shape[0] == SMALL[name][2]


def test_prompts_that_cannot_be_kept_to_are_refused(model):
    made = generator(model("wan"))
    with pytest.raises(BadOption, match="empty"):
        film(made, "wan", "  \n")
    with pytest.raises(BadOption, match=r"\d+ tokens and this model reads 512"):
        film(made, "wan", "a " * 600)
    told = Prompt(index=torch.tensor([0, 1]), texts=("a", "b"))
    chunk = Chunk(times(2), None).with_signal(told)
    spec = VideoSpec(width=32, height=16, fps=Fraction(8))
    with pytest.raises(BadOption, match="starts from no picture, and 2 takes are asked for"):
        list(made.generate(iter([chunk]), spec, rng=torch.Generator()))


def test_options_that_a_family_has_not_are_refused(model, picture):
    for name, options, words in (
        ("wan", {"image": picture}, "takes no picture"),
        ("wan_image", {}, "starts from a picture"),
        ("hunyuan", {"negative": "blur"}, "reads no negative"),
        ("ltx", {"scheduler": "ddim"}, "it takes: euler"),
        ("wan", {"precision": "fp16"}, "is for GPUs"),
    ):
        with pytest.raises(BadOption, match=words):
            film(generator(model(name), **options), name)
    with pytest.raises(UnsupportedVideo, match="is no file"):
        generator(model("wan_image"), image=Path("none.png")).film()


# Folders


def test_a_model_that_is_not_here_is_named_with_all_that_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    known = generator(Text2VideoOptions().model)
    with pytest.raises(MissingWeights, match=r"28\.9 GB, licence: Apache-2\.0.*kept/Wan-AI"):
        known.film()
    with pytest.raises(MissingWeights, match=r"huggingface\.co/some/body"):
        generator("some/body").film()
    with pytest.raises(MissingWeights, match="is no folder here"):
        generator("./nowhere/at/all").film()
    with pytest.raises(BadOption, match="is empty"):
        generator(" ").film()


def test_a_model_in_the_weights_folder_goes_by_its_name(model, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    shutil.copytree(model("wan"), tmp_path / "our" / "wan")
    spec, count = generator("our/wan").film()
    assert (spec.width, spec.height, count) == (832, 480, 81)


def test_incomplete_and_foreign_folders(writable, tmp_path):
    def damaged(change: Callable[[Path], object], error: type[VidsynthError], words: str) -> None:
        folder = writable("wan")
        change(folder)
        with pytest.raises(error, match=words):
            made = generator(folder)
            made.film()
            film(made, "wan")
        shutil.rmtree(folder)

    weights = "transformer/diffusion_pytorch_model.safetensors"
    damaged(lambda f: (f / weights).unlink(), MissingWeights, r"transformer.*incomplete")
    damaged(lambda f: shutil.rmtree(f / "vae"), MissingWeights, "vae lacks its settings")
    damaged(lambda f: shutil.rmtree(f / "tokenizer"), MissingWeights, "tokenizer lacks")
    damaged(lambda f: (f / "model_index.json").unlink(), BadOption, "no pipeline of diffusers")
    damaged(lambda f: (f / "model_index.json").write_text("{"), BadOption, "damaged")
    damaged(lambda f: (f / weights).rename((f / weights).with_suffix(".bin")), BadWeights, "pickle")
    damaged(lambda f: (f / weights).write_bytes(b"no header"), BadWeights, "damaged")
    damaged(
        lambda f: (f / weights).write_bytes((f / weights).read_bytes()[:-100]), BadWeights, "cut"
    )
    shards = json.dumps({"weight_map": {"a": "1-of-2.safetensors", "b": "2-of-2.safetensors"}})
    damaged(
        lambda f: (f / f"{weights}.index.json").write_text(shards),
        MissingWeights,
        "2 of its 2 files of weights are not there, like 1-of-2",
    )

    def index(**changes: Any) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            path = folder / "model_index.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

        return write

    damaged(index(_class_name="FluxPipeline"), BadOption, "is a FluxPipeline, which will not do")
    damaged(index(vae=["evil_module", "Vae"]), BadOption, "code that comes with a model is not run")


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_weights_that_the_settings_ask_for_and_the_files_lack_are_missed(part, writable):
    """The libraries themselves go on: with holes, or with numbers drawn at random."""
    folder = writable("wan")
    path = folder / part / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"num_layers": settings["num_layers"] + 1}))
    with pytest.raises(BadWeights, match=f"{part} lacks weights that its settings ask for"):
        film(generator(folder), "wan")


# Memory


SIZES = {"text_encoder": 11 * GB, "transformer": 3 * GB, "vae": GB // 2}


@pytest.mark.parametrize(
    ("free", "placing"), [(24, "none"), (16, "model"), (8, "sequential"), (1, "sequential")]
)
def test_parts_wait_elsewhere_when_the_gpu_is_small(free, placing):
    assert place(SIZES, CUDA, free=free * GB, host=64 * GB) == placing


def test_what_does_not_fit_is_refused_before_it_is_loaded():
    with pytest.raises(DeviceUnavailable, match=r"at least 18\.1 GB \(text_encoder 11 GB, tra"):
        place(SIZES, torch.device("cpu"), host=16 * GB)
    assert place(SIZES, torch.device("cpu"), host=19 * GB) == "none"
    with pytest.raises(DeviceUnavailable, match="where parts wait their turn"):
        place(SIZES, CUDA, free=8 * GB, host=8 * GB)
    with pytest.raises(DeviceUnavailable, match=r"18\.1 GB.*and 8 GB are what cuda has free"):
        place(SIZES, CUDA, "none", free=8 * GB, host=64 * GB)
    with pytest.raises(DeviceUnavailable):
        place(SIZES, CUDA, free=GB // 10, host=64 * GB)


def test_numbers_are_counted_from_the_files_alone(model):
    diffusers, _ = libraries()
    pipeline = diffusers.WanPipeline.from_pretrained(model("wan"))
    counted = look(str(model("wan"))).parameters()
    for part in ("transformer", "vae"):
        assert counted[part] == sum(
            v.numel() for v in getattr(pipeline, part).state_dict().values()
        )


def test_too_little_memory_is_told_before_anything_is_loaded(model, monkeypatch):
    monkeypatch.setattr("vidsynth.devices.free_memory", lambda _: 1000)
    made = generator(model("wan"))
    with pytest.raises(DeviceUnavailable, match="choose a smaller model"):
        film(made, "wan")
    assert made._opened is None


def test_large_films_are_decoded_in_tiles(model):
    made = generator(model("wan"), tiling="on")
    plain = film(generator(model("wan"), tiling="off"), "wan")
    assert torch.equal(film(made, "wan"), plain)  # smaller than one tile
    assert pipeline_of(made).vae.use_tiling
    calm = generator(model("wan"))
    film(calm, "wan")
    assert not pipeline_of(calm).vae.use_tiling


# The kit


CHECKS = [c for c in checks_of(Text2Video) if c not in COMMON]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_it_keeps_every_promise_of_generators(check, model):
    options = {
        "model": str(model("text_to_video_sd")),
        "steps": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    check(Case.of(Text2Video, options=options, height=16, width=16))
