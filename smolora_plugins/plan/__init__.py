"""The command `smolora plan`: the memory that a run would take, without its weights."""
