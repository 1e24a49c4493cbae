"""What surrounds the generated help: the first lines, and the preset table and examples after the flags."""

from collections.abc import Sequence

DESCRIPTION = "Re-film a video: an ordinary clip in, the same moment seen from another camera out."

_START = """examples
  ex4d run clip.mp4 --cam 60 -o out/      a new video, the camera moves 60 degrees to the right
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


def is_help(words: Sequence[str]) -> bool:
    """Whether the words ask for help on a command (or there are none)."""
    return not words or any(word in ("-h", "--help") for word in words)


def epilog(command: str) -> str:
    """What follows the flags of a command (``""``: of ex4d itself); empty for commands without cameras."""
    if not command or command.startswith("-"):
        return f"\n{_START}"
    if command not in _EXAMPLES:
        return ""
    from ex4d.camera.presets import presets_help

    table = "\n".join(f"  {line}" for line in presets_help().splitlines())
    return f"\n{_CAMERAS.format(table=table)}\n{_EXAMPLES[command]}"
