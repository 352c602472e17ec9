"""Label and instance maps that are there already: folders of pictures, or videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import pictures, video
from vidsynth.conditioning import VOID, LabelMaps
from vidsynth.drawing import nearest
from vidsynth.errors import UnsupportedVideo
from vidsynth.kinds import Given
from vidsynth_plugins.labels.palettes import Palette, code

# T frames, H, W pixels

Ids = NDArray[np.int32]
"""(H, W)."""

LABEL_ENDINGS = ("_labelIds", "_color")
INSTANCE_ENDINGS = ("_instanceIds",)
"""How Cityscapes names what it keeps in one folder."""
FAR = 40.0
"""Levels: a pixel of a compressed video is this near the colour that it means, ..."""
FAR_SHARE = 0.1
"""... but for this share of them, on the edges between two colours."""
FLAT_SHARE = 0.5
"""In a label map, at least this share of the pixels are what their left neighbour is."""


def read_maps(given: Given, palette: Palette, classes: int, *, shorter: int) -> LabelMaps:
    """Every map of the files.

    Args:
        given: where they are.
        palette: what colours mean; pictures with one number per pixel hold ids as they are.
        classes: how many there are; 0: with a palette as many as it has, else as many as are seen.
        shorter: pixels; larger maps are scaled down so that this is their shorter side.

    Raises:
        UnsupportedVideo: these are no label maps, they have ids or colours that mean nothing, or
            the maps of labels and of instances do not go together.
    """
    coloured = False
    labels: list[Tensor] = []
    for name, picture in _numbers(given.maps, LABEL_ENDINGS):
        coloured = coloured or picture.ndim == 3
        ids = _classes_of(picture, palette, name, exact=given.maps.is_dir())
        _refuse_photographs(ids, name)
        _refuse_ids_beyond(ids, classes, name)
        labels.append(_shrunk(ids.astype(np.uint8), shorter))
    instances = None
    if given.instances is not None:
        instances = torch.stack(
            [
                _shrunk(_instance_ids(picture, name), shorter)
                for name, picture in _numbers(given.instances, INSTANCE_ENDINGS)
            ]
        )
    joined = torch.stack(labels)
    _refuse_strangers(joined, instances, given)
    seen = int(joined[joined != VOID].max()) + 1 if bool((joined != VOID).any()) else 1
    known = classes or (len(palette) if coloured else seen)
    return LabelMaps(labels=joined, num_classes=known, instances=instances)


def _numbers(path: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, NDArray]]:
    """Each frame's name, and its numbers as they are stored: (H, W), or (H, W, 3) RGB."""
    if not path.is_dir():
        grey = video.probe(path).pixel_format.startswith("gray")
        for chunk in video.read_chunks(path, note=lambda _: None):
            assert chunk.clip is not None
            frames = chunk.clip.frames.permute(0, 2, 3, 1).numpy()
            for second, frame in zip(chunk.pts.tolist(), frames, strict=True):
                yield f"{path} at {second:.2f} s", frame[..., 0] if grey else frame
        return
    found = pictures.list_pictures(path, endings=endings)
    first = pictures.stored(found[0]).shape
    for picture in found:
        numbers = pictures.stored(picture)
        size = numbers.shape
        pictures.refuse_another_size(picture, (size[0], size[1]), found[0], (first[0], first[1]))
        yield str(picture), numbers


def _classes_of(picture: NDArray, palette: Palette, name: str, *, exact: bool) -> Ids:
    if picture.ndim == 2:
        return picture.astype(np.int32)
    codes, where = np.unique(code(picture), return_inverse=True)
    colours = np.stack([codes & 255, codes >> 8 & 255, codes >> 16], axis=1)
    apart = np.linalg.norm(colours[:, None] - palette[None].astype(np.int32), axis=2)
    unknown = (apart.min(axis=1) > (0 if exact else FAR))[where.reshape(-1)]
    if unknown.mean() > (0 if exact else FAR_SHARE):
        y, x = divmod(int(unknown.argmax()), picture.shape[1])
        raise UnsupportedVideo(
            f"{name}: {int(unknown.sum())} of its pixels have colours that the palette does not "
            f"know, like {tuple(picture[y, x].tolist())} at x {x}, y {y}; name the palette of "
            "these maps with -s extractor.palette, or give maps of ids"
        )
    return apart.argmin(axis=1).astype(np.int32)[where].reshape(picture.shape[:2])


def _instance_ids(picture: NDArray, name: str) -> Ids:
    """Of one number per pixel, or of colours that each are a number."""
    return code(picture) if picture.ndim == 3 else picture.astype(np.int32)


def _refuse_photographs(ids: Ids, name: str) -> None:
    if ids.shape[1] > 1 and (np.diff(ids, axis=1) == 0).mean() < FLAT_SHARE:
        raise UnsupportedVideo(
            f"{name}: is no label map: hardly two pixels side by side are equal, as in a "
            "photograph; give maps in which every pixel of a class has the same value"
        )


def _refuse_ids_beyond(ids: Ids, classes: int, name: str) -> None:
    most = classes or VOID
    beyond = (ids >= most) & (ids != VOID)
    if beyond.any():
        y, x = np.argwhere(beyond)[0].tolist()
        remedy = (
            "raise -s extractor.classes" if classes else "instance maps are given with --instances"
        )
        raise UnsupportedVideo(
            f"{name}: has the label id {int(ids[y, x])} at x {x}, y {y}, and ids are 0 to "
            f"{most - 1}, or {VOID} for no class; correct it, or {remedy}"
        )


def _refuse_strangers(labels: Tensor, instances: Tensor | None, given: Given) -> None:
    if instances is None:
        return
    if len(instances) != len(labels):
        raise UnsupportedVideo(
            f"{given.instances} holds {len(instances)} instance maps and {given.maps} "
            f"{len(labels)} label maps; there must be one for each"
        )
    if instances.shape != labels.shape:
        (h, w), (height, width) = instances.shape[1:], labels.shape[1:]
        raise UnsupportedVideo(
            f"{given.instances} holds maps of {w}x{h} and {given.maps} of {width}x{height} (the "
            "size that they are used at); instance maps must have the size of the label maps"
        )


def _shrunk(ids: NDArray, shorter: int) -> Tensor:
    height, width = ids.shape
    scale = min(1.0, shorter / min(height, width))
    maps = torch.from_numpy(np.ascontiguousarray(ids))[None]
    return nearest(maps, max(1, round(height * scale)), max(1, round(width * scale)))[0]
