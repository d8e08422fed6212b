"""Conversations in the chat format of a tokenizer."""

from __future__ import annotations

from typing import Any

from experiments.errors import ConfigError


def fill_template(processor: Any, messages: list[dict[str, str]]) -> str:
    """Return a conversation in the tokenizer's chat format, up to where the answer begins.

    Args:
        processor: the tokenizer.
        messages: role and content of each message.

    Raises:
        ConfigError: the tokenizer has no chat template, or it cannot be filled in.
    """
    try:
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of its own and raises what it likes
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"task.chat_template=true: the model's tokenizer refuses ({line})"
        ) from error
    # Some tokenizers begin every text with a token that their template has written already.
    first = processor.bos_token
    added = first is not None and processor("", verbose=False)["input_ids"][:1]
    return text.removeprefix(first) if added == [processor.bos_token_id] else text
