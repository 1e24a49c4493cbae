"""Procedural scenes with exact colour, depth, motion and visibility from any camera.

Knows nothing of the chain: tests, the demo, evaluation and training use it as a source of truth.

- `generate.make_scene`: a seeded room or outdoor place.
- `render.render_scene`: what a camera sees of it at a time.
- `clip.scene_clip`: the same as a clip with a depth track and cameras.
- `truth.view_truth`: what of a target view a source camera can know.
"""
