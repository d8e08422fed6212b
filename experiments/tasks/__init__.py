"""Tasks: data, the head they need, and how predictions are scored."""

from experiments.models.head import Head
from experiments.tasks.completions import Completions
from experiments.tasks.dreambooth import DreamBooth
from experiments.tasks.e2e import E2E
from experiments.tasks.glue import Glue
from experiments.tasks.images import Images
from experiments.tasks.instruction import Instruction
from experiments.tasks.pictures import Pictures
from experiments.tasks.task import Data, NoTask, OutputScores, Task
from experiments.tasks.text import Text
from experiments.tasks.toy import Toy

TASKS = (NoTask, Toy, Glue, Text, E2E, Completions, Images, Pictures, Instruction, DreamBooth)

__all__ = [
    "E2E",
    "TASKS",
    "Completions",
    "Data",
    "DreamBooth",
    "Glue",
    "Head",
    "Images",
    "Instruction",
    "NoTask",
    "OutputScores",
    "Pictures",
    "Task",
    "Text",
    "Toy",
]
