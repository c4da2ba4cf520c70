"""From rows to examples: which columns hold what is trained, and what of a row is prompt."""

from smolora_core.data.formats.detect import FORMATS, detect_shape, label_kind, peek_shape
from smolora_core.data.formats.shapes import Example, Shape

__all__ = ["FORMATS", "Example", "Shape", "detect_shape", "label_kind", "peek_shape"]
