"""Train the stem's reader on rendered text: python tools/train_reader.py OUT.safetensors --minutes 20."""

import argparse
from pathlib import Path

import torch

from vedere.train.reading import ReadingConfig, train_reader

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    train_reader(
        ReadingConfig(minutes=options.minutes, lr=options.lr, workers=options.workers),
        options.out,
        say=lambda line: print(line, flush=True),
    )
