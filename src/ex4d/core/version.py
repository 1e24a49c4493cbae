"""The version of this package, as installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ex4d")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
