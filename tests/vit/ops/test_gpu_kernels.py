"""The GPU's kernels of gates, buffers and attention against float64 (conftest.py)."""

import importlib
import logging

import pytest
import torch
from eventful_vit import ops
from eventful_vit.attention.layout import attention_layout
from eventful_vit.ops import gpu
from eventful_vit.ops.attention import DENSE_ABOVE

from .conftest import TYPES, in_double, in_types

pytestmark = pytest.mark.usefixtures("no_gradients")


class TestGates:
    @pytest.fixture(autouse=True, params=[7, 48])
    def tokens(self, request, dtype):
        channels = request.param
        self.x, self.u = (torch.randn(2, 9, channels) + 3).to(dtype), torch.randn(2, 9, channels).to(dtype)
        self.norm = (torch.randn(channels).to(dtype), torch.randn(channels).to(dtype), 1e-6)

    @pytest.mark.parametrize("norm", [True, False])
    def test_error_norms_and_send(self, run, close, norm):
        norm = self.norm if norm else (None, None, None)
        close(run(ops.error_norms, self.x, self.u, *norm)[0], in_double(ops.error_norms, self.x, self.u, *norm)[0], 4)
        for index in (torch.tensor([0, 4, 17]), torch.tensor([], dtype=torch.int64), None):
            rows, ours = run(ops.send, self.x, self.u, index, *norm)
            expected, theirs = in_double(ops.send, self.x, self.u, index, *norm)
            close(rows, expected)
            close(ours[1], theirs[1])

    def test_normalise(self, run, close):
        close(run(ops.normalise, self.x, *self.norm)[0], in_double(ops.normalise, self.x, *self.norm)[0])

    def test_nothing_moved_means_no_error(self, run, dtype):
        """What was sent on is compared as it was rounded."""
        rows, arguments = run(ops.send, self.x, self.u, None, *self.norm)
        assert not run(ops.error_norms, self.x, arguments[1], *self.norm)[0].any()

    @pytest.mark.parametrize(
        "count, threshold, flush",
        [
            (4, -torch.inf, None),
            (4, -torch.inf, [1, 0]),
            (0, -torch.inf, [0, 0]),
            (9, 5.0, [1, 0]),
            (2, 5.0, None),
            (9, torch.inf, [0, 0]),
            # The choice is that of norms in float32, whatever the flushes: TestSelecting.
            *(pytest.param(*case, marks=pytest.mark.long) for case in [
                (0, -torch.inf, None), (9, 5.0, None), (9, torch.inf, None),
                (0, -torch.inf, [1, 0]), (2, 5.0, [1, 0]), (9, torch.inf, [1, 0]),
                (4, -torch.inf, [0, 0]), (9, 5.0, [0, 0]), (2, 5.0, [0, 0]),
            ]),
        ],
    )  # fmt: skip
    def test_gate(self, run, close, count, threshold, flush):
        flush = None if flush is None else torch.tensor(flush).byte()
        numbers = (torch.tensor(count), torch.tensor(threshold), flush, 18)
        (norms, index, offsets, rows), ours = run(ops.gate, self.x, self.u, *numbers, *self.norm)
        # What is chosen is decided by these norms, whose rounding may exchange neighbours.
        chosen = ops.gate.reference(
            torch.zeros(2, 9, 1), norms.cpu()[..., None].nan_to_num(posinf=1e30), *numbers, None, None, None
        )
        used = int(offsets[-1])
        assert offsets.tolist() == chosen[2].tolist() and index[:used].tolist() == chosen[1][:used].tolist()
        close(rows[:used], in_double(ops.send, self.x, self.u, index[:used].cpu(), *self.norm)[0])
        assert torch.equal(ours[1].flatten(0, 1)[index[:used]], rows[:used])
        close(norms, in_double(ops.gate, self.x, self.u, *numbers, *self.norm)[0][0], 4)

    @pytest.mark.parametrize("norm", [True, False])
    def test_gate_after_an_addition(self, run, close, dtype, norm):
        """To tokens in float32, of a buffer that is kept in another type, as the reference is."""
        x, norm = self.x.float(), [part.float() if norm else None for part in self.norm[:2]] + [1e-6 if norm else None]
        added = torch.randn(self.x.shape).to(dtype)
        numbers = (torch.tensor(4), torch.tensor(-torch.inf), None, 8)
        (norms, index, offsets, rows), ours = run(ops.gate, x, self.u, *numbers, *norm, added, dtype)
        total = x + added.float()
        assert torch.equal(ours[0].cpu(), total) and offsets.tolist() == [0, 4, 8] and rows.dtype is dtype
        torch.testing.assert_close(
            norms.cpu().double(), in_double(ops.error_norms, total, self.u, *norm)[0].double(), atol=1e-5, rtol=1e-5
        )
        close(rows, in_double(ops.send, total, self.u, index.cpu(), *norm)[0])
        close(ours[1].flatten(0, 1)[index], rows.cpu())

    def test_normalised_rows_in_another_type(self, run, close, dtype):
        norm = [part.float() for part in self.norm[:2]] + [1e-6]
        rows, _ = run(ops.normalise, self.x.float(), *norm, dtype)
        assert rows.dtype is dtype
        close(rows, in_double(ops.normalise, self.x.float(), *norm)[0])


