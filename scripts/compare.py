"""Predictions of several UViM runs of one task side by side, one picture: sharp or jagged edges are seen, not counted.

python scripts/compare.py --runs=runs/depth_fsq,runs/depth_vq,runs/depth_vq_nosplit --out=edges.png   # Fig. 6

Columns: the image, the ground truth, each run's prediction from the image, and what each run's stage I makes of the
true labels. Images are chosen from the test split of the first run by a permutation.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from fsq_repro.data.choice import some_items
from fsq_repro.data.images import to_unit_float
from fsq_repro.data.transforms import Item, plain_resize
from fsq_repro.errors import UserError, explained
from fsq_repro.factories import common
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.inference.label_predictor import LabelPredictor, load_label_predictor
from fsq_repro.quantizers import quantizer_label
from fsq_repro.reporting.groups import display_quantizer
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_file
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.tasks.base import Maps
from fsq_repro.visualization.grids import save_png

flags.DEFINE_list("runs", None, "Run directories of UViM's stage II, all of one task.", required=True)
define_output_file("out", "PNG.", required=True)
flags.DEFINE_integer("images", 6, "Rows.", lower_bound=1)
FLAGS = flags.FLAGS


def main() -> None:
    runs = [RunDir(run) for run in FLAGS.runs]
    startup.start(common.batch_sizes(*(run.config for run in runs)))
    predictors = [load_label_predictor(run) for run in runs]
    configs, tasks = [run.config for run in runs], {predictor.task.name for predictor in predictors}
    if len(tasks) > 1:
        raise UserError(f"--runs has runs of the tasks {', '.join(sorted(tasks))}; give runs of one task")
    titles = [title(c) for c in configs]
    if len(set(titles)) < len(titles):
        raise UserError("--runs has two runs of one quantizer and context; give one of each")
    with explained():
        side = predictors[0].trainer.model.image_size
        test = label_autoencoder_factory.build_source(configs[0], "test")
        items = [plain_resize(item, side) for item in some_items(test, FLAGS.images)]
        images = [item["image"] for item in items]
        named = list(zip(titles, predictors, strict=True))
        columns = {name: list(p.predict(images)) for name, p in named}
        columns |= {f"{name}, true labels": from_true_labels(p, items) for name, p in named}
        picture = predictors[0].task.rows(items, columns)
    save_png(pathlib.Path(FLAGS.out), picture)
    print(FLAGS.out)


def from_true_labels(predictor: LabelPredictor, items: Sequence[Item]) -> list[Maps]:
    """What the run's stage I makes of the true labels of items (H, W), the model's size: maps as of `predict`."""
    batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
    batch["image"] = to_unit_float(batch["image"])
    maps, _ = predictor.trainer.coder.reconstruct(predictor.task.prepare(batch))
    maps = {name: np.asarray(x) for name, x in maps.items()}
    size = items[0]["image"].shape[:2]
    return [predictor.task.resized({name: x[i] for name, x in maps.items()}, size) for i in range(len(items))]


def title(config) -> str:
    quantizer = display_quantizer(quantizer_label(**config.quantizer))
    return quantizer if config.context else f"{quantizer}, no context"


if __name__ == "__main__":
    cli.run(main)
