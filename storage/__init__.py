"""What was tried: searches, trials and every measurement, in SQLite or PostgreSQL."""

from storage.repository import (
    Repository,
    SearchBusyError,
    SearchExistsError,
    SearchNotFoundError,
    StorageError,
    default_url,
)
from storage.trial import Search, Spent, Trial, TrialState

__all__ = [
    "Repository",
    "Search",
    "SearchBusyError",
    "SearchExistsError",
    "SearchNotFoundError",
    "Spent",
    "StorageError",
    "Trial",
    "TrialState",
    "default_url",
]
