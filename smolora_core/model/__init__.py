"""The base model and its adapter: loading, choosing what to adapt, attaching, merging, proving."""
