"""Train the stem's namer on a built corpus: python tools/train_namer.py data/mini OUT.safetensors."""

import argparse
from pathlib import Path

import torch

from vedere.models.stem import EfficientNetLite0, Stem, load_stem
from vedere.train.naming import NamingConfig, train_namer
from vedere.train.precision import training_dtype

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--passes", type=int, default=NamingConfig.passes)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    stem = Stem(("lite0",))
    load_stem(stem)
    lite0 = stem.get_submodule("lite0")
    assert isinstance(lite0, EfficientNetLite0)
    lite0.to(training_dtype("auto", torch.device("cpu")))
    train_namer(
        NamingConfig(passes=options.passes), options.data, options.out, lite0, say=lambda line: print(line, flush=True)
    )
