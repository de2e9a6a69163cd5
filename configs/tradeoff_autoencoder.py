"""Stage I of the trade-off study: autoencoders on ImageNet 128 with FSQ or VQ at matched codebook sizes.

Reproduces: Fig. 3a (reconstruction FID) and 3c (codebook usage), and stage I of Fig. 10, of arXiv 2309.15505.
Published: figures only, no table; FSQ improves up to 2^16 codes, VQ gets worse beyond 2^11 (section 4.2).
Hardware: the paper gives none. One point is 500k steps of batch 256 at 128 px.

    python scripts/train.py --config=configs/tradeoff_autoencoder.py:quantizer=fsq,bits=10 --workdir=runs/fsq_10

Argument: quantizer=fsq|vq|ema_vq, a name in VARIANTS below, or any other kind in fsq_repro/quantizers/registry.py with
the settings that it suggests (lfq, bsq, l2_vq, ...); bits=4|6|8|9|10|11|12|14|16 (log2 of the codebook size to match);
scale=paper|cifar10|cpu|smoke. `cifar10` and `cpu` train the same modules in minutes on two cores, on CIFAR-10 and on
embedded photographs, by one recipe.
"""

from ml_collections import ConfigDict

from fsq_repro.quantizers import QUANTIZERS as KINDS
from fsq_repro.quantizers import suggest, suggest_levels
from fsq_repro.runtime.arguments import parse_arg

BITS = (10, 4, 6, 8, 9, 11, 12, 14, 16)

