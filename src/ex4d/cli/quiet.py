"""What libraries of the ``gen`` extra say on import and loading, kept off the terminal; EX4D_DEBUG=1 shows it."""

import logging
import os
import warnings

from ex4d.cli.failures import DEBUG_VARIABLE

_LOUD = (
    *("torch", "torchao", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub"),
    *("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"),
)


def quiet_libraries() -> None:
    """Call before anything heavy is imported: torchao and transformers talk while they are."""
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        return
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # two busy-waiting OpenMP threads slow each other down on machines that do something else too
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.filterwarnings("ignore", module=r"(torch|torchao|diffusers|transformers|accelerate|peft)\b")
