"""A server of one base model with many adapters, in OpenAI's protocol."""
