"""Grades stored answers to MT-Bench and Vicuna (Table 4) with a language model behind any
OpenAI-compatible server."""
