"""Makes `inception.npz` and the two `inception_example_*.pth`: what pytorch-fid and torch.save give for seeded weights.

Run once, in an environment of its own (neither JAX nor Flax is needed):

    pip install torch==2.14.1 torchvision==0.29.1 pytorch-fid==0.3.0
    PYTHONPATH=. python tests/golden/make_inception.py

The weights and the images are drawn here by NumPy, for this script and for the tests alike. `inception.npz` holds
`shapes` (JSON, the state dict's names and shapes); `pool_3`, `spatial` and `logits` of 32 images, every fourth feature
of each; `fid` of two sets of 256 images. The example files hold `example_state()` in both of torch's formats.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent
EVERY = (
    4  # features are stored from the first in steps of this; all channels of `spatial` occur, as 4 and 7 are coprime
)
SIZES = ((33, 47), (299, 299), (101, 75), (17, 301), (333, 355), (1, 9), (257, 129), (513, 511))  # (height, width)


def draw_weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A state dict by names and shapes; float32, int64 zeros for the batch norms' `num_batches_tracked`.

    Convolutions have He's scale, so that activations stay of order one through the depth of the network.
    """
    state = {}
    for name, shape in shapes.items():
        x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
        field = name.rsplit(".", 1)[1]
        if field == "num_batches_tracked":
            state[name] = np.zeros(shape, np.int64)
        elif len(shape) == 4:
            state[name] = x * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif len(shape) == 2:
            state[name] = x * np.float32(np.sqrt(1 / shape[1]))
        elif field == "running_var":
            state[name] = 1 + np.float32(0.1) * np.abs(x)
        else:
            state[name] = np.float32(0.1) * x + np.float32(field == "weight")
    return state


def draw_images() -> list[np.ndarray]:
    """32 images: four uint8 (height, width, 3) of each size, coarse blocks with fine noise."""
    images = []
    for i, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 200, (4, height // 8 + 1, width // 8 + 1, 3)).repeat(8, axis=1).repeat(8, axis=2)
        fine = rng.integers(0, 56, (4, height, width, 3))
        images.append((coarse[:, :height, :width] + fine).astype(np.uint8))
    return images


def draw_sets() -> tuple[np.ndarray, np.ndarray]:
    """Two sets of images, uint8 (256, 32, 32, 3): blocks of 4 px, and blocks of 8 px of half their contrast."""
    rng = np.random.default_rng(100)
    a = rng.integers(0, 256, (256, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    b = rng.integers(0, 128, (256, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2) + 64
    return a.astype(np.uint8), b.astype(np.uint8)


def example_state() -> dict[str, np.ndarray]:
    """What the example files hold: every kind of tensor that a reader must tell apart."""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7
    return {
        "contiguous": x,
        "transposed": x.transpose(2, 0, 1),  # shares its memory with `contiguous`
        "window": x[1, 1:, ::2],  # starts within that memory
        "expanded": np.broadcast_to(np.float64(0.1), (2, 2)),
        "half": x[0].astype(np.float16),
        "scalar": np.array(-(2**40), np.int64),
        "bytes": np.arange(5, dtype=np.uint8),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.array([1.5, -2.5], np.float32),
    }


def save_examples(torch) -> None:
    state = {name: torch.from_numpy(np.array(x)) for name, x in example_state().items()}
    whole = state["contiguous"]
    state["transposed"], state["window"] = whole.permute(2, 0, 1), whole[1, 1:, ::2]
    state["expanded"] = torch.tensor(0.1, dtype=torch.float64).expand(2, 2)
    state["parameter"] = torch.nn.Parameter(state["parameter"])
    torch.save(state, FOLDER / "inception_example_zip.pth")
    torch.save(state, FOLDER / "inception_example_legacy.pth", _use_new_zipfile_serialization=False)


def main() -> None:
    import torch
    from pytorch_fid import fid_score, inception

    from fsq_repro.models.torch_files import read_state_dict

    save_examples(torch)
    weights = {}

    def drawn_state_dict(url, progress):
        """Draws the weights in place of the download, through files of both formats, which our reader reads too."""
        model = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        weights.update(draw_weights({name: list(x.shape) for name, x in model.state_dict().items()}))
        state = {name: torch.from_numpy(x) for name, x in weights.items()}
        with tempfile.TemporaryDirectory() as folder:
            for zipped in (True, False):
                path = pathlib.Path(folder) / "weights.pth"
                torch.save(state, path, _use_new_zipfile_serialization=zipped)
                ours, _ = read_state_dict(path)
                assert ours.keys() == weights.keys()
                assert all(np.array_equal(ours[name], x) and ours[name].dtype == x.dtype for name, x in weights.items())
            return torch.load(path)

    inception.load_state_dict_from_url = drawn_state_dict
    network = inception.InceptionV3([3]).eval()
    spatial = []
    mixed_6d = network.blocks[2][6]
    mixed_6d.branch1x1.register_forward_hook(
        lambda module, inputs, output: spatial.append(output[:, :7].permute(0, 2, 3, 1).flatten(1).numpy())
    )

    def features(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [
                network(torch.from_numpy(part).permute(0, 3, 1, 2) / 255)[0].flatten(1).numpy()
                for part in np.split(images, range(32, len(images), 32))
            ]
        return np.concatenate(parts)

    pool_3 = np.concatenate([features(images) for images in draw_images()])
    arrays = {"pool_3": pool_3, "spatial": np.concatenate(spatial), "logits": pool_3 @ weights["fc.weight"].T}
    for name, x in arrays.items():
        print(f"{name}: {x.shape}, mean {x.mean():.4f}, deviation between images {x.std(axis=0).mean():.4f}")
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in map(features, draw_sets())]
    fid = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    print(f"fid: {fid}")
    shapes = json.dumps({name: list(x.shape) for name, x in weights.items()})
    stored = {name: np.ascontiguousarray(x[:, ::EVERY]) for name, x in arrays.items()}
    np.savez_compressed(FOLDER / "inception.npz", shapes=shapes, fid=fid, **stored)


if __name__ == "__main__":
    main()
