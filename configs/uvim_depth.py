"""UViM on NYU Depth v2: depth from an image, through codes of FSQ or VQ.

Reproduces: the depth rows of Table 2 and Fig. 6 of arXiv 2309.15505.
Published: RMSE 0.468 (VQ), 0.473 (FSQ), 0.490 (VQ without splitting); stage I (true labels) 0.155 (big_vision).
Hardware: not given; UViM's panoptic model took 1,900 (stage I) and 900 (stage II) TPU-v3 hours.

    python scripts/train.py --config=configs/uvim_depth.py:stage=1,quantizer=fsq --workdir=runs/depth_fsq_stage1
    python scripts/train.py --config=configs/uvim_depth.py:stage=2,quantizer=fsq --workdir=runs/depth_fsq \
        --config.stage1=runs/depth_fsq_stage1 --config.model.encoder_init=FILE.npz

Argument: stage=1|2, quantizer=fsq|vq|vq_nosplit, context=true|false (does stage I see the image?),
scale=paper|cpu|smoke. `cpu` trains the same modules on embedded ray-cast rooms. All but the stage must be those of the
run in `stage1`.
"""

from ml_collections import ConfigDict

from configs import _uvim


def get_config(arg: str = "") -> ConfigDict:
    a = _uvim.parse(arg)
    c = _uvim.base_config("uvim_depth", a)
    c.task = ConfigDict({"name": "depth", "bins": 256})
    c.data.source = "nyu_depth_v2"
    # Published scores are of the validation split.
    c.data.splits = ConfigDict({"train": "train", "validation": "validation", "test": "validation"})
    # big_vision's code starts at row 54, its comment and the crop of Eigen et al. ("eigen") at row 45.
    c.data.crop = "uvim"
    c.optimizer.learning_rate = 1e-3
    if a.stage == 1:
        c.batch_size = 1024
        c.steps = 9_293  # 200 epochs of 47,584
        c.optimizer.weight_decay = 1e-5
    else:
        c.batch_size = 512
        c.steps = 4_646  # 50 epochs
        c.optimizer.weight_decay = 1e-6

    if a.scale != "paper":
        _uvim.scale_down(c, a, stage2_steps=5000)
        c.data.source = "scenes"
        c.data.splits = ConfigDict({"train": "", "validation": "", "test": ""})
        c.data.crop = "none"
        c.task.bins = 32
    if a.scale == "smoke":
        _uvim.smoke(c, a)
    return c
