"""The base model: its header, layer roles, loading, device and number format, output head and quantised weights."""
