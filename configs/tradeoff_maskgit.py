"""Stage II of the trade-off study: MaskGIT transformers on the tokens of `tradeoff_autoencoder`.

Reproduces: Fig. 3b (sampling FID) and 3d (compression cost), and Fig. 10, of arXiv 2309.15505.
Published: figures only, no table; FSQ is ahead of VQ beyond 2^10 codes and saturates from 2^12 (section 5.1).
Hardware: the paper gives none. One point is 1M steps of batch 256 on 8x8 tokens (section A.4.1).

    python scripts/train.py --config=configs/tradeoff_maskgit.py:quantizer=fsq,bits=10 \
        --workdir=runs/fsq_10_maskgit --config.stage1=runs/fsq_10

Argument: quantizer=fsq|vq|vq_no_entropy|vq_narrow|ema_vq, bits=4|6|8|9|10|11|12|14|16,
generator=masked|autoregressive, scale=paper|cifar10|cpu|smoke. Quantizer, bits and scale must be those of the run in
`stage1`.
"""

from ml_collections import ConfigDict

from configs import tradeoff_autoencoder
from fsq_repro.runtime.arguments import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    a = parse_arg(
        arg,
        quantizer=tradeoff_autoencoder.QUANTIZERS,
        bits=tradeoff_autoencoder.BITS,
        generator=("masked", "autoregressive"),
        scale=tradeoff_autoencoder.SCALES,
    )
    stage1 = tradeoff_autoencoder.get_config(f"quantizer={a.quantizer},bits={a.bits},scale={a.scale}")
    c = ConfigDict()
    c.experiment = "tradeoff_maskgit"
    c.trainer = "maskgit"
    c.scale = a.scale
    c.target_bits = a.bits
    c.seed = 42
    c.steps = 1_000_000  # "200 epochs" of ImageNet at batch 256, A.4.1
    c.batch_size = 256
    c.stage1 = ""  # stage I's run directory
    c.quantizer = stage1.quantizer  # checked against stage I's

    c.model = ConfigDict()  # maskgit/configs/maskgit_class_cond_config.py
    c.model.kind = a.generator
    c.model.width = 768
    c.model.num_layers = 24
    c.model.num_heads = 16
    c.model.mlp_width = 3072
    c.model.dropout = 0.1  # hidden layers and attention
    c.model.remat = False
    c.model.dtype = "float32"

    # A.4.2 bounds the mask ratio from below by 0.45 (maskgit's config: 0.5) and does not say how. "clip", the other
    # reading, puts 29.7% of the examples at exactly the bound; "resample" keeps the cosine's density above it.
    c.masking = ConfigDict({"min_ratio": 0.45, "bound": "resample"})
    c.label_drop = 0.1  # section 4.3
    c.label_smoothing = 0.1

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 1e-4
    c.optimizer.beta1 = 0.9
    c.optimizer.beta2 = 0.96
    c.optimizer.weight_decay = 4.5e-2
    c.optimizer.gradient_clip = 1.0  # magvit's trainer; maskgit's is not released
    c.optimizer.schedule = "constant"
    c.optimizer.warmup_steps = 5000
    c.ema_decay = 0.999  # maskgit/configs/base_config.py

    c.data = ConfigDict()
    c.data.source = stage1.data.source
    c.data.resolution = stage1.data.resolution
    c.data.num_classes = 1000
    c.data.flip = True
    c.data.crop = stage1.data.crop  # "none": tokens are made once and kept; otherwise in every step
    c.data.num_workers = stage1.data.num_workers

    c.sampler = ConfigDict()  # section 4.3; maskgit/libml/parallel_decode.py
    c.sampler.name = "parallel"
    c.sampler.num_steps = 12
    c.sampler.choice_temperature = 4.5
    c.sampler.guidance_weight = 0.0  # none is mentioned for this study

    c.compression = ConfigDict({"alpha": 2.2, "num_groups": 12})  # M2T's main setting; the paper gives none

    c.eval = ConfigDict()
    c.eval.batch_size = 128
    c.eval.batches = 8  # of the check during training
    c.eval.networks = ("inception",)
    c.eval.inception = ""  # path of pytorch-fid's pt_inception-2015-12-05-6726825d.pth, the network of FID
    c.eval.inception_resize = "adm"  # as the graph that published FIDs are of; or pytorch-fid, clean
    c.eval.reference_file = ""  # published statistics beside the data's own: VIRTUAL_imagenet128_labeled.npz
    c.eval.samples = 50_000
    c.eval.reference_images = 10_000  # of precision and recall, as in ADM's reference file
    c.eval.guidance_weights = ()  # measured besides the sampler's
    c.eval.class_distances = False  # needs about 1,000 samples per class
    c.eval.class_agreement = False  # by a classifier on the features of the first network: not for 1,000 classes
    c.eval.coder_images = 500
    c.eval.picture_labels = (330, 320, 510, 454)  # Fig. 5

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


def cifar10(c: ConfigDict) -> None:
    """The same modules, 4 layers of width 128, on the 8x8 tokens of CIFAR-10."""
    c.steps = 6000
    c.batch_size = 64
    c.model.width = 128
    c.model.num_layers = 4
    c.model.num_heads = 4
    c.model.mlp_width = 512
    c.model.dropout = 0.0  # four passes over the training images and their mirror images: little to overfit
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 200
    c.data.num_classes = 10
    c.eval.batch_size = 100
    c.eval.batches = 50  # the whole validation split
    c.eval.networks = ("efficientnet", "alexnet")
    c.eval.samples = 5000
    c.eval.reference_images = 5000
    c.eval.class_agreement = True
    c.eval.coder_images = 200
    c.eval.picture_labels = tuple(range(10))
    c.eval_every = 2000
    c.checkpoint_every = 2000


def photos(c: ConfigDict) -> None:
    """The same on the embedded photographs' crops, in fewer steps."""
    c.steps = 2500
    c.data.flip = False  # a mirror image more is another 12,000 images to encode for each autoencoder
    c.eval.batch_size = 128
    c.eval.batches = 8
    c.eval.networks = ("alexnet",)
    c.eval.samples = 2000
    c.eval.reference_images = 2000
    c.eval.class_distances = True
    c.log_every = 50
    c.eval_every = 1250
    c.checkpoint_every = 1250


def smoke(c: ConfigDict) -> None:
    """Seconds."""
    c.steps = 40
    c.batch_size = 16
    c.data.flip = True
    c.model.dropout = 0.1
    c.model.width = 32
    c.model.num_layers = 2
    c.model.mlp_width = 64
    c.optimizer.warmup_steps = 5
    c.ema_decay = 0.99
    c.eval.batch_size = 32
    c.eval.batches = 2
    c.eval.samples = 96
    c.eval.reference_images = 96
    c.eval.class_distances = False
    c.eval.class_agreement = False
    c.eval.coder_images = 32
    c.eval.picture_labels = (0, 1)
    c.log_every = 10
    c.eval_every = 20
    c.checkpoint_every = 20
