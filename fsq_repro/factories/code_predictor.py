"""From a config of UViM's stage II and stage I's run directory to typed objects; see `common`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.factories import common, fields
from fsq_repro.models.augreg_vit import load_augreg_vit
from fsq_repro.models.code_predictor import CodePredictor
from fsq_repro.trainers import big_vision_adafactor
from fsq_repro.trainers.code_predictor import CodePredictorState, CodePredictorTrainer


def build_model(config: ConfigDict, codebook_size: int, num_codes: int) -> CodePredictor:
    m = config.model
    side = config.data.resolution
    model = common.build_network(CodePredictor, m, codebook_size=codebook_size, num_codes=num_codes, image_size=side)
    # Shapes only, of one layer: what the network refuses is refused here.
    images = jnp.zeros((1, side, side, 3))
    codes = jnp.zeros((1, num_codes), jnp.int32)
    jax.eval_shape(lambda: model.clone(num_layers=1).init(jax.random.key(0), images, codes))
    return model


def build_trainer(config: ConfigDict, coder: Any) -> CodePredictorTrainer:
    """Stage II over the codes of `coder`, an `inference.label_coder.LabelCoder`."""
    fields.check_values(config)
    coder.task.check_evaluation(config.eval.to_dict())
    return CodePredictorTrainer(
        model=build_model(config, coder.model.quantizer.codebook_size, coder.model.code_grid**2),
        optimizer=big_vision_adafactor.build(**config.optimizer, steps=config.steps),
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
