"""Tasks: data, the head they need, and how predictions are scored."""

from experiments.tasks.dreambooth import DreamBooth
from experiments.tasks.glue import Glue
from experiments.tasks.task import Data, Head, Measured, NoTask, Task
from experiments.tasks.toy import Toy

TASKS = (NoTask, Toy, Glue, DreamBooth)

__all__ = ["TASKS", "Data", "DreamBooth", "Glue", "Head", "Measured", "NoTask", "Task", "Toy"]
