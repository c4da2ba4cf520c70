"""SmoLoRA's own components: plugins like any other, found through the entry points of our distribution."""
