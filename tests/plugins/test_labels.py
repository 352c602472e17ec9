"""Label maps: from files of any form, from MediaPipe, from networks of transformers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidsynth import video
from vidsynth.clip import Clip
from vidsynth.conditioning import VOID, LabelMaps
from vidsynth.errors import BadOption, MissingWeights, UnsupportedVideo
from vidsynth.kinds import Given
from vidsynth.stream import Chunk
from vidsynth.worlds import WORLDS
from vidsynth_plugins.labels import LabelExtractor, LabelOptions
from vidsynth_plugins.labels.palettes import load_palette

T, H, W = 4, 24, 36
CITYSCAPES = load_palette("cityscapes")


def scene(seed: int = 0, classes: int = 34) -> NDArray[np.uint8]:
    """(T, H, W) ids: rectangles on a ground."""
    rng = np.random.default_rng(seed)
    ids = np.full((T, H, W), 7, np.uint8)
    for frame in ids:
        for _ in range(5):
            y, x = rng.integers(0, H - 8), rng.integers(0, W - 8)
            frame[y : y + rng.integers(3, 8), x : x + rng.integers(3, 8)] = rng.integers(classes)
    return ids


IDS = scene()
INSTANCES = IDS.astype(np.uint16) * 1000 + 3


def save(folder: Path, maps: NDArray[Any], *, ending: str = "", suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True)
    for n, picture in enumerate(maps):
        rgb = picture.ndim == 3
        path = folder / f"street_{n}{ending}{suffix}"
        assert cv2.imwrite(str(path), picture[..., ::-1] if rgb else picture)
    return folder


def read(maps: Path, instances: Path | None = None, *, shorter: int = 999, **options: Any):
    extractor = LabelExtractor(LabelOptions(model="given", **options))
    return extractor.read(Given(maps, instances), shorter=shorter)


# Files


def test_maps_of_ids_are_read_as_they_are(tmp_path: Path) -> None:
    maps = read(save(tmp_path / "labels", IDS), save(tmp_path / "instances", INSTANCES))
    np.testing.assert_array_equal(maps.labels.numpy(), IDS)
    assert maps.instances is not None
    np.testing.assert_array_equal(maps.instances.numpy(), INSTANCES)
    assert (maps.labels.dtype, maps.instances.dtype) == (torch.uint8, torch.int32)
    assert maps.num_classes == int(IDS.max()) + 1


def test_maps_of_colours_mean_the_first_class_of_that_colour(tmp_path: Path) -> None:
    maps = read(save(tmp_path / "labels", CITYSCAPES[IDS]))
    first = [CITYSCAPES.tolist().index(colour) for colour in CITYSCAPES.tolist()]
    np.testing.assert_array_equal(maps.labels.numpy(), np.array(first)[IDS])
    assert maps.num_classes == 34


def test_pictures_with_a_colour_table_hold_ids(tmp_path: Path) -> None:
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    table[:34, :3] = CITYSCAPES
    for n, ids in enumerate(IDS):
        with av.open(str(tmp_path / f"{n}.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = W, H, "pal8"  # pyright: ignore
            frame = av.VideoFrame.from_ndarray((ids, table), format="pal8")  # pyright: ignore
            container.mux(stream.encode(frame))  # pyright: ignore
            container.mux(stream.encode(None))  # pyright: ignore
    np.testing.assert_array_equal(read(tmp_path).labels.numpy(), IDS)


def test_the_kinds_that_cityscapes_keeps_together_are_told_apart(tmp_path: Path) -> None:
    for ending, maps in (
        ("_gtFine_color", CITYSCAPES[IDS]),
        ("_gtFine_labelIds", IDS),
        ("_gtFine_instanceIds", INSTANCES),
    ):
        save(tmp_path, maps, ending=ending)
    maps = read(tmp_path, tmp_path)
    assert maps.instances is not None
    np.testing.assert_array_equal(maps.labels.numpy(), IDS)
    np.testing.assert_array_equal(maps.instances.numpy(), INSTANCES)


def test_instances_of_panoptic_colours_are_numbers(tmp_path: Path) -> None:
    ids = INSTANCES.astype(np.int32) * 7
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    maps = read(save(tmp_path / "labels", IDS), save(tmp_path / "instances", colours))
    assert maps.instances is not None
    np.testing.assert_array_equal(maps.instances.numpy(), ids)


def film_of(path: Path, colours: NDArray[np.uint8]) -> Path:
    frames = torch.from_numpy(colours).permute(0, 3, 1, 2).contiguous()
    pts = torch.arange(len(frames), dtype=torch.float64) / 25
    video.write_video(path, iter([Chunk(pts, Clip(frames, pts))]), fps=Fraction(25), crf=8)
    return path


def test_a_compressed_label_video_means_the_nearest_colours(tmp_path: Path) -> None:
    ids = scene(1).repeat(4, axis=1).repeat(4, axis=2)
    path = film_of(tmp_path / "labels.mp4", CITYSCAPES[ids])
    first = np.array([CITYSCAPES.tolist().index(colour) for colour in CITYSCAPES.tolist()])
    wrong = read(path).labels.numpy() != first[ids]
    assert wrong.mean() < 0.05
    inside = cv2.erode((first[ids[0]] == 7).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not wrong[0][inside].any()


def test_a_lossless_grey_video_holds_ids(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "ids.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "gray"  # pyright: ignore
        for ids in IDS:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ids, format="gray")))  # pyright: ignore
        container.mux(stream.encode(None))  # pyright: ignore
    np.testing.assert_array_equal(read(tmp_path / "ids.mkv").labels.numpy(), IDS)


def test_large_maps_shrink_and_ids_never_mix(tmp_path: Path) -> None:
    maps = read(save(tmp_path / "l", IDS), save(tmp_path / "i", INSTANCES), shorter=8)
    assert maps.size == (8, 12) and maps.instances is not None
    assert torch.equal(maps.instances, maps.labels.int() * 1000 + 3)
    np.testing.assert_array_equal(maps.labels.numpy(), IDS[:, 1::3, 1::3])


def test_pixels_of_no_class_count_for_none(tmp_path: Path) -> None:
    ids = IDS.copy()
    ids[:, :3] = VOID
    assert read(save(tmp_path, ids)).num_classes == int(IDS.max()) + 1


def jpeg(folder: Path) -> Path:
    return save(folder, IDS, suffix=".jpg")


def photographs(folder: Path) -> Path:
    return save(folder, np.random.default_rng(0).integers(0, 200, (2, H, W), np.uint8))


def strange_colour(folder: Path) -> Path:
    colours = CITYSCAPES[IDS].copy()
    colours[2, 5, 9] = (1, 2, 3)
    return save(folder, colours)


def two_sizes(folder: Path) -> Path:
    save(folder, IDS)
    cv2.imwrite(str(folder / "street_2.png"), IDS[2, :-1])
    return folder


BAD_MAPS: list[tuple[Callable[[Path], Path], dict[str, Any], str]] = [
    (jpeg, {}, r"street_0\.jpg: is a JPG picture, whose compression.*PNG"),
    (photographs, {}, r"street_0\.png: is no label map.*photograph"),
    (strange_colour, {}, r"street_2\.png: 1 of its pixels.*\(1, 2, 3\) at x 9, y 5.*palette"),
    (two_sizes, {}, r"street_2\.png: is 36x23, and street_0\.png is 36x24"),
    (lambda p: save(p, IDS), {"classes": 7}, r"label id \d+ at x \d+, y \d+, and ids are 0 to 6"),
    (lambda p: save(p, INSTANCES), {}, r"label id \d+.*--instances"),
    (lambda p: p, {}, "no such file"),
]


@pytest.mark.parametrize(("make", "options", "words"), BAD_MAPS)
def test_what_are_no_label_maps_gets_one_sentence(
    tmp_path: Path, make: Callable[[Path], Path], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedVideo, match=words) as caught:
        read(make(tmp_path / "labels"), **options)
    assert caught.value.exit_code == 2


def test_a_film_is_no_label_video(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with pytest.raises(UnsupportedVideo, match=r"film\.mp4 at 0\.00 s: .*palette does not know"):
        read(film_of(tmp_path / "film.mp4", noise))


def test_instance_maps_must_go_with_the_label_maps(tmp_path: Path) -> None:
    labels = save(tmp_path / "labels", IDS)
    with pytest.raises(UnsupportedVideo, match=r"holds 3 instance maps and .* 4 label maps"):
        read(labels, save(tmp_path / "few", INSTANCES[:3]))
    with pytest.raises(UnsupportedVideo, match=r"maps of 36x12 and .* of 36x24"):
        read(labels, save(tmp_path / "low", INSTANCES[:, ::2]))


# Palettes


def test_palettes_by_name_are_the_published_ones() -> None:
    assert CITYSCAPES.shape == (34, 3)
    known = {7: (128, 64, 128), 23: (70, 130, 180), 24: (220, 20, 60), 26: (0, 0, 142)}
    assert {i: tuple(CITYSCAPES[i].tolist()) for i in known} == known
    voc = load_palette("voc")
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {i: tuple(voc[i].tolist()) for i in known} == known
    assert len({tuple(colour) for colour in voc.tolist()}) == len(voc) == 255


def test_a_palette_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "colours.txt"
    file.write_text("# mine\n64 128 64\tAnimal\n192, 0, 128, Archway\n\n0;128;192\n")
    assert load_palette(str(file)).tolist() == [[64, 128, 64], [192, 0, 128], [0, 128, 192]]
    file.write_text("64 128\n")
    with pytest.raises(BadOption, match="'64 128' is no colour"):
        load_palette(str(file))
    with pytest.raises(BadOption, match="'citiscapes' is neither cityscapes nor voc"):
        load_palette("citiscapes")


# MediaPipe


def puppet(num_frames: int = 2, size: int = 160) -> tuple[Clip, NDArray[np.int64]]:
    """A film of somebody, and where their joints are: (T, 33, 2) x, y."""
    world = WORLDS["puppet"]
    someone, dance = world.make_identity(0), world.make_motion(0, num_frames)
    chunks = world.render(someone, dance, height=size, width=size)
    truth: Any = world.truth(someone, dance, height=size, width=size)
    joints = truth.keypoints[:, 0, :, :2].round().long().clamp(0, size - 1).numpy()
    return Clip.concat([c.clip for c in chunks if c.clip]), joints


def segmented(clip: Clip, **options: Any) -> LabelMaps:
    (maps,) = LabelExtractor(LabelOptions(**options)).extract(iter([clip]))
    return maps


def test_people_are_told_from_their_background() -> None:
    clip, joints = puppet()
    maps = segmented(clip)
    assert maps.num_classes == 2 and maps.instances is None
    body = joints[:, [0, 11, 12, 23, 24, 25, 26]]  # nose, shoulders, hips, knees
    for labels, points in zip(maps.labels.numpy(), body, strict=True):
        assert labels[points[:, 1], points[:, 0]].mean() > 0.8
        assert labels[:10, :10].max() == 0 and 0.03 < labels.mean() < 0.4


def test_the_tasks_api_sees_the_same_people() -> None:
    mediapipe = pytest.importorskip("mediapipe")
    model = (
        Path(mediapipe.__file__).parent / "modules/selfie_segmentation/selfie_segmentation.tflite"
    )
    if not model.exists():
        pytest.skip("this mediapipe has no model inside; install mediapipe==0.10.21")
    clip, _ = puppet()
    ours, theirs = segmented(clip), segmented(clip, model_bundle=model)
    assert (ours.labels == theirs.labels).float().mean() > 0.97


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model")
    with pytest.raises(MissingWeights, match=r"model\.tflite cannot be used as a model bundle"):
        segmented(puppet(1)[0], model_bundle=tmp_path / "model.tflite")


def test_without_maps_or_a_model_it_says_what_to_give() -> None:
    with pytest.raises(BadOption, match=r"--labels.*-s extractor\.model"):
        segmented(puppet(1)[0], model="given")


# Networks of transformers, small and with random weights

transformers = pytest.importorskip("transformers")
SWIN = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
DECODER = {
    "num_labels": 5,
    "hidden_dim": 32,
    "num_queries": 6,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
}


def segformer() -> Any:
    return transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            num_labels=5,
            hidden_sizes=[8, 16, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            depths=[1, 1, 1, 1],
            decoder_hidden_size=16,
        )
    )


def mask2former() -> Any:
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        feature_size=32,
        mask_feature_size=32,
        **DECODER,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def oneformer() -> Any:
    text = {"width": 32, "context_length": 12, "num_layers": 1, "vocab_size": 64, "n_ctx": 2}
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        conv_dim=32,
        mask_dim=32,
        task_seq_len=24,
        **{f"text_encoder_{name}": value for name, value in text.items()},
        **DECODER,
    )
    return transformers.OneFormerForUniversalSegmentation(config)


def saved(make: Callable[[], Any], folder: Path) -> Any:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():  # fresh weights are too alike for any class to win anywhere
        for weight in model.parameters():
            weight.mul_(3)
    model.save_pretrained(folder)
    return model


def picture(height: int = 64, width: int = 96) -> Clip:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 12, generator=rng)
    frames = torch.nn.functional.interpolate(coarse, (height, width)).mul(255).to(torch.uint8)
    return Clip(frames, torch.zeros(1, dtype=torch.float64))


def normalised(clip: Clip) -> torch.Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    spread = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (clip.frames / 255 - mean) / spread


def test_segformer_says_what_the_librarys_own_processor_makes_of_it(tmp_path: Path) -> None:
    model = saved(segformer, tmp_path)
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 96})
    clip = picture()
    seen = processor(clip.frames[0].permute(1, 2, 0).numpy(), return_tensors="pt")
    with torch.no_grad():
        (expected,) = processor.post_process_semantic_segmentation(model(**seen), [(64, 96)])
    maps = segmented(clip, model=str(tmp_path), size=64)
    assert maps.num_classes == 5 and len(maps.labels.unique()) > 1
    assert (maps.labels[0] == expected).float().mean() > 0.999


def reference(answer: Any, height: int, width: int) -> torch.Tensor:
    """Semantic inference, mask by mask."""
    total = torch.zeros(5, height, width)
    for query in range(answer.masks_queries_logits.shape[1]):
        mask = answer.masks_queries_logits[:, query : query + 1].sigmoid()
        mask = torch.nn.functional.interpolate(mask, (height, width), mode="bilinear")[0, 0]
        for index in range(5):
            total[index] += answer.class_queries_logits[0, query].softmax(0)[index] * mask
    return total.argmax(dim=0)


def test_mask2former_counts_every_mask_for_its_classes(tmp_path: Path) -> None:
    model = saved(mask2former, tmp_path)
    with torch.no_grad():
        expected = reference(model(pixel_values=normalised(picture())), 64, 96)
    maps = segmented(picture(), model=str(tmp_path), size=64)
    assert (maps.labels[0] == expected).float().mean() > 0.999


def test_oneformer_is_told_its_task(tmp_path: Path) -> None:
    model = saved(oneformer, tmp_path)
    words = ["<|startoftext|>", "<|endoftext|>", "the</w>", "task</w>", "is</w>", "semantic</w>"]
    vocabulary = {word: n for n, word in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    tokenizer.save_pretrained(tmp_path)
    task = tokenizer("the task is semantic", padding="max_length", max_length=24)["input_ids"]
    with torch.no_grad():
        answer = model(pixel_values=normalised(picture()), task_inputs=torch.tensor([task]))
    maps = segmented(picture(), model=str(tmp_path), size=64)
    assert (maps.labels[0] == reference(answer, 64, 96)).float().mean() > 0.999


def test_frames_of_any_size_come_back_at_their_own(tmp_path: Path) -> None:
    saved(segformer, tmp_path)
    assert segmented(picture(45, 71), model=str(tmp_path), size=32).size == (45, 71)


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    model = saved(segformer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingWeights, match=r"model\.safetensors"):
        segmented(picture(), model=str(tmp_path))


def test_a_model_that_is_not_here_is_not_fetched_offline() -> None:
    with pytest.raises(MissingWeights, match=r"extractor\.model = 'nobody/nothing'"):
        segmented(picture(), model="nobody/nothing")


def test_a_model_for_something_else_is_refused(tmp_path: Path) -> None:
    transformers.CLIPTextConfig(vocab_size=9, hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(BadOption, match="no model for semantic segmentation"):
        segmented(picture(), model=str(tmp_path))
