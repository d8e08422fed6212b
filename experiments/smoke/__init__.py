"""The whole paper in small: every table and figure end to end, without weights, hub or GPU."""
