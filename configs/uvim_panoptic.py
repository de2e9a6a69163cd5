"""UViM on COCO: panoptic segmentation, through codes of FSQ or VQ.

Reproduces: the panoptic rows of Table 2 of arXiv 2309.15505.
Published: PQ 43.4 (VQ), 43.2 (FSQ), without context 39.0 (VQ), 40.2 (FSQ); stage I (true labels) 75.8 (big_vision).
Hardware: 1,900 (stage I) and 900 (stage II) TPU-v3 hours (UViM paper).

    python scripts/train.py --config=configs/uvim_panoptic.py:stage=1,quantizer=fsq --workdir=runs/panoptic_fsq_stage1
    python scripts/train.py --config=configs/uvim_panoptic.py:stage=2,quantizer=fsq --workdir=runs/panoptic_fsq \
        --config.stage1=runs/panoptic_fsq_stage1 --config.model.encoder_init=FILE.npz

Argument: stage=1|2, quantizer=fsq|vq|vq_nosplit, context=true|false (does stage I see the image?),
scale=paper|cpu|smoke. `cpu` trains the same modules on embedded ray-cast rooms. All but the stage must be those of the
run in `stage1`.
"""

from ml_collections import ConfigDict

from configs import _uvim


def get_config(arg: str = "") -> ConfigDict:
    a = _uvim.parse(arg)
    c = _uvim.base_config("uvim_panoptic", a)
    # With void: 133 classes; at most 98 segments in COCO's training images. Published scores drop no small segment.
    c.task = ConfigDict({"name": "panoptic", "num_classes": 134, "num_instances": 100, "min_fraction": 0.0})
    c.data.source = "coco/2017_panoptic"
    # big_vision tunes on train[:4096] and reports both that and the validation split.
    c.data.splits = ConfigDict({"train": "train[4096:]", "validation": "validation", "test": "validation"})
    c.optimizer.learning_rate = 4e-4 if a.stage == 1 else 1e-3
    if a.stage == 1:
        c.batch_size = 1024
        c.steps = 111_514  # 1000 epochs of 114,191
        c.optimizer.weight_decay = 4e-5
    else:
        c.batch_size = 512
        c.steps = 44_605  # 200 epochs
        c.optimizer.weight_decay = 1e-6

    if a.scale != "paper":
        _uvim.scale_down(c, a, stage2_steps=10_000)
        c.data.source = "scenes"
        c.data.splits = ConfigDict({"train": "", "validation": "", "test": ""})
        c.task.num_classes = 8
        c.task.num_instances = 8  # rooms have up to 7 segments: floor, walls, ceiling, 4 solids
    if a.scale == "smoke":
        _uvim.smoke(c, a)
    return c
