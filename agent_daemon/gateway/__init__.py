"""The OpenAI-compatible face of a device."""
