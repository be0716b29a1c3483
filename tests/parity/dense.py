"""What a segmentation model is compared by: one record of numbers, from ours and from a torch peer.

`logits` and `auxiliary` are every fourth row and column in evaluation; `gradient` holds the slopes
of training's `Σ logits · cos(index) + Σ auxiliary` along `cos(index)` of the weights of some keys,
without dropout, and `mean` and `var` are the sums of the running statistics afterwards. Both sides
hold the weights that `draw_state_dict` draws from the peer's keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from weights import draw_state_dict, load_drawn


def record_peer(model, images, keys):
    """The record of a torch module that gives logits, or a dictionary with `out` and `aux`."""
    import torch

    def apply(images):
        outputs = model(images)
        outputs = outputs if isinstance(outputs, dict) else {"out": outputs}
        names = {"out": "logits", "aux": "auxiliary"}
        return {names[key]: output.movedim(1, -1) for key, output in outputs.items()}

    model.double()
    load_drawn(model)
    x = torch.tensor(np.moveaxis(images, -1, 1))
    model.eval()
    with torch.no_grad():
        record = {name: array[:, ::4, ::4].numpy() for name, array in apply(x).items()}

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    outputs = apply(x)
    logits = outputs.pop("logits")
    cosines = torch.cos(torch.arange(logits.numel(), dtype=torch.float64))
    total = torch.sum(logits * cosines.reshape(logits.shape)) + sum(
        map(torch.sum, outputs.values())
    )
    total.backward()
    parameters = dict(model.named_parameters())
    record["gradient"] = np.array([_slope(parameters[key].grad.numpy()) for key in keys])
    return record | _sum_statistics({k: v.numpy() for k, v in model.state_dict().items()})


def drawn_variables(model, table, images):
    """The variables of a Flax module, and the same arrays by the peer's keys."""
    # Imported here, so that a peer's environment needs no segjax.
    from segjax.pretrained.keys import to_state_dict, to_variables

    template = jax.eval_shape(model.init, jax.random.key(0), images)
    blank = to_state_dict(table, jax.tree.map(lambda s: np.broadcast_to(0.0, s.shape), template))
    weights = draw_state_dict({key: array.shape for key, array in blank.items()})
    return to_variables(table, weights, template), weights


def record_ours(model, table, images, keys):
    """The record of a Flax module whose arrays `table` names."""
    from segjax.pretrained.keys import to_state_dict

    variables, _ = drawn_variables(model, table, images)

    def objective(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        with nn.intercept_methods(without_dropout):
            output, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        cosines = jnp.cos(jnp.arange(output.logits.size)).reshape(output.logits.shape)
        return jnp.sum(output.logits * cosines) + sum(map(jnp.sum, output.auxiliary)), changed

    @jax.jit
    def run(variables):
        gradient, changed = jax.grad(objective, has_aux=True)(
            variables["params"], variables["batch_stats"]
        )
        return model.apply(variables, images), gradient, changed

    output, gradient, changed = run(variables)
    record = {"logits": output.logits[:, ::4, ::4]}
    if output.auxiliary:
        record["auxiliary"] = output.auxiliary[0][:, ::4, ::4]
    slopes = to_state_dict(table, {"params": gradient})
    record["gradient"] = np.array([_slope(slopes[key]) for key in keys])
    return record | _sum_statistics(to_state_dict(table, changed))


def assert_same_record(actual, golden, model, *, gradient_rtol=1e-8):
    """Every array that the golden file has under `<model> …` is ours."""
    expected = {k.split()[1]: array for k, array in golden.items() if k.startswith(f"{model} ")}
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        rtol = gradient_rtol if name == "gradient" else 1e-8
        np.testing.assert_allclose(actual[name], array, err_msg=name, rtol=rtol)


def _slope(gradient):
    """Along cosines: along the weights themselves it is 0 before a norm, but for rounding."""
    return np.vdot(gradient, np.cos(np.arange(gradient.size)).reshape(gradient.shape))


def _sum_statistics(state_dict):
    def total(statistic):
        arrays = (v for k, v in state_dict.items() if k.endswith(f"running_{statistic}"))
        return np.array(sum(array.sum() for array in arrays))

    return {statistic: total(statistic) for statistic in ("mean", "var")}


def without_dropout(next_function, args, kwargs, context):
    """For `nn.intercept_methods`."""
    return args[0] if isinstance(context.module, nn.Dropout) else next_function(*args, **kwargs)
