"""The command line with its weights in FSDP's shards, on CPU processes.

accelerate shards only where it finds GPUs and else falls back to whole copies; here its state is
set to shard, and the rest is as on GPUs, with gloo.
"""

import faulthandler
import os

import accelerate
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

begin = accelerate.Accelerator.__init__


def begin_sharded(self, *arguments, **options):
    begin(self, *arguments, **options)
    for state in (PartialState, AcceleratorState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy=os.environ["SHARDS"],
        transformer_cls_names_to_wrap=["ConvNeXtBlock"],
    )


if __name__ == "__main__":
    faulthandler.dump_traceback_later(200, exit=True)  # processes that wait for each other
    accelerate.Accelerator.__init__ = begin_sharded
    from multidiff.cli.main import main

    main()
