"""Commands on finished runs and data, one module each."""
