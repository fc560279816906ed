"""The ranking network as it serves: the predictions of the training code, in a fraction of its time."""

import math
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit
from torch import nn
from torch.nn.functional import linear, pad

from watchnext.examples.quantiles import Lookup
from watchnext.features.inputs import RankingInputs
from watchnext.layers.embedding import EmbeddingTable
from watchnext.native import as_array, fetch_ahead, rounded, widened
from watchnext.ranking.network import Predictions, RankingNetwork
from watchnext.shapes import Array, Float, Int, Tensor

_ROWS_AT_ONCE = 1024
_USUAL_ROWS = 512
_ROWS_OF_A_STEP = 64
_NUMBERS_OF_A_LINE = 32
_IDS_AHEAD = 8


class Ranker:
    """A trained network laid out once for requests: think of it as `RankingNetwork.predictions`, compiled by hand.

    What the candidates of a user share is computed once: the query's part of the first layer is the bias of the
    product with the candidates' part. What is read of candidates is written straight in the form which that product
    takes. In bfloat16, the factors of the tower's products are rounded, but for the query's; sums and biases are
    float32. A user's predictions do not depend on who else is asked for.

    `network` is what it was made from, on the CPU. `precision` is what it computes in: float32 where the processor has
    no instructions for bfloat16. `num_inputs` is how many numbers enter the first layer for each candidate.
    """

    def __init__(self, network: RankingNetwork, precision: str) -> None:
        self.network = network.eval()
        self.precision = precision if has_bfloat16() else "float32"
        self._query_lookup = Lookup.of(network.query_quantiles, np.float32, exact=False)
        self._lookup = Lookup.of(network.quantiles, np.float32, exact=False)
        self._query_tables = _weights(network.videos, *network.query_ids)
        self._tables = _weights(network.videos, network.channels, network.tags, *network.video_ids)
        dtype: torch.dtype = getattr(torch, self.precision)
        layers = [layer for layer in (*network.tower.layers, network.outputs) if isinstance(layer, nn.Linear)]
        types = [dtype if layer is not network.outputs else torch.float32 for layer in layers]
        relus = [layer is not network.outputs for layer in layers]
        num_own = _num_inputs(self._tables, self._lookup, network.config.powers)
        weight, bias = layers[0].weight, layers[0].bias
        self.num_inputs = weight.shape[1]
        self._query = _Layer(_padded(weight[:, :-num_own]), bias, torch.float32, relu=False)
        self._first = _Layer(_padded(weight[:, -num_own:]), bias, types[0], relus[0])
        self._others = [
            _Layer(layer.weight, layer.bias, dtype, relu)
            for layer, dtype, relu in zip(layers[1:], types[1:], relus[1:], strict=True)
        ]

    @torch.inference_mode()
    def predictions(self, inputs: RankingInputs) -> Predictions:
        """Gives what the network says of candidates, on a page of no place in particular."""
        batch, candidates = inputs.video_row.shape
        outputs = torch.empty(batch, candidates, self.network.outputs.out_features)
        users_at_once = max(1, _ROWS_AT_ONCE // max(1, candidates))
        for start in range(0, batch if candidates else 0, users_at_once):
            users = slice(start, start + users_at_once)
            outputs[users] = self._outputs(inputs.part(users))
        return self.network.meaning(outputs, inputs)

    def _outputs(self, inputs: RankingInputs) -> Float[Tensor, "batch candidates outputs"]:
        batch, candidates = inputs.video_row.shape
        rows = pad(self.candidate_rows(inputs).reshape(batch, candidates, -1), (0, 0, 0, _padding_rows(candidates)))
        biases = self._query(self.query_rows(inputs))
        activations = [self._first(own, bias) for own, bias in zip(rows, biases, strict=True)]
        together = activations[0] if batch == 1 else torch.cat(activations)
        for layer in self._others:
            together = layer(together)
        return together.reshape(batch, rows.shape[1], -1)[:, :candidates]

    def query_rows(self, inputs: RankingInputs) -> Float[Tensor, "batch inputs"]:
        """Gives what the first layer takes of each query, in the order of the network's inputs."""
        bags = [inputs.last_watched, *inputs.query_ids.T]
        return self._rows(self._query_tables, bags, inputs.query_values, self._query_lookup, torch.float32)

    def candidate_rows(self, inputs: RankingInputs) -> Float[Tensor, "rows inputs"]:
        """Gives what the first layer takes of each candidate, in the order of the network's inputs."""
        bags = [inputs.video_row, inputs.channel_row, inputs.tag_rows, *np.moveaxis(inputs.video_ids, 2, 0)]
        return self._rows(self._tables, bags, inputs.values, self._lookup, self._first.dtype)

    def _rows(
        self,
        tables: list[Array],
        bags: list[Int[Array, "..."]],
        values: Float[Array, "..."],
        lookup: Lookup,
        dtype: torch.dtype,
    ) -> Float[Tensor, "rows inputs"]:
        """The mean vectors of bags, an id alone being one too, then the quantiles of values, then zeros."""
        values = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
        powers = self.network.config.powers
        end = _num_inputs(tables, lookup, powers)
        rows = torch.empty(len(values), end + _padding(end), dtype=dtype)
        target, place = as_array(rows), 0
        for table, ids in zip(tables, bags, strict=True):
            own = np.ascontiguousarray(ids.reshape(len(values), -1), dtype=np.int64)
            _write_means(table, own, target, place)
            place += table.shape[1]
        lookup.write(values, target, place, powers)
        target[:, end:] = 0
        return rows


class _Layer:
    """A layer for many rows at a time: weights of one type, lying as the products of oneDNN want them."""

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], dtype: torch.dtype, relu: bool
    ) -> None:
        self.dtype = dtype
        self.bias = bias.detach()
        self.relu = relu
        self.weight = weight.detach().to(dtype).contiguous()
        self.is_packed = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _USUAL_ROWS)

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], bias: Float[Tensor, "outputs"] | None = None
    ) -> Float[Tensor, "rows outputs"]:
        """Gives the activations; `bias` takes the place of the layer's own."""
        bias = self.bias if bias is None else bias
        rows = rows.to(self.dtype)
        if self.is_packed:
            after = "relu" if self.relu else "none"
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, bias, after, [], "")
            return product
        product = linear(rows, self.weight, bias)
        return product.relu_() if self.relu else product


