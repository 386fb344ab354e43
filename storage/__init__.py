"""What was tried: searches, trials and every measurement, in SQLite or PostgreSQL."""

from storage.errors import (
    ClaimLostError,
    SearchBusyError,
    SearchExistsError,
    SearchNotFoundError,
    StorageAwayError,
    StorageError,
)
from storage.lease import Claim
from storage.repository import Repository, default_url
from storage.trial import Search, Spent, Trial, TrialState

__all__ = [
    "Claim",
    "ClaimLostError",
    "Repository",
    "Search",
    "SearchBusyError",
    "SearchExistsError",
    "SearchNotFoundError",
    "Spent",
    "StorageAwayError",
    "StorageError",
    "Trial",
    "TrialState",
    "default_url",
]
