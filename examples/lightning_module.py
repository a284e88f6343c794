"""A LightningModule with NSF. A small transformer learns the bytes of this file.

    python examples/lightning_module.py OUT

It saves a checkpoint in OUT after every epoch. If you run it again, it continues from the last one
and ends with the same weights as an uninterrupted run. It logs loss and p to OUT/lightning_logs/.
"""

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

import bandwise as bw

EPOCHS = 4
out = Path(sys.argv[1])


class Bytes(lightning.LightningModule):
    """Predicts the next byte from the bytes before it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.logits = nn.Linear(32, 256)

    def training_step(self, batch, batch_idx):
        x, y = batch[:, :-1], batch[:, 1:]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        logits = self.logits(self.block(self.embedding(x), mask, is_causal=True))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        self.log("loss", loss)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.log_dict(bw.readings(optimizer))

    def configure_optimizers(self):
        return bw.NSF(self.parameters(), lr=3e-3, p=bw.Cyclic(0.9, 0.5, period=20))


lightning.seed_everything(0)
chunks = torch.tensor(list(Path(__file__).read_bytes())).unfold(0, 64, 16)
trainer = lightning.Trainer(
    accelerator="cpu",
    max_epochs=EPOCHS,
    gradient_clip_val=1.0,
    log_every_n_steps=1,
    logger=CSVLogger(out),
    callbacks=ModelCheckpoint(out, filename="{epoch}", save_top_k=-1, save_last=True),
    enable_progress_bar=False,
)
model = Bytes()
last = out / "last.ckpt"
trainer.fit(model, DataLoader(chunks, batch_size=8), ckpt_path=last if last.exists() else None)
torch.save(model.state_dict(), out / "weights.pt")
