"""A training loop with Accelerate and SMI around NSF. A small GPT-2 learns the text of this file.

    WANDB_MODE=offline python examples/accelerate_loop.py OUT

It saves its state in OUT every 20 steps. If you run it again, it continues from the last state and
ends with the same weights as an uninterrupted run. It logs loss, alpha, p and kept energy to
Weights & Biases. Offline, `wandb sync` sends them later.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

import bandwise as bw

STEPS, ACCUMULATED, BATCH = 40, 2, 4
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)

set_seed(0)
config = GPT2Config(
    vocab_size=256,
    n_positions=64,
    n_embd=32,
    n_layer=2,
    n_head=2,
    bos_token_id=None,
    eos_token_id=None,
)
model = GPT2LMHeadModel(config)
nsf = bw.NSF(model.parameters(), lr=3e-3, p=bw.Linear(0.9, 0.5), total_steps=STEPS)
optimizer = bw.SMI(nsf, total_steps=STEPS)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

chunks = torch.tensor(list(Path(__file__).read_bytes())).unfold(0, 64, 1)
order = torch.randint(len(chunks), (STEPS * ACCUMULATED * BATCH,))
# The loader has its own generator, so that shuffling draws nothing from dropout's generator.
batches = DataLoader(chunks[order], batch_size=BATCH, generator=torch.Generator())

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED, log_with="wandb")
accelerator.init_trackers("bandwise", init_kwargs={"wandb": {"dir": str(out)}})
model, optimizer, schedule, batches = accelerator.prepare(model, optimizer, schedule, batches)

step = max((int(folder.name) for folder in out.glob("[0-9]*")), default=0)
if step:
    accelerator.load_state(out / str(step))

for batch in accelerator.skip_first_batches(batches, step * ACCUMULATED):
    with accelerator.accumulate(model):
        loss = model(batch, labels=batch).loss
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            step += 1
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            accelerator.log({"loss": loss.item(), **bw.readings(optimizer)}, step=step)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    if accelerator.sync_gradients and step % 20 == 0:
        accelerator.save_state(out / str(step))

torch.save(accelerator.unwrap_model(model).state_dict(), out / "weights.pt")
accelerator.end_training()
