"""Camera files: ours, npz, COLMAP, nerfstudio, Blender; `files` chooses by name and content."""
