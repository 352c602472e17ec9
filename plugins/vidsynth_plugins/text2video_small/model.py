"""The whole model as it is trained, kept and sampled from: text encoder and denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth import loading
from vidsynth.errors import BadOption, BadSubject, PluginError
from vidsynth.kinds import TextEncoder
from vidsynth.subject import WEIGHTS, Subject, load_subject
from vidsynth.weights import read
from vidsynth_plugins.text2video_small.lora import with_lora
from vidsynth_plugins.text2video_small.networks import Denoiser, TextTransformer
from vidsynth_plugins.text2video_small.options import SmallOptions
from vidsynth_plugins.text2video_small.words import LENGTH, MARKS, numbered

# B clips, T frames, L tokens, D features, C channels, H, W pixels

EMBEDDED = Path(__file__).parent / "weights"
"""The model that comes with vidsynth, a folder as `vidsynth train` writes it."""
SHAPE = (
    "num_frames",
    "stride",
    "patch",
    "width",
    "levels",
    "blocks",
    "heads",
    "text_width",
    "text_layers",
)
"""Options that a model shares with the one that it starts from."""


class TextToVideo(nn.Module):
    """Prompts and a noisy moment of a clip in, the moment without noise out."""

    frame_size: Tensor

    def __init__(
        self, options: SmallOptions, words: Sequence[str], height: int, width: int
    ) -> None:
        super().__init__()
        self.words = tuple(words)
        self.encoder: TextEncoder | None = None
        text_width = options.text_width
        if options.encoder:
            self.encoder = _encoder(options.encoder)
            text_width = self.encoder.encode([""])[0].tokens.shape[1]
        else:
            self.text = TextTransformer(
                words=MARKS + len(words),
                length=LENGTH,
                width=text_width,
                layers=options.text_layers,
                heads=options.heads,
            )
        self.denoiser = Denoiser(
            height=height,
            width_px=width,
            num_frames=options.num_frames,
            stride=options.stride,
            patch=options.patch,
            width=options.width,
            levels=options.levels,
            blocks=options.blocks,
            heads=options.heads,
            text_width=text_width,
        )
        self.register_buffer("frame_size", torch.tensor([height, width]))
        if options.lora:
            with_lora(self, options.lora)
        self._encoded: dict[str, tuple[Tensor, Tensor]] = {}

    def encoded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D), and the whole (B, D), of each text. Raises BadOption."""
        device = self.frame_size.device
        if self.encoder is None:
            ids_BL, last_B = numbered(texts, self.words)
            return self.text(ids_BL.to(device), last_B.to(device))
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        for text, found in zip(new, self.encoder.encode(new) if new else (), strict=True):
            self._encoded[text] = (found.tokens.float().cpu(), found.pooled[0].float().cpu())
        tokens = [self._encoded[text][0] for text in texts]
        # Shorter ones are filled up with zeros, as what they attend to learns to overlook.
        tokens_BLD = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        pooled_BD = torch.stack([self._encoded[text][1] for text in texts])
        return tokens_BLD.to(device), pooled_BD.to(device)

    def forward(self, moment_BFCHW: Tensor, *behind: Tensor) -> Tensor:
        """As `Denoiser.forward`."""
        return self.denoiser(moment_BFCHW, *behind)

    def filled(self, weights: Mapping[str, Tensor]) -> TextToVideo:
        """With these weights, on their device. Raises BadSubject where they do not fit."""
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise BadSubject(
                "these weights are not of the text2video-small that the options describe "
                f"({reason}); generate with the options that the model was trained with"
            ) from error
        return self.to(next(iter(weights.values())).device)


def _encoder(name: str) -> TextEncoder:
    plugin: Any = loading.load("encoder", name)
    try:
        return plugin()
    except ImportError as error:
        raise PluginError(
            f"the encoder {name!r} cannot be used ({error}); pip install vidsynth[text]"
        ) from error


def source_of(options: SmallOptions) -> Subject | None:
    """The model that the options start from. Raises BadSubject, BadOption."""
    if not options.start:
        return None
    folder = EMBEDDED if options.start == "embedded" else Path(options.start)
    source = load_subject(folder)
    theirs = source.card.generator.options
    if source.card.generator.name != "text2video-small":
        raise BadOption(
            f"training cannot start from {options.start}, which is of "
            f"{source.card.generator.name}; name a folder of text2video-small in generator.start"
        )
    differing = [name for name in SHAPE if theirs.get(name) != getattr(options, name)]
    if differing:
        given = " ".join(f"-s generator.{name}={theirs.get(name)}" for name in differing)
        raise BadOption(f"{options.start} has another network; go on from it with {given}")
    return source


def started(model: TextToVideo, source: Subject) -> None:
    """Give the model the weights of `source`; words that are new to it keep theirs.

    Raises BadSubject, BadOption.
    """
    weights = read(source.folder / WEIGHTS)
    height, width = model.frame_size.tolist()
    if (height, width) != (source.card.height, source.card.width):
        raise BadOption(
            f"{source.folder} was trained at {source.card.width}x{source.card.height}, not at "
            f"{width}x{height}; train with --size {min(source.card.height, source.card.width)}"
        )
    known = weights.get("text.embedding.weight")
    if known is not None and model.encoder is None:
        grown = model.text.embedding.weight.detach().clone()
        grown[: len(known)] = known
        weights["text.embedding.weight"] = grown
    missing, unknown = model.load_state_dict(weights, strict=False)
    if unknown or any("lora" not in name for name in missing):
        raise BadSubject(
            f"{source.folder} has other weights than its options say ({(*unknown, *missing)[0]}); "
            "start from another model"
        )
