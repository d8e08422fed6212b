"""Grading of answers to MT-Bench and Vicuna (Table 4) by any OpenAI-compatible server."""
