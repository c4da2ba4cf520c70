"""The bundled demo: a base model small enough to ship, the grammar it was pretrained on, and the task it is tuned for.

`grammar` writes the pretraining text, `pretrain` turns it into `base/`, and `task` holds the rows of the fine-tuning
task. Nothing here needs a network, and importing this package imports nothing heavy.
"""

__all__: list[str] = []