# Of one kind with some of its fields set otherwise.
VARIANTS = {
    "vq_no_entropy": ("vq", {"entropy_ratio": 0.0}),
    # The best of VQ's trials on CIFAR-10: results/search.
    "vq_narrow": ("vq", {"embedding_dim": 8, "entropy_ratio": 0.001, "entropy_temperature": 1.0}),
    "fsq_symmetric": ("fsq", {"bound": "symmetric"}),
    "fsq_noise": ("fsq", {"bound": "symmetric", "noise": True}),
}
QUANTIZERS = (*KINDS, *VARIANTS)
SCALES = ("paper", "cifar10", "cpu", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    a = parse_arg(arg, quantizer=QUANTIZERS, bits=BITS, scale=SCALES)
    c = ConfigDict()
    c.experiment = "tradeoff_autoencoder"
    c.trainer = "autoencoder"
    c.scale = a.scale
    c.target_bits = a.bits
    c.seed = 42  # maskgit/configs/base_config.py
    c.steps = 500_000  # "100 epochs" of ImageNet at batch 256, A.4.1
    c.batch_size = 256
    c.quantizer = quantizer(a.quantizer, a.bits)

    c.model = ConfigDict()  # maskgit/configs/vqgan_config.py
    c.model.filters = 128
    c.model.channel_multipliers = (1, 1, 2, 2, 4)
    c.model.num_res_blocks = 2
    c.model.stem_patch = 1
    c.model.faithful_shortcut = True
    c.model.dtype = "float32"

    c.discriminator = ConfigDict({"channel_multiplier": 1.0})

    c.loss = ConfigDict()
    c.loss.l2 = 1.0
    c.loss.perceptual = 0.1
    # MaskGIT's is ImageNet ResNet-50 ("resnet50" with perceptual_path); its weights are not public in this form.
    c.loss.perceptual_network = "lpips_vgg16"
    c.loss.perceptual_path = ""
    c.loss.gan = 0.1
    c.loss.r1 = 10.0

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 1e-4  # generator and discriminator
    c.optimizer.beta1 = 0.0
    c.optimizer.beta2 = 0.99
    c.optimizer.schedule = "constant"  # or "cosine", to 0
    c.optimizer.warmup_steps = 0
    c.ema_decay = 0.999

    c.data = ConfigDict()
    c.data.source = "imagenet2012"
    c.data.resolution = 128
    c.data.flip = True
    # Not stated by the paper; MaskGIT's tokenizer was trained with "weak augmentation" (LTH14/mage issue 6).
    c.data.crop = "random_resized"
    c.data.num_workers = 16

    c.eval = ConfigDict()
    c.eval.batch_size = 128
    c.eval.batches = 8  # of the check during training; scripts/evaluate.py takes the whole split
    c.eval.networks = ("inception",)  # never the network in the loss
    c.eval.inception = ""  # path of pytorch-fid's pt_inception-2015-12-05-6726825d.pth, the network of FID
    c.eval.inception_resize = "adm"  # as the graph that published FIDs are of; or pytorch-fid, clean
    c.eval.reference_file = ""  # published statistics beside the data's own: VIRTUAL_imagenet128_labeled.npz

    c.mesh = ConfigDict({"fsdp": 1})
    c.accumulate_steps = 1  # microbatches of a step, where activations do not fit: trainers/accumulation.py
    c.log_every = 100
    c.eval_every = 10_000
    c.checkpoint_every = 10_000

    if a.scale != "paper":
        cifar10(c)
    if a.scale in ("cpu", "smoke"):
        photos(c)
    if a.scale == "smoke":
        smoke(c)
    return c


def quantizer(name: str, bits: int) -> ConfigDict:
    """FSQ's level set, or the codebook, of 2^bits codes."""
    if name in VARIANTS:
        kind, fields = VARIANTS[name]
        return ConfigDict(quantizer(kind, bits).to_dict() | fields)
    if name == "fsq":
        return ConfigDict({"name": "fsq", "levels": suggest_levels(2**bits), "bound": "paper"})
    if name == "ema_vq":  # UViM's: big_vision/models/proj/uvim/vit.py
        return ConfigDict(
            {
                "name": "ema_vq",
                "codebook_size": 2**bits,
                "embedding_dim": 256,
                "momentum": 0.995,
                "commitment_cost": 0.0,
                "splitting": True,
            }
        )
    if name == "vq":  # maskgit/configs/vqgan_config.py
        return ConfigDict(
            {
                "name": "vq",
                "codebook_size": 2**bits,
                "embedding_dim": 256,
                "commitment_cost": 0.25,
                "codebook_cost": 1.0,
                "entropy_ratio": 0.1,
                "entropy_temperature": 0.01,
            }
        )
    return ConfigDict({"name": name} | suggest(codebook_size=2**bits, kind=name))


def cifar10(c: ConfigDict) -> None:
    """The same modules on CIFAR-10, 8x8 tokens, in minutes on two cores; L2 only."""
    c.steps = 5000
    c.batch_size = 32
    c.model.filters = 64
    c.model.channel_multipliers = (1,)
    c.model.stem_patch = 4
    c.model.num_res_blocks = 1
    c.loss.perceptual = 0.0
    c.loss.gan = 0.0
    # Searched on the validation images, VQ's learning rate by itself: results/search. FSQ's gains 0.06 dB at 2e-2.
    c.optimizer.learning_rate = 1e-2 if c.quantizer.name == "fsq" else 4e-3
    c.optimizer.beta1 = 0.9
    c.optimizer.beta2 = 0.95
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 500  # with 100, seeds of FSQ and VQ alike lie further apart: results/search
    c.ema_decay = 0.99
    c.data.source = "cifar10"
    c.data.resolution = 32
    c.data.crop = "none"
    c.data.num_workers = 0
    c.eval.batch_size = 100
    c.eval.batches = 50  # the whole validation split
    c.eval.networks = ("efficientnet", "alexnet")
    c.eval_every = 2500
    c.checkpoint_every = 2500


def photos(c: ConfigDict) -> None:
    """A third of the steps, on crops of embedded photographs: all that can be told without a download."""
    c.steps = 1600
    c.data.source = "photos"
    c.eval.batch_size = 128
    c.eval.batches = 4
    c.eval.networks = ("alexnet",)
    c.log_every = 50
    c.eval_every = 800
    c.checkpoint_every = 800


def smoke(c: ConfigDict) -> None:
    """Seconds: every loss on, tiny widths."""
    c.steps = 50
    c.batch_size = 8
    c.optimizer.learning_rate = 1e-3
    c.optimizer.beta1 = 0.0
    c.optimizer.beta2 = 0.99
    c.optimizer.warmup_steps = 5
    c.ema_decay = 0.98
    c.model.filters = 32
    c.model.channel_multipliers = (1, 1)
    c.discriminator.channel_multiplier = 0.0625
    c.loss.perceptual = 0.1
    c.loss.gan = 0.1
    c.eval.batch_size = 32
    c.eval.batches = 2
    c.log_every = 10
    c.eval_every = 25
    c.checkpoint_every = 25
