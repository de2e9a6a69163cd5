"""The tasks by name: `config.task.name` chooses."""

from fsq_repro.tasks.base import Task
from fsq_repro.tasks.colorization import ColorizationTask
from fsq_repro.tasks.depth import DepthTask
from fsq_repro.tasks.panoptic import PanopticTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (DepthTask, ColorizationTask, PanopticTask)}
