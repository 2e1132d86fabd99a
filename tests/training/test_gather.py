"""What contrastive pretraining compares with does not depend on how many processes share the batch: the same loss, the same gradients."""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import Batch, Collator, TextEncoder
from labelgen.inputs.features import FeatureSpace
from labelgen.model.encoder import Encoder
from labelgen.training.gather import gather_rows
from labelgen.training.pretrain import Pretrainer, SwappedResponses, gather_keys

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
Halves = tuple[list[Dialogue], list[Dialogue]]


def dialogue(name: str, responses: list[str]) -> Dialogue:
    return Dialogue(id=name, turns=[Turn(request=f"{name} asks {t}", response=text) for t, text in enumerate(responses)])


@pytest.fixture
def halves(make_encoder: Callable[..., Encoder]) -> tuple[Encoder, SwappedResponses, Halves]:
    """Two processes' dialogues: of unequal length, with a response that both hold, and one without anything to select."""
    corpus = [dialogue(name, [f"{name} answers {t}" for t in range(turns)]) for name, turns in (("a", 7), ("b", 4), ("c", 3))]
    corpus[1] = dialogue("b", ["a answers 1", "b answers", "a answers 2", "fine"])
    examples = SwappedResponses(corpus, swapped=0.1, masked=0.6)
    records = [examples(one, 0) for one in corpus]
    return make_encoder(features=FeatureSpace()).train(), examples, (records[:1], records[1:])


def totals(model: Pretrainer, batch: Batch) -> Tensor:
    """Gradients of the summed losses, flat, behind the losses and counts themselves."""
    losses = model.losses(batch)
    model.zero_grad()
    torch.stack([loss.total for loss in losses.values()]).sum().backward()
    gradients = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters() if p.requires_grad]
    values = [torch.stack([loss.total.detach(), loss.count.float()]) for loss in losses.values()]
    return torch.cat([*values, *gradients])


def share_of(rank: int, folder: Path, model: Pretrainer, batches: list[Batch]) -> None:
    """What one of two processes does: the sum over both of its totals goes to FOLDER/RANK."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    found = totals(model, batches[rank])
    with torch.no_grad():
        candidates = gather_keys(model(batches[rank])[1])
    dist.all_reduce(found)
    rows = gather_rows(torch.full((rank + 1, 2), float(rank)))
    torch.save({"totals": found, "candidates": len(candidates.keys), "rows": rows}, folder / str(rank))
    dist.destroy_process_group()


@pytest.mark.parametrize("masked", [0.6, 0.0], ids=["", "nothing to select"])
def test_two_processes_compare_with_what_one_would(masked: float, halves: tuple[Encoder, SwappedResponses, Halves], tmp_path: Path) -> None:
    encoder, examples, records = halves
    examples.masked = masked
    collate = Collator(TextEncoder(encoder.tokenizer, 128), FeatureSpace(), examples.targets)
    model = Pretrainer(encoder, {}, torch.optim.AdamW)
    batches = [collate(half) for half in records]
    joined = collate([*records[0], *records[1]])
    processes = [get_context("fork").Process(target=share_of, args=(rank, tmp_path, model, batches)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    wanted = totals(model, joined)
    for rank in range(2):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        torch.testing.assert_close(found["totals"], wanted, rtol=1e-4, atol=1e-5)
        assert found["rows"].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        distinct = len(model(joined)[1].keys)
        assert found["candidates"] == distinct, "a response that both hold is one candidate"
    assert distinct > max(len(model(batch)[1].keys) for batch in batches)
