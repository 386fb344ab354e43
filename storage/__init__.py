"""What was tried: searches, trials and every measurement, in SQLite or PostgreSQL."""

from storage.repository import (
    Repository,
    SearchBusyError,
    SearchExistsError,
    SearchNotFoundError,
    StorageError,
    default_url,
)
from storage.state import State
from storage.trial import Device, Job, JobKind, Search, Spent, Trial, TrialState

__all__ = [
    "Device",
    "Job",
    "JobKind",
    "Repository",
    "Search",
    "SearchBusyError",
    "SearchExistsError",
    "SearchNotFoundError",
    "Spent",
    "State",
    "StorageError",
    "Trial",
    "TrialState",
    "default_url",
]
