"""What the three UViM experiments share: networks, optimiser, small scales (big_vision configs/proj/uvim)."""

from types import SimpleNamespace

from ml_collections import ConfigDict

from fsq_repro.quantizers import suggest_levels
from fsq_repro.runtime.arguments import parse_arg

BITS = 12


def parse(arg: str) -> SimpleNamespace:
    return parse_arg(
        arg,
        stage=(1, 2),
        quantizer=("fsq", "vq", "vq_nosplit"),
        context=(True, False),
        scale=("paper", "cpu", "smoke"),
    )


def base_config(experiment: str, a: SimpleNamespace) -> ConfigDict:
    """Everything but task, data and length of training."""
    c = ConfigDict()
    c.experiment = experiment
    c.trainer = f"uvim_stage{a.stage}"
    c.scale = a.scale
    c.target_bits = BITS
    c.seed = 0
    c.context = a.context  # of stage I's encoder and decoder; stage II always sees the image
    c.quantizer = quantizer(a.quantizer, a.scale)
    c.model = stage1_model() if a.stage == 1 else stage2_model()

    c.optimizer = ConfigDict()  # big_vision's Adafactor
    c.optimizer.warmup_steps = 4000
    c.optimizer.gradient_clip = 1.0 if a.stage == 1 else 0.0
    c.optimizer.multipliers = ()
    if a.stage == 2:
        c.stage1 = ""  # stage I's run directory
        c.sampler = ConfigDict({"temperature": 0.0})  # 0: the likeliest code (published: 1e-7)
        c.optimizer.multipliers = (("pos_embedding_encoder.*", 0.1), ("EmbedPatches.*", 0.1), ("encoder.*", 0.1))

    c.data = ConfigDict()
    c.data.resolution = 512
    c.data.crop = "none"  # part of an image that is evaluated, see data/dense_sources.NYU_EVAL_CROPS
    c.data.flip = True
    c.data.min_scale = 0.05  # of the Inception crop
    c.data.aspect = (0.75, 1.33)
    c.data.num_workers = 16

    c.eval = ConfigDict()
    c.eval.batch_size = 64
    c.eval.batches = 16  # of the check during training
    c.eval.baseline_images = 8000  # of the training set, for the baselines that see no image

    c.mesh = ConfigDict({"fsdp": 1})
    c.accumulate_steps = 1  # microbatches of a step, where activations do not fit: trainers/accumulation.py
    c.log_every = 50
    c.eval_every = 1000
    c.checkpoint_every = 1000
    return c


def quantizer(name: str, scale: str) -> ConfigDict:
    if name == "fsq":
        # The paper does not say whether UViM's standardisation stays in front of FSQ's bound. It is part of VQ here:
        # with it no more than 1,572 of the 4,375 codes (36%) could ever be used, and the paper reports 99%.
        return ConfigDict({"name": "fsq", "levels": suggest_levels(2**BITS), "bound": "paper"})
    return ConfigDict(
        {
            "name": "ema_vq",
            "codebook_size": 2**BITS,
            "embedding_dim": 768 if scale == "paper" else 64,
            # An unused code's count falls from 1 to 0.1, and the code is replaced, in 460 steps with 0.995, of some
            # 10,000 to 100,000; in 22 steps with 0.9. With 0.98 VQ had used 0.6% of its codes after 250 of 800 steps.
            "momentum": 0.995 if scale == "paper" else 0.9,
            "commitment_cost": 0.0,
            "splitting": name == "vq",
        }
    )


def stage1_model() -> ConfigDict:
    m = ConfigDict()
    m.patch_size = 16
    m.code_grid = 16  # 256 codes
    m.width = 768
    m.encoder_depth = 6
    m.decoder_depth = 12
    m.num_heads = 12
    m.mlp_width = 3072
    m.code_dropout = True
    m.remat = False
    m.dtype = "float32"
    return m


def stage2_model() -> ConfigDict:
    m = ConfigDict()
    m.patch_size = 16
    m.width = 1024  # encoder and decoder alike, as the config; the UViM paper has a smaller decoder
    m.num_layers = 24
    m.num_heads = 16
    m.mlp_width = 4096
    # Initial embeddings: 1 an entry for tokens (Linen's nn.Embed in big_vision's uvim/vtt.py drew from a normal of
    # deviation 1), 1 / sqrt(width) for positions, which tokens therefore outweigh by sqrt(width) at first.
    m.token_std = 1.0
    m.position_scale = 1.0  # times 1 / sqrt(width)
    # Path of AugReg's L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0.npz; "" starts from nothing.
    m.encoder_init = ""
    m.remat = False
    m.dtype = "float32"
    return m


def scale_down(c: ConfigDict, a: SimpleNamespace, stage2_steps: int) -> None:
    """The same modules at width 96 on 32 px and 16 codes, in minutes on one core; what was tried: results/README.md."""
    c.model.width = 96
    c.model.num_heads = 4
    c.model.mlp_width = 384
    if a.stage == 1:
        c.steps = 1300
        c.batch_size = 16
        c.model.patch_size = 4  # twice as many patches a side as codes, as published
        c.model.code_grid = 4
        c.model.encoder_depth = 2
        c.model.decoder_depth = 3
    else:
        c.steps = stage2_steps
        c.batch_size = 16
        c.model.patch_size = 8
        c.model.num_layers = 3
        # With the published deviations the short runs hardly learn which patch a code belongs to: results/README.md.
        c.model.token_std = 0.1
        c.model.position_scale = 5.0
        c.optimizer.multipliers = ()  # there is no trained encoder to spare
    c.optimizer.learning_rate = 1e-3 if a.stage == 1 else 2e-3  # 2e-3 in stage I saturates FSQ
    c.optimizer.warmup_steps = 50  # heads start at 0, and so does the rate
    c.data.resolution = 32
    c.data.min_scale, c.data.aspect = 1.0, (1.0, 1.0)  # whole images: there are too few steps to learn crops too
    c.data.num_workers = 0
    c.eval.batches = 4
    c.log_every = 100
    c.eval_every = 400
    c.checkpoint_every = 400


def smoke(c: ConfigDict, a: SimpleNamespace) -> None:
    """Seconds: 16 px, 16 patches, 4 codes."""
    c.steps = 30
    c.batch_size = 8
    c.data.resolution = 16
    c.model.patch_size = 4
    c.eval.batches = 2
    c.model.width = 32
    c.model.mlp_width = 64
    if a.stage == 1:
        c.model.code_grid = 2
        c.model.encoder_depth = 1
        c.model.decoder_depth = 1
    else:
        c.model.num_layers = 1
    c.optimizer.warmup_steps = 5
    c.eval.baseline_images = 200
    c.log_every = 10
    c.eval_every = 15
    c.checkpoint_every = 15
