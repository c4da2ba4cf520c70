"""Recognise the shape of rows, and read them as examples."""

from smolora_core.data.formats.detect import FORMATS, detect_shape, label_kind, peek_shape
from smolora_core.data.formats.shapes import Example, Shape

__all__ = ["FORMATS", "Example", "Shape", "detect_shape", "label_kind", "peek_shape"]
