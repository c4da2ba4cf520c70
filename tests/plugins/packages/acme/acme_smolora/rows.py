"""What happens to rows."""

from smolora_core import Drop


def no_shouting(row):
    return Drop("shouted") if row["text"].isupper() else row
