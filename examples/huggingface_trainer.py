"""Hugging Face's Trainer with SMI. A small Llama learns the bytes of this file.

    python examples/huggingface_trainer.py OUT

It saves checkpoints in OUT. If you run it again, it continues from the last one and ends with the
same weights as an uninterrupted run. `tensorboard --logdir OUT` shows loss, alpha and kept energy.
"""

import sys
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

import bandwise as bw

STEPS = 40
out = Path(sys.argv[1])

set_seed(0)
config = LlamaConfig(
    vocab_size=256,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
    attention_dropout=0.1,
)
model = LlamaForCausalLM(config)
tokens = torch.tensor(list(Path(__file__).read_bytes()))
data = [{"input_ids": chunk, "labels": chunk} for chunk in tokens.unfold(0, 64, 16)]

optimizer = bw.SMI(torch.optim.AdamW(model.parameters(), lr=3e-3), total_steps=STEPS)
trainer = Trainer(
    model,
    TrainingArguments(
        str(out),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        save_steps=STEPS // 2,
        logging_steps=5,
        report_to="tensorboard",
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=data,
    optimizers=(optimizer, None),  # None: the Trainer makes the scheduler of the learning rate
)


class Readings(TrainerCallback):
    """Logs the optimizer's readings before each step."""

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        if state.global_step % args.logging_steps == 0:
            trainer.log(bw.readings(optimizer))


trainer.add_callback(Readings())
trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if out.exists() else None)
torch.save(model.state_dict(), out / "weights.pt")
