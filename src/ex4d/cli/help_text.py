"""What surrounds the generated help: the first lines, and the preset table and examples after the flags."""

from collections.abc import Sequence

DESCRIPTION = "Re-film a video: an ordinary clip in, the same moment seen from another camera out."

_START = """examples
  ex4d run clip.mp4 --cam 60 -o out/      a new video, the camera moves 60 degrees to the right
  ex4d generate out/                      what the clip never saw, by the diffusion model
  ex4d demo --small                       see it work on a made-up scene, in seconds
  ex4d doctor                             is everything here that is needed?

`ex4d COMMAND --help` explains a command, `ex4d --version` prints the version.
Exit codes: 0 done, 1 a fault of ex4d, 2 something you can fix, 130 interrupted.
"""

_CAMERAS = """camera presets (--cam NAME[:VALUE]; the names say how the camera moves; p = pivot depth)
{table}

or a file: keyframes (.json), cameras (.json, .npz, transforms.json) or a COLMAP folder
"""

_EXAMPLES = {
    "run": """examples
  ex4d run clip.mp4 --cam 60 -o out/
  ex4d run clip.mp4 --cam -45 --cam full --depth depth.npz      both cameras, depth read once
  ex4d run clip.mp4 --cam full --freeze 20 --num-frames 97      bullet time
  ex4d run clip.mp4 --cam arc:40,10 --start 2 --end 5 --max-side 960
  ex4d run --from out/prior.json --cam 30 -o again/             the same settings, another camera
""",
    "recon": """examples
  ex4d recon clip.mp4 --cam 180 --output-dir out/ --save-mesh
  ex4d recon rgbd_folder/ --cam orbit-left:45                   measured depth and camera motion
  ex4d recon clip.mp4 --cam 30 --geometry official --official-files -o as_released/
  ex4d fill out/                                                complete it later
""",
}

_PLAIN_EXAMPLES = {
    "depth": """examples
  ex4d depth clip.mp4 -o depth/                                   then: ex4d run clip.mp4 --depth depth/depth.npz
  ex4d depth clip.mp4 --depth vda-small --download                size and licence are shown, then it is fetched
  ex4d depth clip.mp4 --format npz --format exr --max-side 960
  ex4d depth rgbd_folder/ --format mkv                            measured depth, converted
""",
    "masks": """examples
  ex4d masks clip.mp4 -o masks/                        two masks of each kind: look at masks/sheet.png
  ex4d masks clip.mp4 --kind rendering --style orbit --yaw-deg 60 60
  ex4d masks clip.mp4 --depth depth/depth.npz --num-masks 16 --seed 7
""",
    "prepare": """examples
  ex4d prepare clips/ -o dataset/                                 again after an interruption: it goes on
  ex4d prepare clips/ -o dataset/ --bucket 49x512x512 --depth vda-small
  ex4d prepare OpenVid-1M.csv --root videos/ -o dataset/ --min-score aesthetic=5 --shard 0/64
  ex4d prepare clips.jsonl -o dataset/ --executor ray --ray-address head:6379
  ex4d prepare dataset/ --latents 480p                            cache what the VAE, CLIP and umT5 make of it
""",
    "generate": """examples
  ex4d generate out/ --weights tiny                    try the chain without weights or a GPU: the result is noise
  ex4d generate out/ --max-vram 24 --preview-every 5
  ex4d generate --color-video c.mp4 --mask-video m.mp4 --output-video result.mp4      as the EX-4D release
  ex4d generate --from out/generated/config.json --seed 1 -o again/                   once more, another seed
""",
    "train": """examples
  ex4d train paper --dataset data/ --weights 480p -o run/ --gpus 8       as published; then: ex4d weights export run/
  ex4d train tiny --dataset data/ --weights tiny -o run/                 try the chain without weights or a GPU
  torchrun --nnodes 4 --nproc-per-node 8 ... -m ex4d train my.toml --dataset data/ -o run/ --resume
""",
    "weights": """examples
  ex4d weights pull 480p                               about 90 GB; asks first, goes on where it was cut off
  ex4d weights pull ex4d
  ex4d weights convert Wan2.1-I2V-14B-480P/ ex4d.ckpt -o weights/      original files that are here already
  ex4d weights export run/ -o adapter/ --official ckpt what `ex4d train` made, for us and for the release's programs
""",
}


def is_help(words: Sequence[str]) -> bool:
    """Whether the words ask for help on a command (or there are none)."""
    return not words or any(word in ("-h", "--help") for word in words)


def epilog(command: str) -> str:
    """What follows the flags of a command (``""``: of ex4d itself); empty for those that need no examples."""
    if not command or command.startswith("-"):
        return f"\n{_START}"
    if command in _PLAIN_EXAMPLES:
        return f"\n{_PLAIN_EXAMPLES[command]}"
    if command not in _EXAMPLES:
        return ""
    from ex4d.camera.presets import presets_help

    table = "\n".join(f"  {line}" for line in presets_help().splitlines())
    return f"\n{_CAMERAS.format(table=table)}\n{_EXAMPLES[command]}"