class TestSelecting:
    """What is chosen does not depend on how it is found."""

    def check(self, run, norms, count, threshold=-torch.inf, flush=None):
        norms = torch.as_tensor(norms)
        streams, tokens = norms.shape
        numbers = (torch.tensor(count), torch.tensor(threshold), flush, streams * tokens)
        x = torch.zeros(*norms.shape, 1)
        (found, index, offsets, _), _ = run(ops.gate, norms[..., None].clone(), x, *numbers, None, None, None)
        expected = ops.gate.reference(norms[..., None].clone(), x, *numbers, None, None, None)
        used = int(offsets[-1])
        assert offsets.tolist() == expected[2].tolist()
        assert index[:used].tolist() == expected[1][: int(expected[2][-1])].tolist()

    @pytest.mark.parametrize(
        ("streams", "tokens"), [(1, 1), (1, 5), (1, 64), (1, 5000), (3, 1), (3, 5), (3, 64), (3, 100)]
    )
    def test_any_number_of_tokens(self, run, streams, tokens):
        norms = torch.rand(streams, tokens) * torch.logspace(-15, 15, tokens)
        for count in {0, 1, tokens // 3, tokens - 1, tokens}:
            self.check(run, norms, count)

    @pytest.mark.parametrize("streams", [1, 2])
    def test_more_tokens_than_a_program_holds(self, run, streams, monkeypatch):
        selecting = importlib.import_module("eventful_vit.ops.gpu.selecting")
        monkeypatch.setattr(selecting, "select_tile", lambda tokens: {"BLOCK": 32, "num_warps": 1})
        norms, equal = torch.rand(streams, 100), torch.randint(3, (streams, 100)).float()
        for count in (0, 1, 50, 99, 100):
            self.check(run, norms, count)
        self.check(run, equal, 50)
        self.check(run, equal, 50, 0.7, torch.tensor([1, 0][:streams]).byte())

    @pytest.mark.parametrize("streams", [1, 2])
    def test_equal_norms_go_in_order_and_nan_first(self, run, streams):
        norms = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0, torch.nan, 0.0, torch.inf]).repeat(streams, 1)
        for count in range(9):
            self.check(run, norms, count)
        self.check(run, torch.ones(streams, 70), 33)
        self.check(run, torch.zeros(streams, 70), 33)

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
    def test_thresholds_and_flushes(self, run, threshold):
        norms = torch.rand(3, 40)
        for flush in (None, torch.tensor([0, 1, 0]).byte(), torch.ones(3).byte()):
            self.check(run, norms, 7, threshold, flush)


