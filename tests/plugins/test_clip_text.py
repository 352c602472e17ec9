"""CLIP with tiny random weights, against the library's own."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_diffusers import clip_model, clip_text_config, clip_tokenizer, libraries, wan

from vidsynth.clip import VideoSpec
from vidsynth.errors import BadOption, BadWeights, MissingWeights, NotMeasurable
from vidsynth.kinds import Film
from vidsynth.testing import moving_squares
from vidsynth_plugins.clip_text import (
    ClipJudge,
    ClipSimilarity,
    ClipSimilarityOptions,
    ClipText,
    ClipTextOptions,
    pieces,
)

SHORT, LONG = "a red kite", "kite and sea " * 30


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Text and pictures."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    made = clip_model()
    with torch.no_grad():  # far enough from nothing that rounding does not decide
        for weight in made.parameters():
            weight.mul_(4)
    made.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_only(tmp_path_factory) -> Path:
    """Text, without the projection into the space of pictures."""
    _, transformers = libraries()
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(1)
    transformers.CLIPTextModel(clip_text_config()).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def options(folder: Path, **changes) -> ClipTextOptions:
    return ClipTextOptions(model=str(folder), device="cpu", precision="fp32", **changes)


def film() -> Film:
    clip = moving_squares(6, 24, 32)
    spec = VideoSpec(width=32, height=24, fps=Fraction(25))
    return Film(
        name="squares",
        spec=spec,
        pts=clip.pts,
        read=lambda: iter([clip[:2], clip[2:]]),
        track=lambda _: pytest.fail("nothing is tracked"),
    )


def test_short_prompts_are_read_as_the_library_reads_them(model):
    _, transformers = libraries()
    theirs = transformers.CLIPTextModelWithProjection.from_pretrained(model).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(model)
    # As long as ours reads them: kernels round differently for other lengths.
    said = tokenizer(SHORT, padding="max_length", return_tensors="pt")
    count = int(said.attention_mask.sum())
    with torch.no_grad():
        expected = theirs(input_ids=said.input_ids)
    (ours,) = ClipText(options(model)).encode([SHORT])
    assert torch.allclose(ours.tokens, expected.last_hidden_state[0, :count], atol=1e-5)
    assert torch.allclose(ours.pooled, expected.text_embeds, atol=1e-5)
    assert (ours.prompt, len(ours)) == (SHORT, 1)


def test_a_text_model_alone_will_do(text_only):
    (ours,) = ClipText(options(text_only)).encode([SHORT])
    assert ours.pooled.shape == (1, 32) and ours.tokens.shape[1] == 32


def test_no_token_of_a_long_prompt_is_dropped(model):
    tokenizer = clip_tokenizer()
    words = tokenizer(LONG, add_special_tokens=False).input_ids
    ids, lengths = pieces(tokenizer, LONG)
    assert ids.shape == (len(lengths), 77) and len(lengths) == -(-len(words) // 75)
    kept = [i for row, n in zip(ids.tolist(), lengths, strict=True) for i in row[1 : n - 1]]
    assert kept == words
    encoder = ClipText(options(model))
    ours, other = encoder.encode([LONG, LONG[:-5] + "boat "])
    assert len(ours.tokens) == sum(lengths)
    assert torch.equal(ours.tokens[:77], other.tokens[:77])
    assert not torch.allclose(ours.pooled, other.pooled)


def test_batches_do_not_matter(model):
    (whole,), (single,) = (ClipText(options(model, batch=b)).encode([LONG]) for b in (32, 1))
    assert torch.allclose(whole.tokens, single.tokens, atol=1e-5)
    assert torch.allclose(whole.pooled, single.pooled, atol=1e-5)


@pytest.mark.parametrize("prompt", ["красный змей", "紅い凧", "🪁🌊"])
def test_prompts_in_any_writing(prompt, model):
    (ours,) = ClipText(options(model)).encode([prompt])
    assert ours.tokens.isfinite().all() and len(ours.tokens) > 2


def test_similarity_is_the_cosine_of_the_librarys_embeddings(model):
    _, transformers = libraries()
    theirs = transformers.CLIPModel.from_pretrained(model).eval()
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    frames = moving_squares(3, 16, 16).frames
    seen = processor(images=list(frames.permute(0, 2, 3, 1).numpy()), return_tensors="pt")
    ids = transformers.CLIPTokenizer.from_pretrained(model)(SHORT, return_tensors="pt").input_ids
    with torch.no_grad():
        answer = theirs(input_ids=ids, **seen)
    expected = F.cosine_similarity(answer.image_embeds, answer.text_embeds)
    ours = ClipJudge(options(model)).similarity(frames, SHORT)
    assert torch.allclose(ours, expected, atol=2e-3)
    assert float(expected.std()) > 0 and float(expected.abs().max()) <= 1


def test_the_best_clip_comes_first(model):
    judge = ClipJudge(options(model))
    clips = [moving_squares(4, 16, 16, seed=seed).frames for seed in range(4)]
    scores = [float(judge.similarity(clip, SHORT).mean()) for clip in clips]
    assert len(set(scores)) == 4
    encoder = ClipText(options(model))
    found = encoder.rank(clips, SHORT)
    assert found == sorted(range(4), key=lambda i: -scores[i])
    assert encoder.rank([clips[i] for i in reversed(found)], SHORT) == [3, 2, 1, 0]
    with pytest.raises(BadOption, match="empty"):
        encoder.rank(clips, " ")


def test_the_metric_looks_at_frames_now_and_then(model):
    clip = moving_squares(6, 24, 32)
    judge = ClipJudge(options(model))
    metric = ClipSimilarity(
        ClipSimilarityOptions(model=str(model), prompt=SHORT, every=0.079, device="cpu")
    )
    metric.update(film(), None)
    found = metric.compute()
    looked = [0, 2, 4]  # at 25 frames per second every 0.08 s
    expected = torch.cat([judge.similarity(clip.frames[i : i + 1], SHORT) for i in looked])
    assert found.count == 3
    assert found.value == pytest.approx(float(expected.mean()), abs=0.02)
    assert found.per_frame is not None
    assert found.per_frame.isnan().tolist() == [False, True, False, True, False, True]


def test_without_a_prompt_or_a_film_there_is_nothing_to_measure(model):
    values = {"model": str(model), "device": "cpu"}
    with pytest.raises(NotMeasurable, match="what the film is to show"):
        ClipSimilarity(ClipSimilarityOptions(**values)).update(film(), None)
    with pytest.raises(NotMeasurable, match="no frame"):
        ClipSimilarity(ClipSimilarityOptions(prompt=SHORT, **values)).compute()


def test_models_that_are_none_are_told(model, text_only, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingWeights, match=r"openai/clip-vit.*licence: MIT.*kept"):
        ClipText().encode([SHORT])
    with pytest.raises(MissingWeights, match="clip-vit"):
        ClipSimilarity(ClipSimilarityOptions(prompt=SHORT)).update(film(), None)
    with pytest.raises(BadWeights, match=r"lacks weights of a CLIPModel|cannot be read as CLIP"):
        ClipJudge(options(text_only))
    pickled = Path(shutil.copytree(model, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(MissingWeights, match="lacks a file"):
        ClipText(options(pickled)).encode([SHORT])
    torch.manual_seed(0)
    wan().text_encoder.save_pretrained(tmp_path / "t5")
    with pytest.raises(BadWeights, match="of the kind 'umt5'"):
        ClipText(options(tmp_path / "t5")).encode([SHORT])
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingWeights, match="no settings of a model"):
        ClipText(options(tmp_path / "none")).encode([SHORT])
    with pytest.raises(BadOption, match="prompt 2 is empty"):
        ClipText(options(model)).encode([SHORT, "  "])
    assert ClipText(options(model)).encode([]) == []
