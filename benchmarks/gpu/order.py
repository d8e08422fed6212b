"""Order of the sections, what matters most first, and their minutes on a GPU."""

from benchmarks.gpu.correctness import measure_correctness
from benchmarks.gpu.layers import measure_layers
from benchmarks.gpu.mixed_batches import measure_mixed_batches
from benchmarks.gpu.models import measure_models
from benchmarks.gpu.roofline import measure_ceilings
from benchmarks.gpu.sections import Section
from benchmarks.gpu.training import measure_training

SECTIONS = {
    "correctness": Section(measure_correctness, 1.0),
    "ceilings": Section(measure_ceilings, 0.3),
    "layers": Section(measure_layers, 1.4),
    "models": Section(measure_models, 2.0),
    "mixed": Section(measure_mixed_batches, 0.4),
    "training": Section(measure_training, 2.9),
}
