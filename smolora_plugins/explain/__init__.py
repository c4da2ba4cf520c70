"""The command `smolora targets`: which modules of a model are adapted, and why."""
