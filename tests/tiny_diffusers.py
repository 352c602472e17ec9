"""Pipelines of diffusers with tiny random weights: the real classes, as small as they get.

Sizes follow what diffusers' own tests use: the smallest that the networks' shapes allow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

WORDS = [*"abcdefghijklmnopqrstuvwxyz", "red", "kite", "sea"]


@cache
def libraries() -> tuple[Any, Any]:
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return diffusers, transformers


def t5(width: int = 32, kind: str = "T5") -> dict[str, Any]:
    """A text encoder of T5's kind and its tokenizer."""
    _, transformers = libraries()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = [*pieces, *((word, -3.0) for word in WORDS)]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=64)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(vocabulary),
        d_model=width,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    encoder = getattr(transformers, f"{kind}EncoderModel")(config)
    return {"text_encoder": encoder.eval(), "tokenizer": tokenizer}


def clip_tokenizer() -> Any:
    """Knows single bytes and nothing longer."""
    from tokenizers.pre_tokenizers import ByteLevel

    _, transformers = libraries()
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_text_config(width: int = 32, **changes: Any) -> Any:
    _, transformers = libraries()
    return transformers.CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **changes,
    )


def clip_text(width: int = 32) -> dict[str, Any]:
    _, transformers = libraries()
    model = transformers.CLIPTextModel(clip_text_config(width))
    return {"text_encoder": model.eval(), "tokenizer": clip_tokenizer()}


def clip_model() -> Any:
    """Text and pictures."""
    _, transformers = libraries()
    config = transformers.CLIPConfig(
        text_config=clip_text_config().to_dict(),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        projection_dim=16,
    )
    return transformers.CLIPModel(config).eval()


def clip_pictures(size: int) -> dict[str, Any]:
    """Encodes a picture for Wan."""
    _, transformers = libraries()
    config = transformers.CLIPVisionConfig(
        hidden_size=4,
        projection_dim=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        intermediate_size=16,
        patch_size=1,
    )
    return {
        "image_encoder": transformers.CLIPVisionModel(config).eval(),
        "image_processor": transformers.CLIPImageProcessor(
            crop_size={"height": size, "width": size}, size={"shortest_edge": size}
        ),
    }


def wan_vae() -> Any:
    diffusers, _ = libraries()
    return diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


def wan_shape(channels: int) -> dict[str, Any]:
    return {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": channels,
        "out_channels": 16,
        "text_dim": 32,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 32,
    }


def flow_euler() -> Any:
    diffusers, _ = libraries()
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)


def wan() -> Any:
    diffusers, _ = libraries()
    return diffusers.WanPipeline(
        vae=wan_vae(),
        transformer=diffusers.WanTransformer3DModel(**wan_shape(16)),
        scheduler=flow_euler(),
        **t5(kind="UMT5"),
    )


def wan_image() -> Any:
    diffusers, _ = libraries()
    network = diffusers.WanTransformer3DModel(**wan_shape(36), image_dim=4)
    return diffusers.WanImageToVideoPipeline(
        vae=wan_vae(),
        transformer=network,
        scheduler=flow_euler(),
        **clip_pictures(4),
        **t5(kind="UMT5"),
    )


def wan_animate() -> Any:
    diffusers, _ = libraries()
    network = diffusers.WanAnimateTransformer3DModel(
        **wan_shape(36),
        latent_channels=16,
        image_dim=4,
        motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )
    return diffusers.WanAnimatePipeline(
        vae=wan_vae(),
        transformer=network,
        scheduler=flow_euler(),
        **clip_pictures(4),
        **t5(kind="UMT5"),
    )


def ltx() -> Any:
    diffusers, _ = libraries()
    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=32,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=4,
        patch_size_t=1,
    )
    return diffusers.LTXPipeline(vae=vae, transformer=network, scheduler=flow_euler(), **t5())


def cogvideox(**changes: Any) -> Any:
    diffusers, _ = libraries()
    network = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=4,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=226,
        **changes,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler()
    return diffusers.CogVideoXPipeline(vae=vae, transformer=network, scheduler=scheduler, **t5())


def hunyuan() -> Any:
    diffusers, transformers = libraries()
    network = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
    )
    words = {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", "▁", *WORDS])}
    llama = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=3,
        bos_token_id=1,
        eos_token_id=2,
    )
    tokenizer = transformers.LlamaTokenizer(vocab=words, merges=[], pad_token="</s>")
    second = clip_text(8)
    return diffusers.HunyuanVideoPipeline(
        vae=vae,
        transformer=network,
        scheduler=flow_euler(),
        text_encoder=transformers.LlamaModel(llama).eval(),
        tokenizer=tokenizer,
        text_encoder_2=second["text_encoder"],
        tokenizer_2=second["tokenizer"],
    )


def mochi() -> Any:
    diffusers, _ = libraries()
    network = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        out_channels=None,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        max_sequence_length=256,
    )
    vae = diffusers.AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        latent_channels=12,
        layers_per_block=(1, 1, 1, 1, 1),
        latents_mean=(0.0,) * 12,
        latents_std=(1.0,) * 12,
    )
    return diffusers.MochiPipeline(vae=vae, transformer=network, scheduler=flow_euler(), **t5())


def picture_vae() -> Any:
    diffusers, _ = libraries()
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )


BLOCKS = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "cross_attention_dim": 32,
    "sample_size": 8,
}


def picture_unet() -> Any:
    diffusers, _ = libraries()
    return diffusers.UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        **BLOCKS,
    )


def motion_adapter() -> Any:
    diffusers, _ = libraries()
    return diffusers.MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=24,
    )


def ddim() -> Any:
    diffusers, _ = libraries()
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
    )


def animatediff() -> Any:
    diffusers, _ = libraries()
    return diffusers.AnimateDiffPipeline(
        vae=picture_vae(),
        unet=picture_unet(),
        motion_adapter=motion_adapter(),
        scheduler=ddim(),
        **clip_text(),
    )


def stable_diffusion() -> Any:
    """What makes pictures, to which AnimateDiff's adapter is added."""
    diffusers, _ = libraries()
    return diffusers.StableDiffusionPipeline(
        vae=picture_vae(),
        unet=picture_unet(),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **clip_text(),
    )


def text_to_video_sd() -> Any:
    diffusers, _ = libraries()
    network = diffusers.UNet3DConditionModel(
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=4,
        **BLOCKS,
    )
    return diffusers.TextToVideoSDPipeline(
        vae=picture_vae(), unet=network, scheduler=ddim(), **clip_text()
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "wan": wan,
    "wan_image": wan_image,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "hunyuan": hunyuan,
    "mochi": mochi,
    "animatediff": animatediff,
    "text_to_video_sd": text_to_video_sd,
}


def saved(folder: Path, make: Callable[[], Any]) -> Path:
    """A pipeline of random weights, always the same, in files."""
    torch.manual_seed(0)
    make().save_pretrained(folder, safe_serialization=True)
    return folder
