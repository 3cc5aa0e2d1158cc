"""From files and chats to samples, and from samples to token sequences."""
