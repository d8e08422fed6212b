"""Exported folders on the hub."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import UserError


def check_repository(repo: str) -> None:
    """Refuse a name that the hub does not take, before anything is written.

    Raises:
        UserError: not OWNER/NAME, or the hub is not to be asked.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    problems = []
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        problems.append(str(error).splitlines()[0])
    if "/" not in repo:
        problems.append("expected OWNER/NAME, your name on the hub or that of an organisation")
    if constants.HF_HUB_OFFLINE:
        problems.append("HF_HUB_OFFLINE is set, so that nothing can be uploaded")
    if problems:
        raise UserError(f"--push-to-hub {repo}: nothing exported", problems)


def push_to_hub(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder to a model repository of the hub, made if there is none; return its address.

    Raises:
        UserError: the hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload by fourierft")
    except Exception as error:  # the HTTP client's among them, which is another one by version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        status = getattr(getattr(error, "response", None), "status_code", None)
        unknown = status in (401, 403) or isinstance(error, LocalTokenNotFoundError)
        again = f"hf upload {repo} {folder}" + " --private" * private
        raise UserError(
            f"--push-to-hub {repo}: {reason}",
            [
                f"written all the same: {folder}",
                *["log in with a token that may write: hf auth login"] * unknown,
                f"upload it without exporting again: {again}",
            ],
        ) from error
    return str(address)
