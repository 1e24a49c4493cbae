"""Depth files: arrays, 16-bit images, EXR, gray16 video; `files.open_depth` is the way in."""
