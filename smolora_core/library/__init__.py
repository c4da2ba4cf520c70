"""SmoLoRA from Python."""