@pytest.fixture
def vast_memory():
    """More float16 values than 32 bits count, and as many before them, where offsets that overflow would lead to."""
    if torch.cuda.is_available():
        pytest.skip("takes 8 GB on a GPU; an interpreter touches little of them")
    try:
        return torch.empty(2**32 + 2**16, dtype=torch.float16)[2**31 :]
    except RuntimeError:
        pytest.skip("the machine gives no process so much memory, of which little is touched")


class TestBuffers:
    @pytest.mark.parametrize("used", [None, 2])
    @pytest.mark.parametrize("places", [[0, 5, 19], [], None])
    def test_store(self, run, close, dtype, places, used):
        x, buffer = torch.randn(2, 10, 12).to(dtype), torch.randn(2, 10, 12).to(dtype)
        rows = torch.randn(20 if places is None else len(places), 12).to(dtype)
        index = None if places is None else torch.tensor(places, dtype=torch.int64)
        used = None if used is None or not places else torch.tensor(used)
        for operator, arguments in (
            (ops.store, (buffer, index, rows, used)),
            (ops.add, (x, buffer)),
            (ops.replace, (buffer, index, rows, used, 5)),
        ):
            if operator is ops.replace and index is None:
                continue
            old, ours = run(operator, *arguments)
            expected, theirs = in_double(operator, *arguments)
            for mine, other in zip(ours[:2], theirs[:2]):
                if mine is not index and mine is not None:
                    close(mine, other)
            if operator is ops.replace:
                count = len(rows) if used is None else int(used)
                close(old[:count], expected[:count])

    def test_rows_beyond_what_32_bits_count(self, gpu_kernels, vast_memory):
        buffer = vast_memory[: 2**31 + 1024].view(1, -1, 1024)
        index, rows = torch.tensor([2**21 - 1, 2**21]), torch.randn(2, 1024).half()
        buffer[0, index] = 0.0
        assert not gpu_kernels[ops.replace](buffer, index, rows, None, 512).any()
        assert torch.equal(buffer[0, index], rows)
        gpu_kernels[ops.store](buffer, index, rows.flip(0), None)
        assert torch.equal(gpu_kernels[ops.send](buffer, buffer, index, None, None, None, None), rows.flip(0))

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("place", [(0, 0, 0), (1, 80, 60), (2, 90, 70)])
    def test_finite(self, run, dtype, bad, place):
        images = torch.full((3, 3, 91, 71), torch.finfo(dtype).max, dtype=dtype)  # their sum overflows
        images[1][place] = bad
        images[2, :, ::2] *= -1
        assert run(ops.finite, images)[0].tolist() == [True, False, True]


def attention_arguments(grid, window, pool, heads, channels, positions=True):
    query_grid = (window, window) if window else grid
    tables = [0.5 * torch.randn(2 * size - 1, channels) for size in query_grid] if positions else []
    return tables, heads, channels**-0.5, (*grid, window, pool)


