"""The animator's route: what it takes, and a film by tiny random weights of the real classes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_diffusers import MAKERS, libraries, saved, wan_animate

from vidsynth import animating, provenance, video
from vidsynth.animating import Prepared, animate, extract_for, prepare
from vidsynth.animation import Animation
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.errors import BadOption, MissingWeights, NoSubjectFound, OutputExists
from vidsynth.kinds import Conditions
from vidsynth.stream import Chunk
from vidsynth.subject import write_picture
from vidsynth.testing import times
from vidsynth.testing.samples import filmed
from vidsynth_plugins.wan_animate import WanAnimate, WanAnimateOptions, as_pictures

COUNT = 6


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("animate"), wan_animate)


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "dance.mp4"
    clip = filmed("puppet")(COUNT, 240, 240, seed=0)
    video.write_video(path, iter([Chunk(clip.pts, clip)]), fps=Fraction(25))
    return path


@pytest.fixture(scope="session")
def portrait(tmp_path_factory) -> Path:
    """Somebody else, on a picture of another shape."""
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    write_picture(path, filmed("puppet")(1, 256, 208, seed=3).frames[0])
    return path


@pytest.fixture(scope="session")
def prepared(source, portrait) -> Prepared:
    return prepare(source, portrait, area=64 * 64)


def extracted(source: Path, folder: Path, animator: str = "wan-animate", **given: Any) -> list:
    """The files that a job wrote."""
    extract_for(source, folder, animator=animator, **given)
    return list(folder.iterdir())


def read(path: Path) -> Clip:
    return Clip.concat([c.clip for c in video.read_chunks(path) if c.clip is not None])


def test_a_folder_holds_what_wan_animate_takes(source, portrait, tmp_path):
    names = ["src_pose.mp4", "src_face.mp4", "src_ref.png"]
    written = extracted(source, tmp_path / "out", reference=portrait)
    assert {p.name for p in written} == set(names)
    written = [tmp_path / "out" / name for name in names]
    pose, face = read(written[0]), read(written[1])
    assert torch.allclose(pose.pts, times(COUNT), atol=1e-3)
    assert pose.frames.shape == (COUNT, 3, 256, 208)  # of the reference's shape
    assert face.frames.shape == (COUNT, 3, 512, 512)
    assert float((pose.frames.amax(dim=1) < 16).float().mean()) > 0.85  # lines on black
    assert float(face.frames.float().std()) > 20
    with pytest.raises(OutputExists):
        extracted(source, tmp_path / "out", reference=portrait)


def test_replacing_keeps_the_film_but_for_who_is_in_it(source, portrait, tmp_path):
    written = extracted(source, tmp_path / "out", reference=portrait, mode="replace")
    names = ["src_pose.mp4", "src_face.mp4", "src_bg.mp4", "src_mask.mp4", "src_ref.png"]
    assert {p.name for p in written} == set(names)
    written = [tmp_path / "out" / name for name in names]
    film, background, mask = (read(p).frames for p in (source, written[2], written[3]))
    assert background.shape == mask.shape == film.shape
    white = mask.amin(dim=1, keepdim=True) > 200
    outside = (mask.amax(dim=1, keepdim=True) < 50).expand_as(film)
    assert 0.03 < float(white.float().mean()) < 0.7
    assert float(background[white.expand_as(film)].float().mean()) < 12  # black there
    apart = (background[outside].float() - film[outside].float()).abs()
    assert float(apart.mean()) < 4


def test_motion_takes_the_proportions_and_the_place_of_the_reference(source, portrait):
    """The skeleton stands where the one on the picture stands, and is as tall."""
    own, fitted = (prepare(source, p, area=256 * 208).whole() for p in (None, portrait))
    assert own.pose.shape[2:] != fitted.pose.shape[2:]

    def extent(drawn: torch.Tensor) -> tuple[float, float]:
        rows = (drawn.amax(dim=(0, 1)) > 40).any(dim=1).nonzero()[:, 0]
        return float(rows.min()) / drawn.shape[2], float(rows.max()) / drawn.shape[2]

    still = prepare_still(portrait)
    low, high = extent(fitted.pose)
    assert abs(low - extent(still)[0]) < 0.12 and abs(high - extent(still)[1]) < 0.12


def prepare_still(picture: Path) -> torch.Tensor:
    """The skeleton of who is on a picture, drawn as it stands."""
    from vidsynth.animation import draw_skeletons
    from vidsynth.subject import build_extractor

    extractor = build_extractor(animating._whole_body())
    frame = animating._picture(picture)[None]
    (seen,) = extractor.extract(iter([Clip(frame, times(1))]))
    return draw_skeletons(seen, *frame.shape[2:])  # pyright: ignore


def generated(model: Path, told: Animation, seed: int = 0, **options: Any) -> torch.Tensor:
    values = WanAnimateOptions(
        model=str(model), steps=1, segment=5, precision="fp32", device="cpu", **options
    )
    generator = WanAnimate(values, conditions=Conditions(kinds=(Animation,), channels=0))
    height, width = told.size
    spec = video.VideoSpec(height=height, width=width, fps=Fraction(25))
    steps: list[tuple[int, int]] = []
    generator.watch(lambda done, of: steps.append((done, of)))
    chunks = iter([Chunk(times(len(told)), None).with_signal(told)])
    with torch.inference_mode():
        (clip,) = generator.generate(chunks, spec, rng=torch.Generator().manual_seed(seed))
    assert steps == [(n, len(steps)) for n in range(1, len(steps) + 1)]
    return clip.frames


def test_a_film_is_what_the_pipeline_itself_makes(model, prepared):
    told = prepared.whole()
    diffusers, _ = libraries()
    pipeline = diffusers.WanAnimatePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    drawn = torch.randint(2**62, (), generator=torch.Generator().manual_seed(4))
    height, width = told.size
    with torch.inference_mode():
        answer = pipeline(
            image=as_pictures(told.reference[None])[0],
            pose_video=as_pictures(told.pose),
            face_video=as_pictures(told.face),
            prompt="a person moves",
            height=height,
            width=width,
            segment_frame_length=5,
            num_inference_steps=1,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(int(drawn)),
            output_type="np",
        ).frames[0]
    expected = torch.from_numpy(np.rint(answer * 255).astype(np.uint8)).permute(0, 3, 1, 2)
    made = generated(model, told, seed=4)
    assert made.shape == (COUNT, 3, height, width)
    assert int((made.int() - expected.int()).abs().max()) <= 1
    assert not torch.equal(made, generated(model, told, seed=5))


def test_replacing_somebody_runs_the_whole_way(model, source, portrait):
    told = prepare(source, portrait, mode="replace", area=64 * 64).whole()
    assert generated(model, told, mode="replace").shape == (COUNT, 3, *told.size)


def test_transfer_animates_a_picture(model, source, portrait, tmp_path):
    output = tmp_path / "out.mp4"
    sets = {
        "model": model,
        "steps": 1,
        "segment": 5,
        "area": 4096,
    }
    words = [w for k, v in sets.items() for w in ("-s", f"generator.{k}={v}")]
    words += ["--consent", "Ada agreed on 1 May"]
    done = CliRunner().invoke(
        main,
        ["transfer", str(source), str(portrait), "-o", str(output), "--recipe", "animate", *words],
    )
    assert done.exit_code == 0, done.output
    made = read(output)
    assert len(made) == COUNT and (made.height, made.width) == (64, 64)
    assert 'recipe = "animate"' in (tmp_path / "out.mp4.toml").read_text()
    told = provenance.inspect(output).facts
    assert told is not None and told["consent"] == "Ada agreed on 1 May"
    again = animate(
        source,
        portrait,
        tmp_path / "again.mp4",
        settings=[w for w in words if w.startswith("generator.")],
        device="cpu",
    )
    assert torch.equal(read(again).frames, made.frames)


def test_without_weights_the_remedy_is_named(source, portrait, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingWeights, match=r"82\.3 GB, licence: Apache-2\.0") as caught:
        animate(source, portrait, tmp_path / "out.mp4")
    assert str(tmp_path / "kept" / "Wan-AI") in str(caught.value)
    assert "extract SOURCE --for wan-animate" in str(caught.value)


def test_bad_input(source, portrait, tmp_path):
    with pytest.raises(BadOption, match="there is no animator"):
        extracted(source, tmp_path / "a", animator="dancer")
    with pytest.raises(BadOption, match="takes a picture"):
        extracted(source, tmp_path / "b", mode="replace")
    empty = tmp_path / "wall.png"
    write_picture(empty, torch.full((3, 64, 64), 90, dtype=torch.uint8))
    with pytest.raises(NoSubjectFound, match=r"wall\.png: nobody"):
        prepare(source, empty)
    other = saved(tmp_path / "other", MAKERS["wan"])
    with pytest.raises(BadOption, match="is a WanPipeline, which will not do here"):
        animate(source, portrait, tmp_path / "o.mp4", settings=[f"generator.model={other}"])
    for words, told in (
        (["transfer", "a", "b", "-o", "c.mp4", "--recipe", "animate", "--steps", "9"], "--steps"),
        (["extract", str(source), "-o", "b", "--reference", "c.png"], "add --for wan-animate"),
        (
            ["extract", str(source), "-o", "b", "--for", "wan-animate", "--preview", "p.mp4"],
            "--preview",
        ),
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and told in done.output, done.output
    with pytest.raises(ValueError, match="4 n"):
        WanAnimateOptions(segment=80)
