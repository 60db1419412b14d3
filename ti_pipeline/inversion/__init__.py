"""Textual inversion: base models, prompts with embeddings in them, training, and embedding files."""
