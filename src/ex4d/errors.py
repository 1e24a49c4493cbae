"""Every error ex4d raises on purpose, in one tree.

::

    Ex4dError                      base; the CLI prints it without a traceback, exit code 2
    ├── InputError                 a file, folder or value the user gave is not usable
    │   ├── MediaError             a video or image that cannot be decoded within the limits
    │   ├── DepthError             depth of the wrong size, count or content
    │   └── DatasetError           a dataset that is broken, unfinished, or made with other settings
    ├── CameraPathError            an unknown preset, a bad camera file, a path that cannot be built
    ├── ConfigError                a configuration field out of range (names its dotted path)
    ├── OutputError                the output cannot be written, or would overwrite something
    ├── MissingDependencyError     an optional package is not installed (quotes the pip line)
    ├── WeightsError               model weights missing, partial, or of the wrong kind
    └── OutOfMemoryError           no plan fits into the memory there is

A message says what was expected, what was found and what to do about it.
"""


class Ex4dError(Exception):
    """Base of all expected failures: ``expected``, ``got`` and ``fix`` make up the message.

    Args:
        expected: what would have been right.
        got: what was found instead.
        fix: what the user can do; may be empty where nothing can be advised.
    """

    def __init__(self, expected: str, got: str = "", fix: str = "") -> None:
        self.expected = expected
        self.got = got
        self.fix = fix
        parts = [f"expected {expected}" if got else expected]
        if got:
            parts.append(f"got {got}")
        if fix:
            parts.append(f"to fix: {fix}")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[type["Ex4dError"], tuple[str, ...]]:
        return type(self), (self.expected, self.got, self.fix)


class InputError(Ex4dError):
    """A file, folder or value the user gave is not usable."""


class MediaError(InputError):
    """A video or image that cannot be decoded within the limits."""


class DepthError(InputError):
    """Depth of the wrong size, count or content."""


class DatasetError(InputError):
    """A dataset that is broken, unfinished, or made with other settings."""


class CameraPathError(Ex4dError):
    """An unknown preset, a bad camera file, or a path that cannot be built."""


class ConfigError(Ex4dError):
    """A configuration field out of range; the message names its dotted path."""


class OutputError(Ex4dError):
    """The output cannot be written, or would overwrite something."""


class MissingDependencyError(Ex4dError):
    """An optional package is not installed; the message quotes the line that installs it.

    Args:
        package: its importable name.
        extra: of ours that brings it; "" with `install`.
        purpose: half a sentence, what it is needed for.
        install: the command, for packages that are in no extra of ours.
    """

    def __init__(self, package: str, extra: str, purpose: str, install: str = "") -> None:
        self.package, self.extra, self.purpose, self.install = package, extra, purpose, install
        super().__init__(
            f"the package {package!r} for {purpose}",
            "it is not installed",
            install or f"pip install 'ex4d[{extra}]'",
        )

    def __reduce__(self) -> tuple[type["Ex4dError"], tuple[str, ...]]:
        return type(self), (self.package, self.extra, self.purpose, self.install)


class WeightsError(Ex4dError):
    """Model weights missing, partial, or of the wrong kind."""


class OutOfMemoryError(Ex4dError):
    """No plan fits into the memory there is."""