def has_bfloat16() -> bool:
    """Says whether the processor multiplies bfloat16; PyTorch calls it supported also where that is imitated."""
    has_products: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # left untyped
    return has_products and torch.cpu._is_avx512_bf16_supported()


def _num_inputs(tables: list[Array], lookup: Lookup, powers: bool) -> int:
    num_components: int = sum(table.shape[1] for table in tables)
    return num_components + (3 if powers else 1) * len(lookup.used)


def _weights(*tables: nn.Module) -> list[Array]:
    return [as_array(table.weight) for table in tables if isinstance(table, EmbeddingTable)]


def _padded(weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs _"]:
    """The weight of rows that zeros fill up to whole lines of memory, which makes products faster."""
    return pad(weight, (0, _padding(weight.shape[1])))


def _padding(num_inputs: int) -> int:
    return -num_inputs % _NUMBERS_OF_A_LINE


def _padding_rows(candidates: int) -> int:
    """Rows that make their number a usual one: oneDNN keeps a megabyte and a half of code for each that it meets."""
    return -candidates % _ROWS_OF_A_STEP if candidates > _ROWS_OF_A_STEP else 0


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _write_means(table: Any, bags: Any, rows: Any, first: Any) -> None:  # pragma: no cover  # compiled
    """Writes the mean vector of each bag, row 0 left out, into columns of `rows` from `first` on."""
    dim, length = table.shape[1], bags.shape[1]
    vectors, ids = table.reshape(-1), bags.reshape(-1)
    total = np.empty(dim, np.float32)
    for bag in range(len(bags)):
        total[:] = 0.0
        count = 0
        for place in range(length):
            ahead = bag * length + place + _IDS_AHEAD
            if ahead < len(ids):
                for component in range(0, dim, 64 // table.itemsize):
                    fetch_ahead(vectors, ids[ahead] * dim + component)
            if bags[bag, place] > 0:
                count += 1
                vector = table[bags[bag, place]]
                for component in range(dim):
                    total[component] += widened(vector[component])
        share = np.float32(1.0) / np.float32(max(count, 1))
        target = rows[bag, first : first + dim]
        for component in range(dim):
            target[component] = rounded(total[component] * share, target[component])
