"""Tasks: data, the head they need, and how predictions are scored."""

from experiments.tasks.glue import Glue
from experiments.tasks.instruction import Instruction
from experiments.tasks.task import Data, Head, Measured, NoTask, Task
from experiments.tasks.toy import Toy

TASKS = (NoTask, Toy, Glue, Instruction)

__all__ = ["TASKS", "Data", "Glue", "Head", "Instruction", "Measured", "NoTask", "Task", "Toy"]
