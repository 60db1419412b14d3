"""Schedules: off until a person turns them on in the UI."""

import dagster as dg

__all__ = ["SCHEDULES"]

catalog_weekly = dg.ScheduleDefinition(
    name="catalog_weekly",
    job_name="catalog",
    cron_schedule="17 4 * * 1",
    description="Renew the tag catalog once a week.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

SCHEDULES = (catalog_weekly,)
