"""Grading of answers to MT-Bench and Vicuna (Table 4) by a language model on any OpenAI-compatible
server."""
