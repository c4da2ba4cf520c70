"""The bundled demo: a base model small enough to ship, the grammar it was pretrained on, and a fine-tuning task.

`grammar` generates the pretraining text, `pretrain` trains `base/` on it, and `task` generates the rows of the fine-tuning
task. Everything works offline, and importing this package imports nothing heavy.
"""

__all__: list[str] = []
