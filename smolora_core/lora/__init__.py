"""The adapter: which modules it adapts, attaching it, merging it, proving what was saved."""
