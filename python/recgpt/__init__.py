"""recgpt."""
