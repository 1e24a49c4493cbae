"""Complete a prior folder with EX-4D's diffusion model, in Python: here with a random miniature of it, on the CPU.

    python examples/04_generate_from_a_prior.py                          a made-up clip: shows the chain, no picture
    python examples/04_generate_from_a_prior.py out/ --weights 480p      yours, with real weights: needs a GPU

Needs the extra `gen`. Real weights: `ex4d weights pull 480p` and `ex4d weights pull ex4d` (docs/generate.md).
Results are in ./out/examples/generated.
"""

import argparse
import json
from fractions import Fraction
from pathlib import Path

import ex4d
from ex4d.cli.quiet import quiet_libraries
from ex4d.demo.film import film
from ex4d.pipeline.generate_folder import generate_folder
from ex4d.pipeline.generation_request import GenerationRequest
from ex4d.pipeline.progress import SilentReporter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene


def generate(prior: Path, output: Path, *, weights: str) -> None:
    """Prior folder → result.mp4, and config.json, which says how it was made."""
    request = GenerationRequest(prior=str(prior), seed=0, generate=ex4d.GenerateConfig(weights=weights))
    video = generate_folder(request, output, overwrite=True, reporter=SilentReporter())
    result = json.loads((output / "config.json").read_text("utf-8"))["result"]
    print("\n".join(result["notices"]))
    print(f"written: {video}, {result['width']}x{result['height']}, {len(result['windows'])} windows")


def make_prior(folder: Path, *, num_frames: int, size: str) -> Path:
    """A procedural clip with its depth, seen from 30 degrees to the right: what `ex4d recon` writes."""
    width, height = (int(side) for side in size.split("x"))
    clip = scene_clip(make_scene(0), num_frames=num_frames, fps=12.0, height=height, width=width)
    video, depth = film(clip, folder, fps=Fraction(12), reporter=SilentReporter())
    config = ex4d.RunConfig(
        input=str(video),
        camera=ex4d.CameraConfig(cam=("30",)),
        depth=ex4d.DepthConfig(depth=str(depth)),
        generator="none",
    )
    return ex4d.run(config, folder / "prior", overwrite=True).folders[0]


def main() -> None:
    """Read the arguments; make a prior if none is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", type=Path, help="what `ex4d recon` wrote; default: a made-up one")
    parser.add_argument("--weights", default="tiny", help="tiny, a name (`ex4d weights list`) or a folder")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/examples"))
    parser.add_argument("--num-frames", type=int, default=24, help="of the made-up clip")
    parser.add_argument("--size", default="512x288", help="of the made-up clip, WxH px")
    args = parser.parse_args()
    quiet_libraries()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    prior = args.prior or make_prior(args.output_dir, num_frames=args.num_frames, size=args.size)
    generate(prior, args.output_dir / "generated", weights=args.weights)


if __name__ == "__main__":
    main()
