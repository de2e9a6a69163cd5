"""From a config of UViM's stage II and stage I's run directory to typed objects; see `common`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.factories import common, stage1_link
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.models.augreg_vit import load_augreg_vit
from fsq_repro.models.code_predictor import CodePredictor
from fsq_repro.trainers.code_predictor import CodePredictorState, CodePredictorTrainer, FrozenLabelCoder


def build_model(config: ConfigDict, codebook_size: int, num_codes: int) -> CodePredictor:
    m = config.model
    for field in ("token_std", "position_scale"):
        if not 0 < m[field] < float("inf"):
            raise ValueError(f"model.{field} = {m[field]} must be a finite number above 0")
    model = CodePredictor(
        codebook_size=codebook_size,
        num_codes=num_codes,
        image_size=config.data.resolution,
        patch_size=m.patch_size,
        width=m.width,
        num_layers=m.num_layers,
        num_heads=m.num_heads,
        mlp_width=m.mlp_width,
        remat=m.remat,
        token_std=m.token_std,
        position_scale=m.position_scale,
        dtype=common.build_dtype(m),
    )
    # Shapes only, of one layer: what the network refuses is refused here.
    images = jnp.zeros((1, config.data.resolution, config.data.resolution, 3))
    codes = jnp.zeros((1, num_codes), jnp.int32)
    jax.eval_shape(lambda: model.clone(num_layers=1).init(jax.random.key(0), images, codes))
    return model


def build_trainer(config: ConfigDict, coder: FrozenLabelCoder) -> CodePredictorTrainer:
    """Stage II over the codes of `coder`."""
    if not 0 <= config.sampler.temperature < float("inf"):
        raise ValueError(f"sampler.temperature = {config.sampler.temperature} must be a finite number >= 0")
    coder.task.check_evaluation(config.eval.to_dict())
    return CodePredictorTrainer(
        model=build_model(config, coder.model.quantizer.codebook_size, coder.model.code_grid**2),
        optimizer=label_autoencoder_factory.build_optimizer(config.optimizer, config.steps),
        coder=coder,
        temperature=config.sampler.temperature,
        accumulate_steps=config.accumulate_steps,
    )


def augreg_start(path: str, trainer: CodePredictorTrainer) -> Callable[[CodePredictorState], CodePredictorState]:
    """Reads an AugReg ViT's file; the function puts its encoder into a new run's state, laid out as the initial one."""
    loaded = load_augreg_vit(path, jax.eval_shape(trainer.init_state, jax.random.key(0)).params)

    def start(state: CodePredictorState) -> CodePredictorState:
        initial = {name: state.params[name] for name in loaded}
        placed = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), loaded, initial)
        return state.replace(params=state.params | placed)

    return start


def run_facts(config: ConfigDict, trainer: CodePredictorTrainer) -> dict:
    """What `record.json` says of a run before it has trained."""
    return label_autoencoder_factory.run_facts(config, trainer, trainer.model.num_codes) | {
        "stage": 2,
        "generator": "autoregressive",
        "stage1": stage1_link.stage1_facts(config, trainer.coder.fingerprint),
    }
