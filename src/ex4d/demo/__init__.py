"""The demo: a procedural scene filmed as a clip, the chain run on it, and its figures against the truth."""