class TestAttend:
    @pytest.mark.parametrize(
        "dtype, grid, channels",
        [
            *in_types(((5, 7), 5)),
            *in_types(((1, 1), 16), torch.float32),
            *in_types(((2, 35), 24), torch.float32, torch.float16),
            *(pytest.param(dtype, (2, 70), 24, marks=pytest.mark.long) for dtype in TYPES),
            *in_types(((3, 5), 80), torch.float32, torch.bfloat16),
        ],
    )
    @pytest.mark.parametrize("positions", [True, False])
    def test_whole_frames(self, run, close, dtype, grid, channels, positions):
        """Also rows of the grid that are longer than a tile of keys."""
        sizes = attention_arguments(grid, 0, 1, 2, channels, positions)
        # Several streams of one size are enough: each of them takes the interpreter as long.
        qkv = torch.randn(2 if grid == (5, 7) else 1, grid[0] * grid[1], 6 * channels).to(dtype)
        result, _ = run(ops.attend, qkv, None, *sizes, dtype)
        close(result, in_double(ops.attend, qkv, None, *sizes, dtype)[0], 2)

    @pytest.mark.parametrize(
        "dtype, window, pool, padding",
        [
            *in_types((3, 1, True)),
            *in_types((3, 1, False)),
            *in_types((9, 1, True), torch.float32),
            *in_types((9, 1, False), torch.float16),
            *in_types((0, 2, True), torch.bfloat16),
            *in_types((0, 2, False), torch.float32),
        ],
    )
    def test_windows_and_pooling(self, run, close, dtype, window, pool, padding):
        """Also windows that are larger than the grid, and than a tile of queries or keys."""
        sizes = attention_arguments((4, 6), window, pool, 2, 16)
        streams = 2 if window == 3 else 1  # the others take the interpreter longer
        qkv, fill = torch.randn(streams, 24, 96).to(dtype), torch.randn(96).to(dtype) if padding else None
        result, _ = run(ops.attend, qkv, fill, *sizes, dtype)
        close(result, in_double(ops.attend, qkv, fill, *sizes, dtype)[0], 2)

    @pytest.mark.parametrize("score", [-1e4, 1e4])
    def test_scores_of_any_size(self, run, score):
        sizes = attention_arguments((6, 6), 0, 1, 1, 16, False)
        qkv = torch.randn(1, 36, 48)
        qkv[..., 16:32] *= 0.01
        qkv[..., 0], qkv[..., 16], qkv[0, 7, 16] = 1.0, score * 4, score * 8
        result, expected = (
            run(ops.attend, qkv, None, *sizes, torch.float32)[0],
            in_double(ops.attend, qkv, None, *sizes, None)[0],
        )
        # Scores of this size are themselves rounded by up to |score| 2^-24.
        torch.testing.assert_close(result.cpu().double(), expected, atol=1e-6 * abs(score) + 1e-5, rtol=0)

    @pytest.mark.parametrize(
        "dtype, index, used",
        [
            *in_types(([0, 1, 39, 40], None), torch.float32, torch.bfloat16),
            *in_types(([0, 1, 39, 40, 47, 47], 4), torch.float16),
            *in_types(([], None), torch.float32),
        ],
    )
    def test_windows_with_a_selected_token(self, run, close, dtype, index, used):
        sizes, out = attention_arguments((5, 8), 3, 1, 2, 8), torch.randn(2, 40, 16).to(dtype)
        qkv, padding = torch.randn(2, 40, 48).to(dtype), torch.randn(48).to(dtype)
        used = None if used is None else torch.tensor(used)
        arguments = (qkv, torch.tensor(index, dtype=torch.int64), used, out, padding, *sizes)
        touched, ours = run(ops.attend_windows, *arguments)
        expected, theirs = in_double(ops.attend_windows, *arguments)
        assert touched.tolist() == expected.tolist()
        close(ours[3], theirs[3], 2)


