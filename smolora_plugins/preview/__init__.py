"""The command `smolora data preview`: rows as the model will see them, tokens and labels."""
