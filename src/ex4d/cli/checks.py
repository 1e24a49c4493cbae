"""The checks of `ex4d doctor`: what is installed, where caches lie, and whether the chain's parts work."""

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

State = Literal["ok", "note", "fail"]
_MARKS: dict[State, str] = {"ok": "ok  ", "note": "note", "fail": "FAIL"}
_GIB = 2**30
_LOW_DISK_GIB = 2.0
_REINSTALL = "pip install --force-reinstall ex4d"
_STALE = "delete the folder of compiled code that the numba line names (an older version's may be there), try again"
_FIXES = {"numba": _STALE, "render": _STALE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        state: ``note``: works, but worth knowing.
        text: what was found.
        fix: what to do, where something is wrong.
    """

    name: str
    state: State
    text: str
    fix: str = ""

    def line(self) -> str:
        """E.g. ``ok    numba          0.68.1``."""
        return f"{_MARKS[self.state]}  {self.name:<16}{self.text}" + (f"; to fix: {self.fix}" if self.fix else "")


def run_checks() -> Iterator[Check]:
    """Every check, one after the other; none raises."""
    checks: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        ("ex4d", _ex4d),
        ("python", _python),
        ("av", _av),
        ("opencv", _opencv),
        ("numba", _numba),
        ("processors", _processors),
        ("disk", _disk),
        ("EXR", _exr),
        ("torch", _torch),
        ("generation", _generation),
        ("weights", _weights),
        ("depth", _depth),
        ("depth cache", _depth_cache),
        ("encode, decode", _coding),
        ("render", _rendering),
    ]
    for name, check in checks:
        try:
            found = check()
            yield from [found] if isinstance(found, Check) else found
        except Exception as error:  # noqa: BLE001 - whatever is broken is what the doctor is for
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield Check(name=name, state="fail", text=text, fix=_FIXES.get(name, _REINSTALL))


def _ex4d() -> Check:
    import ex4d

    return Check(name="ex4d", state="ok", text=f"{ex4d.__version__} in {Path(ex4d.__file__).parent}")


def _python() -> Check:
    text = f"{platform.python_version()} on {platform.platform(terse=True)} ({platform.machine()})"
    if sys.version_info < (3, 12):
        advice = "; 3.12 or newer is the safer runtime: it gets a newer FFmpeg"
        return Check(name="python", state="note", text=text + advice)
    return Check(name="python", state="ok", text=text)


def _av() -> Check:
    import av

    ffmpeg = getattr(av, "ffmpeg_version_info", "of unknown version")
    missing = [name for name in ("libx264", "ffv1") if name not in av.codecs_available]
    text = f"PyAV {av.__version__}, FFmpeg {ffmpeg}"
    if missing:
        fix = "install PyAV from its wheels: pip install --force-reinstall --only-binary :all: av"
        return Check(name="av", state="fail", text=f"{text}, without {', '.join(missing)}", fix=fix)
    return Check(name="av", state="ok", text=text)


def _opencv() -> Check:
    import cv2

    return Check(name="opencv", state="ok", text=cv2.__version__)


def _numba() -> Check:
    import numba

    from ex4d.render import kernels

    folder = Path(kernels.draw_grid.stats.cache_path or ".")
    text = f"{numba.__version__}, compiled code kept in {folder}"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        fix = "set NUMBA_CACHE_DIR to a folder you may write to (else every start compiles anew)"
        return Check(name="numba", state="note", text=f"{text}, not writable", fix=fix)
    return Check(name="numba", state="ok", text=text)


def _processors() -> Check:
    from ex4d.pipeline.recon import num_threads

    return Check(name="processors", state="ok", text=f"{num_threads()} usable; memory {_memory()}")


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "of unknown size"
    return f"{total / _GIB:.1f} GiB"


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    text = f"{free:.1f} GiB free in the current folder"
    if free < _LOW_DISK_GIB:
        return Check(
            name="disk", state="note", text=text, fix="free some space: a minute of 1024x576 video takes about 2 GiB"
        )
    return Check(name="disk", state="ok", text=text)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _exr() -> Check:
    found = _installed("OpenEXR")
    if found is None:
        text = "not installed: only needed for EXR depth (pip install 'ex4d[exr]')"
        return Check(name="EXR", state="note", text=text)
    return Check(name="EXR", state="ok", text=f"OpenEXR {found}")


def _torch() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check(
            name="torch", state="ok", text="not installed: only needed for generation (pip install 'ex4d[gen]')"
        )
    import torch

    if not torch.cuda.is_available():
        return Check(name="torch", state="ok", text=f"{torch.__version__}, no GPU")
    free, total = torch.cuda.mem_get_info(0)
    memory = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    return Check(name="torch", state="ok", text=f"{torch.__version__}, {torch.cuda.get_device_name(0)}, {memory}")


def _generation() -> Check:
    """The packages of the extras, by name and version."""
    from ex4d.pipeline.generation_setup import PACKAGES

    found = {name: _installed(name) for name in (*PACKAGES, "torchao", "gguf")}
    missing = [name for name in PACKAGES if found[name] is None]
    if missing:
        text = f"not for `ex4d generate`: {', '.join(missing)} missing (pip install 'ex4d[gen]')"
        return Check(name="generation", state="note", text=text)
    said = ", ".join(f"{name} {version}" for name, version in found.items() if version and name != "torch")
    without = [name for name in ("torchao", "gguf") if found[name] is None]
    less = f"; without {', '.join(without)} (ex4d[quant]) some memory plans are missing" if without else ""
    return Check(name="generation", state="ok", text=said + less)


def _weights() -> Check:
    from ex4d.weights.folders import weights_root
    from ex4d.weights.registry import ENTRIES, is_pulled

    pulled = [name for name, entry in ENTRIES.items() if is_pulled(entry)]
    return Check(name="weights", state="ok", text=f"{', '.join(pulled) or 'none pulled'}, in {weights_root()}")


def _depth() -> list[Check]:
    """A line an estimator: whether it is ready, else what it lacks and the command that gets it; and its licence."""
    from ex4d.depth.registry import ESTIMATORS
    from ex4d.depth.source import pick_estimator

    taken = pick_estimator("auto")
    told: list[Check] = []
    for estimator in ESTIMATORS:
        state = estimator.ready()
        words = ["ready" if state.ready else f"not ready, {state.reason}", f"licence {estimator.licence}"]
        words += ["preview only"] if estimator.is_preview else []
        words += ["taken by --depth auto"] if estimator is taken else []
        text = f"{estimator.name}: {'; '.join(words)}"
        told.append(Check(name="depth", state="ok" if state.ready else "note", text=text, fix=state.fix))
    return told


def _depth_cache() -> Check:
    from ex4d.depth.cache import cache_folder

    folder = cache_folder()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return Check(name="depth cache", state="ok", text=f"{folder}, {len(sizes)} entries, {sum(sizes) / _GIB:.2f} GiB")


def _coding() -> Check:
    """Two frames through both encoders and the decoder's child process."""
    import numpy as np

    from ex4d.io.encode import LosslessWriter
    from ex4d.io.encode_delivery import DeliveryWriter

    started = time.monotonic()
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    times = np.array([0.0, 0.04])
    fps = Fraction(25)
    with tempfile.TemporaryDirectory(prefix="ex4d-doctor-") as folder:
        lossless, delivery = Path(folder) / "lossless.mkv", Path(folder) / "delivery.mp4"
        with LosslessWriter(lossless, "rgb", height=64, width=64, fps=fps) as writer:
            writer.write(frames, times)
        with DeliveryWriter(delivery, height=64, width=64, fps=fps) as writer:
            writer.write(frames, times)
        read = [_read(path) for path in (lossless, delivery)]
    seconds = time.monotonic() - started
    if not np.array_equal(read[0], frames) or read[1].shape != frames.shape:
        fix = "install PyAV from its wheels: pip install --force-reinstall --only-binary :all: av"
        return Check(name="encode, decode", state="fail", text="frames came back changed", fix=fix)
    return Check(name="encode, decode", state="ok", text=f"FFV1 and H.264, 2 frames in {seconds:.1f} s")


def _read(path: Path) -> "np.ndarray":
    import numpy as np

    from ex4d.io.video import VideoReader

    with VideoReader(path) as reader:
        return np.concatenate([chunk.frames for chunk in reader])


def _rendering() -> Check:
    """A 64×64 mesh seen from its own camera must give the frame back."""
    import numpy as np

    from ex4d.core.camera import Camera, pinhole
    from ex4d.mesh.watertight import build_mesh
    from ex4d.render.rasterizer import render_mesh

    started = time.monotonic()
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    depth = np.tile(np.linspace(1, 3, 64, dtype=np.float32), (64, 1))
    camera = Camera(K=pinhole(focal_px=60.0, height=64, width=64), world_to_camera=np.eye(4), height=64, width=64)
    view = render_mesh(build_mesh(frame, depth, np.ones((64, 64), np.bool_), camera), camera)
    seconds = time.monotonic() - started
    if not (view.observed.all() and np.array_equal(view.rgb, frame)):
        text = "the source view did not come back bit for bit"
        return Check(name="render", state="fail", text=text, fix=_STALE)
    return Check(name="render", state="ok", text=f"mesh and view of 64x64, bit for bit, in {seconds:.1f} s")
