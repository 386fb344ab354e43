"""What was tried: searches, trials and every measurement, in SQLite or PostgreSQL."""

from storage.errors import (
    ClaimLostError,
    SearchBusyError,
    SearchExistsError,
    SearchNotFoundError,
    StorageAwayError,
    StorageError,
)
from storage.journal import Journal
from storage.lease import Claim
from storage.repository import Repository, default_url
from storage.state import State
from storage.trial import Device, Job, JobKind, Search, Spent, Trial, TrialState

__all__ = [
    "Claim",
    "ClaimLostError",
    "Device",
    "Job",
    "JobKind",
    "Journal",
    "Repository",
    "Search",
    "SearchBusyError",
    "SearchExistsError",
    "SearchNotFoundError",
    "Spent",
    "State",
    "StorageAwayError",
    "StorageError",
    "Trial",
    "TrialState",
    "default_url",
]
