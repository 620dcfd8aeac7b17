"""`report.html`: one page that says which config to train, why it works and how sure that is."""

from __future__ import annotations

from analysis.report.commands import Commands
from analysis.report.page import write_report

__all__ = ["Commands", "write_report"]
