"""What `benches/llm.py` is made of: the model and its requests, raw decoding, choosing tokens, mixed lengths."""