class TestSums:
    @pytest.mark.parametrize(
        "dtype, positions, pool, changed",
        [
            *in_types((True, 1, [[3, 17], []])),
            *in_types((False, 1, [[0, 1, 2, 23], [4]]), torch.float32, torch.float16),
            *in_types((True, 2, [[3, 17], []]), torch.float32, torch.bfloat16),
            # Which sums are computed again, and which keys a pool has, does not depend on the type.
            *in_types((True, 1, [list(range(20)), [7, 8]]), torch.float32),
            *in_types((True, 2, [[0, 1, 2, 23], [4]]), torch.float32),
        ],
    )
    def test_a_change(self, run, close, dtype, positions, pool, changed):
        """Sums of the frame before, then those of a frame in which some tokens changed: attention is that of the
        new frame."""
        sizes = attention_arguments((4, 6), 0, pool, 2, 16, positions)
        keys = 24 // pool**2
        q, kv = torch.randn(2, 24, 32).to(dtype), torch.randn(2, keys, 64).to(dtype)
        state = [torch.full((2, 2, 24, 16), torch.nan), *(torch.full((2, 2, 24), torch.nan) for _ in range(3))]
        executed, ours = run(ops.update_sums, q, kv, [], state, *sizes)
        assert executed.tolist() == [[0, 48], [0, 48]]
        index, offsets = places(changed, 24)
        changed_keys, key_offsets = places([sorted({token % keys for token in tokens}) for tokens in changed], keys)
        new_q, new_kv = q.clone(), kv.clone()
        new_q.view(48, 32)[index] = torch.randn(len(index), 32).to(dtype)
        new_kv.view(-1, 64)[changed_keys] = torch.randn(len(changed_keys), 64).to(dtype)
        change = [index, offsets, changed_keys, key_offsets, kv.view(-1, 64)[changed_keys]]
        executed, ours = run(ops.update_sums, new_q, new_kv, change, ours[3], *sizes)
        for stream, tokens in enumerate(changed):
            exchanged, recomputed = executed[stream].tolist()
            number = int(key_offsets[stream + 1] - key_offsets[stream])
            if not number:
                assert (exchanged, recomputed) == (0, 0)
            elif number > DENSE_ABOVE * keys:
                assert (exchanged, recomputed) == (0, 48)
            else:
                assert exchanged == 2 * (24 - len(tokens)) and recomputed >= 2 * len(tokens)
        result, _ = run(ops.divide, *ours[3][:2], torch.float32)
        _, theirs = in_double(ops.update_sums, new_q, new_kv, [], [part.double() for part in state], *sizes)
        close(result, (theirs[3][0] / theirs[3][1][..., None]).transpose(1, 2).flatten(2), 4)

    def test_streams_farther_apart_than_32_bits_count(self, gpu_kernels, vast_memory):
        sizes, near, results = attention_arguments((4, 6), 0, 1, 2, 16), torch.randn(3, 24, 96).half(), []
        far = vast_memory.unfold(0, 24 * 96, 2**30)[:3].view(3, 24, 96).copy_(near)
        tokens, offsets = torch.tensor([3, 50]), torch.tensor([0, 1, 1, 2])
        change = [tokens, offsets, tokens, offsets, torch.randn(2, 64).half()]
        for qkv in (near, far):
            state = [torch.empty(3, 2, 24, 16), *(torch.empty(3, 2, 24) for _ in range(3))]
            for changed in ([], change):
                gpu_kernels[ops.update_sums](qkv[..., :32], qkv[..., 32:], changed, state, *sizes)
                results.append([part.clone() for part in state])
        for of_near, of_far in zip(results[:2], results[2:]):
            assert all(map(torch.equal, of_near, of_far))

    def test_queries_that_drifted_are_computed_again(self, run):
        """A key that had nearly all the weight leaves: what remains of the sums is rounding."""
        sizes = attention_arguments((4, 6), 0, 1, 1, 16, False)
        q, kv = torch.ones(1, 24, 16), 0.1 * torch.randn(1, 24, 32)
        kv[0, 5, :16] = 10.0
        state = [torch.empty(1, 1, 24, 16), *(torch.empty(1, 1, 24) for _ in range(3))]
        _, ours = run(ops.update_sums, q, kv, [], state, *sizes)
        new_kv = kv.clone()
        new_kv[0, 5, :16] = 0.1
        token, offsets = torch.tensor([5]), torch.tensor([0, 1])
        change = [token, offsets, token, offsets, kv[0, 5:6].clone()]
        executed, ours = run(ops.update_sums, q, new_kv, change, ours[3], *sizes)
        assert executed.tolist() == [[23, 24]]
        _, theirs = in_double(ops.update_sums, q, new_kv, [], [part.double() for part in state], *sizes)
        torch.testing.assert_close(ours[3][0].cpu().double(), theirs[3][0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(ours[3][1].cpu().double(), theirs[3][1], atol=1e-4, rtol=1e-5)

    @pytest.mark.parametrize("before, after", [((0, 0), (12, 0)), ((12, 12), (0, 12)), ((0, 0), (40, 0))])
    def test_scores_far_above_the_reference(self, run, close, dtype, before, after):
        """Their weights are within what float32 holds, but not float16. The sums before are those of a CPU, relative to
        scores without these."""
        sizes = attention_arguments((4, 6), 0, 1, 1, 16, False)
        q, kv = torch.ones(1, 24, 16).to(dtype), torch.randn(1, 24, 32).to(dtype)
        kv[..., :16] = 0.0
        state = [torch.empty(1, 1, 24, 16), *(torch.empty(1, 1, 24) for _ in range(3))]
        ops.update_sums.reference(q, kv, [], state, *sizes)

        def change(scores: tuple[int, int]) -> tuple:
            keys, offsets, old = torch.tensor([5, 6]), torch.tensor([0, 2]), kv[0, 5:7].clone()
            kv[0, 5:7, :16] = torch.tensor(scores).to(dtype)[:, None] / 4  # of 16 channels, scaled by a quarter
            return q, kv, [keys, offsets, keys, offsets, old], state, *sizes

        ops.update_sums.reference(*change(before))
        _, (_, _, _, (sums, normalisers, *_), *_) = run(ops.update_sums, *change(after))
        result, _ = run(ops.divide, sums, normalisers, torch.float32)
        close(result, in_double(ops.attend, torch.cat([q, kv], dim=-1), None, *sizes, dtype)[0], 2)


def places(tokens: list[list[int]], each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of some streams as places among all, and where each stream's begin."""
    index = [stream * each + token for stream, some in enumerate(tokens) for token in some]
    offsets = [sum(map(len, tokens[:stream])) for stream in range(len(tokens) + 1)]
    return torch.tensor(index, dtype=torch.int64), torch.tensor(offsets)


class TestMissing:
    """Where kernels cannot run, operators are PyTorch operations, and the log says why."""

    @pytest.mark.parametrize(
        "module, attribute, value, reason",
        [
            ("os", "environ", {"EVENTFUL_VITDET_KERNELS": "off"}, "EVENTFUL_VITDET_KERNELS is off"),
            ("eventful_vit.ops.gpu", "find_spec", lambda name: None, "Triton is not installed"),
            ("triton", "__version__", "3.1.0", "Triton 3.1.0 is older than 3.4"),
            ("torch.version", "hip", "6.4", "the kernels are for NVIDIA's GPUs"),
        ],
    )
    def test_reasons(self, module, attribute, value, reason, monkeypatch, caplog, gpu_kernels):
        monkeypatch.setattr(importlib.import_module(module), attribute, value)
        monkeypatch.setattr(logging.getLogger("eventful_vit"), "propagate", True)
        with caplog.at_level("WARNING"):
            assert gpu.load_kernels.__wrapped__() is None
        (record,) = caplog.records
        assert record.message.startswith(f"GPU: frames run as PyTorch operations, slowly: {reason}")


@pytest.mark.parametrize(("streams", "side", "window", "fits"), [(15, 64, 1, 1), (16, 64, 1, 0), (3, 4, 0, 1)])
def test_more_windows_than_a_launch_has_programs_run_otherwise(streams, side, window, fits, gpu_kernels):
    """A GPU refuses a launch of 2^16 programs along a dimension but the first."""
    attention = importlib.import_module("eventful_vit.ops.gpu.attention")
    q = torch.empty(streams, side * side, 16, device="meta")
    assert attention.can_attend(q, 1, attention_layout(side, side, window)) == fits
