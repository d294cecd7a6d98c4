"""The groups `settings`, `radar`, `terminal` and `identity`: how the account is set up, and what few
accounts use.
"""

from __future__ import annotations

from .model import Expandable, Resource, event_types

SETTINGS: tuple[Resource, ...] = (
    Resource(
        table="report_runs",
        object="reporting.report_run",
        group="settings",
        path="/v1/reporting/report_runs",
        permission="rak_report_runs_and_report_types_read",
        permission_guessed=True,
        label="Reporting > Report Runs and Report Types",
        events=event_types("reporting.report_run", "succeeded failed"),  # none says that one began
    ),
    Resource(
        table="files",
        object="file",
        group="settings",
        permission="rak_file_read",
        permission_guessed=True,
        label="Core > Files",
        events=event_types("file", "created"),
        created_by=("file.created",),
        bearer_links=("url",),
        excluded=("links",),
    ),
    Resource(
        table="verification_sessions",
        object="identity.verification_session",
        group="identity",
        path="/v1/identity/verification_sessions",
        permission="rak_identity_verification_session_read",
        permission_guessed=True,
        label="Identity > Verification Sessions and Reports",
        events=event_types(
            "identity.verification_session",
            "created processing requires_input verified canceled redacted",
        ),
        created_by=("identity.verification_session.created",),
        excluded=("client_secret", "url"),
        expandable=(Expandable("verified_outputs"),),
    ),
)
"""Settings, files and reports; then Radar, Terminal and Identity."""
