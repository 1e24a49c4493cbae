"""Settings are refused where they are wrong, by the name that the command line gives them."""

import subprocess
import sys
from typing import Any

import pytest

from ex4d.errors import ConfigError
from ex4d.model.config import GenerateConfig


def test_defaults_are_the_releases() -> None:
    config = GenerateConfig()
    assert (config.num_inference_steps, config.effective_guidance_scale, config.shift) == (25, 5.0, 5.0)
    assert config.prompt.startswith("4K ultra HD, surround motion")
    assert config.negative_prompt.endswith("walking backwards")
    assert config.mask_quirk
    assert (config.window_frames, config.erode_px) == (49, "5")
    assert config.size_px is config.tile_px is config.max_vram_gib is None


@pytest.mark.parametrize(
    ("settings", "steps", "guidance"),
    [
        ({"preset": "draft"}, 4, 1.0),
        ({"preset": "balanced"}, 25, 5.0),
        ({"weights": "tiny"}, 4, 5.0),
        ({"preset": "draft", "steps": 8, "guidance_scale": 2.0}, 8, 2.0),
        ({"steps": 50, "guidance_scale": 1.0}, 50, 1.0),
    ],
)
def test_presets_and_what_overrules_them(settings: dict[str, Any], steps: int, guidance: float) -> None:
    config = GenerateConfig(**settings)
    assert (config.num_inference_steps, config.effective_guidance_scale) == (steps, guidance)


@pytest.mark.parametrize("text", ["480x832", "480X832", "480×832"])
def test_sizes_are_height_by_width(text: str) -> None:
    config = GenerateConfig(size=text, tile=text, max_vram="23.5")
    assert config.size_px == config.tile_px == (480, 832)
    assert config.max_vram_gib == 23.5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("weights", [""]),
        ("preset", ["fast"]),
        ("attention", ["xformers"]),
        ("plan", ["bf8"]),
        ("compile", ["yes"]),
        ("cache", ["tea"]),
        ("fuse_lora", ["maybe"]),
        ("output_size", ["big"]),
        ("vae_dtype", ["fp16"]),
        ("steps", [-1, 1001]),
        ("guidance_scale", [0.5, -1.0, 101.0, float("nan")]),
        ("shift", [0.0, -5.0, 101.0, float("nan")]),
        ("size", ["512", "512x", "500x512", "0x512", "512x512x3", "16x16384", "512 x 512", "-16x16", ""]),
        ("tile", ["on", "500x500", "8x8", "16x64"]),
        ("erode_px", ["0", "100", "-1", "5.5", "five", "", "²"]),
        ("max_vram", ["0", "-8", "lots", "nan", "inf", "1e9"]),
        ("window_frames", [48, 1]),
        ("overlap_frames", [8, 53]),
    ],
)
def test_values_out_of_range_name_their_option(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
            GenerateConfig(**{name: value})


def test_size_and_square_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="one of --size and --square; got both"):
        GenerateConfig(size="480x832", square=True)
    assert GenerateConfig(square=True).square


def test_settings_sizes_windows_and_names_need_no_torch() -> None:
    modules = "ex4d.model.config, ex4d.model.sizes, ex4d.model.windows, ex4d.model.key_maps"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
