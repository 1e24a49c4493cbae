"""Prompt embeddings on disk: umT5 has 11 GB, and most runs use the same two prompts."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ex4d.errors import OutputError
from ex4d.io.atomic import write_bytes_atomic
from ex4d.weights.folders import cache_root

_TENSOR = "embeds"


def prompt_key(text: str, *, encoder: Mapping[str, str], dtype: torch.dtype) -> str:
    """Hex digest of a text, of the encoder's and tokenizer's files, and of the precision it computes in.

    Args:
        text: as typed.
        encoder: file → SHA-256.
        dtype: of the encoder.
    """
    lines = [f"{name} {digest}" for name, digest in sorted(encoder.items())]
    return hashlib.sha256("\n".join([*lines, str(dtype), text]).encode()).hexdigest()


def embed_prompts(
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], Sequence[Tensor]],
    *,
    encoder: Mapping[str, str],
    dtype: torch.dtype,
    folder: Path | None = None,
) -> tuple[list[Tensor], list[str]]:
    """Embeddings [1,512,text_dim] of texts, from the cache where all are there; else `encode` is called once.

    Args:
        texts: prompts.
        encode: loads the encoder and embeds what is missing; a damaged entry counts as missing.
        encoder: file → SHA-256 of encoder and tokenizer.
        dtype: precision of the encoder.
        folder: default ``prompts`` in the cache.

    Returns:
        The embeddings, and notices (a cache that could not be written is done without).
    """
    folder = folder or cache_root() / "prompts"
    files = [folder / f"{prompt_key(text, encoder=encoder, dtype=dtype)}.safetensors" for text in texts]
    found = [_read(file) for file in files]
    missing = [i for i, embeds in enumerate(found) if embeds is None]
    notices: list[str] = []
    if missing:
        for i, embeds in zip(missing, encode([texts[i] for i in missing]), strict=True):
            found[i] = embeds.cpu()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(files[i], save({_TENSOR: embeds.cpu().contiguous()}))
            except (OSError, OutputError) as error:
                notices.append(f"the prompt's embedding could not be kept for the next run: {error}")
    return [embeds for embeds in found if embeds is not None], notices


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)[_TENSOR] if file.is_file() else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
