"""Metrics: of classes and numbers, of texts, of images; choice of an epoch."""
