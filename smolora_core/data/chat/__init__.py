"""From conversations to tokens: chat templates, and which stretches of what they write are trained."""
