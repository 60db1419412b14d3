"""What happens by itself: schedules, off until a person turns them on in the UI, and a sensor that only looks."""

import dagster as dg

from ti_pipeline.assets.study import observe
from ti_pipeline.study_files import readable_studies, study_folders

__all__ = ["SCHEDULES", "SENSORS"]

catalog_weekly = dg.ScheduleDefinition(
    name="catalog_weekly",
    job_name="catalog",
    cron_schedule="17 4 * * 1",
    description="Renew the tag catalog once a week.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def study_files(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Record what has changed in study files, so that the UI shows what is out of date; starts nothing."""
    paths = sorted(path for folder in study_folders() for path in folder.glob("*.yaml"))
    stamps = str([(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths])
    if stamps == context.cursor:
        return dg.SkipReason("no study file has changed")
    studies, faulty = readable_studies(study_folders())
    count = observe(context.instance, studies)
    context.update_cursor(stamps)
    left_out = f"; left out for faults: {', '.join(faulty)}" if faulty else ""
    return dg.SkipReason(f"{count} parts of study files have changed; reload for new studies and parts{left_out}")


SCHEDULES = (catalog_weekly,)
SENSORS = (study_files,)
