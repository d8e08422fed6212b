"""Contests of settings: equally many trials each, the best chosen on rows that are not scored."""
