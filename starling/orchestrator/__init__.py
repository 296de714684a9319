"""Decides: spec, plan, controller, report. Never imports torch."""
