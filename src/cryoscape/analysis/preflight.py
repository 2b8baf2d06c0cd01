"""The pre-flight check, beside the other analyses; it lives in `cryoscape.preflight`, below training."""

from __future__ import annotations

from cryoscape.preflight.check import preflight
from cryoscape.preflight.report import PreflightReport

__all__ = ["PreflightReport", "preflight"]
