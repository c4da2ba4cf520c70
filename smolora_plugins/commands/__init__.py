"""Commands that come with SmoLoRA as plugins; each is an entry point in the group `smolora.commands`."""
