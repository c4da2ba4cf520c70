"""Write conversations with chat templates, tokenise them and label the answers."""
