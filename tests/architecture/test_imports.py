"""`import ex4d` is light, public names resolve, and modules only import downwards."""

import subprocess
import sys

import ex4d

HEAVY = ("torch", "numba", "cv2", "av", "trimesh", "PIL")


def _loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert _loaded_after("import ex4d") == set()


def test_nouns_are_light() -> None:
    assert _loaded_after("from ex4d import Camera, CameraPath, Video, DepthVideo, DepthMesh") == set()


def test_the_check_itself_notices() -> None:
    assert "cv2" in _loaded_after("import cv2")


def test_every_public_name_resolves() -> None:
    for name in ex4d.__all__:
        assert getattr(ex4d, name) is not None
    assert set(ex4d.__all__) <= set(dir(ex4d))


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(ex4d, "no_such_name")
