"""Training: its configuration, trainer, optimizer, data order and memory."""
