"""UViM on ImageNet: colour from a grey image, through codes of FSQ or VQ.

Reproduces: the colourisation rows of Table 2 of arXiv 2309.15505.
Published: FID-5k 16.90 (VQ), 17.55 (FSQ); stage I (true labels) 15.59 (big_vision's README).
Hardware: not given.

    python scripts/train.py --config=configs/uvim_colorization.py:stage=1,quantizer=fsq --workdir=runs/color_fsq_stage1
    python scripts/train.py --config=configs/uvim_colorization.py:stage=2,quantizer=fsq --workdir=runs/color_fsq \
        --config.stage1=runs/color_fsq_stage1 --config.model.encoder_init=FILE.npz

Argument: stage=1|2, quantizer=fsq|vq|vq_nosplit, context=true|false (does stage I see the image?),
scale=paper|cpu|smoke. `cpu` trains the same modules on embedded photographs. All but the stage must be those of the run
in `stage1`.
"""

from ml_collections import ConfigDict

from configs import _uvim


def get_config(arg: str = "") -> ConfigDict:
    a = _uvim.parse(arg)
    c = _uvim.base_config("uvim_colorization", a)
    c.task = ConfigDict({"name": "colorization"})
    c.data.source = "imagenet2012"
    # Published scores are of the validation split.
    c.data.splits = ConfigDict({"train": "train[4096:]", "validation": "validation", "test": "validation"})
    # FID-5k: paths of big_vision's coltran_fid_data/eval_file_names.txt and reference_file_names.txt. Empty: the whole
    # test split, against the training and the test split.
    c.eval.eval_names = ""
    c.eval.reference_names = ""
    c.eval.networks = ("inception",)
    c.eval.inception = ""  # path of pytorch-fid's pt_inception-2015-12-05-6726825d.pth, the network of FID
    c.eval.inception_resize = "adm"  # as the graph that published FIDs are of; or pytorch-fid, clean
    c.optimizer.learning_rate = 4e-4 if a.stage == 1 else 1e-3
    if a.stage == 1:
        c.batch_size = 1024
        c.steps = 124_713  # 100 epochs of 1,277,071
        c.optimizer.weight_decay = 4e-5
    else:
        c.batch_size = 512
        c.steps = 124_713  # 50 epochs
        c.optimizer.weight_decay = 1e-6
        # Published: 1.0 in the colour notebook; the evaluator's config leaves the trainer's default of 1e-7, and which
        # of the two gave the published FID is not stated.
        c.sampler.temperature = 1.0

    if a.scale != "paper":
        _uvim.scale_down(c, a, stage2_steps=3000)
        c.data.source = "photos"
        c.data.splits = ConfigDict({"train": "", "validation": "", "test": ""})
        c.eval.networks = ("alexnet",)
    if a.scale == "smoke":
        _uvim.smoke(c, a)
    return c
