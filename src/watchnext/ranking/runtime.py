"""The ranking network as it serves: the predictions of the training code, in a fraction of its time."""

import math
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit
from torch import nn
from torch.nn.functional import pad

from watchnext.examples.quantiles import Lookup
from watchnext.features.inputs import RankingInputs
from watchnext.layers.embedding import EmbeddingTable
from watchnext.native import as_array, fetch_ahead, rounded, widened
from watchnext.ranking.network import Predictions, RankingNetwork
from watchnext.ranking.products import ByteLayer, FloatLayer, MixedLayer, chosen_precision, padded, padding
from watchnext.shapes import Array, Float, Int, Num, Tensor

_ROWS_AT_ONCE = 1024
_ROWS_OF_A_STEP = 64
_IDS_AHEAD = 8


class Ranker:
    """A trained network laid out once for requests: think of it as `RankingNetwork.predictions`, compiled by hand.

    What the candidates of a user share is computed once: the query's part of the first layer is the bias of the
    product with the candidates' part. What is read of candidates is written straight in the form which that product
    takes. Factors of the tower's products are rounded as `precision` says, but for the query's; sums and biases are
    exact or float32. In int8, embeddings are not rounded either. A user's predictions do not depend on who else is
    asked for.

    `network` is what it was made from, on the CPU. `precision` is what it computes in: float32 where the processor, or
    a network without hidden layers or continuous features, has nothing else. `num_inputs` is how many numbers enter
    the first layer for each candidate.
    """

    def __init__(self, network: RankingNetwork, precision: str) -> None:
        self.network = network.eval()
        self._query_lookup = Lookup.of(network.query_quantiles, np.float32, exact=False)
        self._lookup = Lookup.of(network.quantiles, np.float32, exact=False)
        self._query_tables = _weights(network.videos, *network.query_ids)
        self._tables = _weights(network.videos, network.channels, network.tags, *network.video_ids)
        layers = [layer for layer in network.tower.layers if isinstance(layer, nn.Linear)]
        first, *hidden = (*layers, network.outputs)
        num_embedded = sum(table.shape[1] for table in self._tables)
        num_own = num_embedded + (3 if network.config.powers else 1) * len(self._lookup.used)
        self.num_inputs = first.weight.shape[1]
        own = first.weight[:, -num_own:]
        self.precision = chosen_precision(precision) if layers and num_own > num_embedded else "float32"
        self._query = FloatLayer(padded(first.weight[:, :-num_own]), first.bias, torch.float32, relu=False)
        self._first: FloatLayer | MixedLayer
        self._others: list[FloatLayer | ByteLayer]
        if self.precision == "int8":
            self._first = MixedLayer(own, first.bias, num_embedded)
            self._others = [ByteLayer(layer.weight, layer.bias) for layer in hidden[:-1]]
        else:
            dtype: torch.dtype = getattr(torch, self.precision)
            self._first = FloatLayer(padded(own), first.bias, dtype, relu=bool(layers))
            self._others = [FloatLayer(layer.weight, layer.bias, dtype, relu=True) for layer in hidden[:-1]]
        if hidden:
            self._others.append(FloatLayer(network.outputs.weight, network.outputs.bias, torch.float32, relu=False))

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
        height = (0, 0, 0, _padding_rows(candidates))
        matrices = [pad(rows.reshape(batch, candidates, -1), height) for rows in self.candidate_rows(inputs)]
        biases = self._query(self.query_rows(inputs))
        activations = [self._of_user([rows[user] for rows in matrices], biases[user]) for user in range(batch)]
        together = activations[0] if batch == 1 else torch.cat(activations)
        for layer in self._others:
            together = layer(together)
        return together.reshape(batch, matrices[0].shape[1], -1)[:, :candidates]

    def _of_user(
        self, matrices: list[Num[Tensor, "rows _"]], bias: Float[Tensor, "outputs"]
    ) -> Float[Tensor, "rows outputs"]:
        """The first layer's activations for one user's candidates, whose bias is what they share."""
        if isinstance(self._first, MixedLayer):
            embedded, numbers = matrices
            return self._first(embedded, numbers, bias)
        (rows,) = matrices
        return self._first(rows, bias)

    def query_rows(self, inputs: RankingInputs) -> Float[Tensor, "batch inputs"]:
        """Gives what the first layer takes of each query, in the order of the network's inputs."""
        bags = [inputs.last_watched, *inputs.query_ids.T]
        (rows,) = self._rows(self._query_tables, bags, inputs.query_values, self._query_lookup, torch.float32)
        return rows

    def candidate_rows(self, inputs: RankingInputs) -> list[Num[Tensor, "rows _"]]:
        """Gives what the first layer takes of each candidate, in the order of the network's inputs.

        For int8 the embeddings are a matrix of their own.
        """
        bags = [inputs.video_row, inputs.channel_row, inputs.tag_rows, *np.moveaxis(inputs.video_ids, 2, 0)]
        dtype = torch.uint8 if isinstance(self._first, MixedLayer) else self._first.dtype
        return self._rows(self._tables, bags, inputs.values, self._lookup, dtype)

    def _rows(
        self,
        tables: list[Array],
        bags: list[Int[Array, "..."]],
        values: Float[Array, "..."],
        lookup: Lookup,
        dtype: torch.dtype,
    ) -> list[Num[Tensor, "rows _"]]:
        """The mean vectors of bags, an id alone being one too, then the quantiles of values, each then zeros."""
        values = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
        powers = self.network.config.powers
        num_embedded, num_values = sum(table.shape[1] for table in tables), (3 if powers else 1) * len(lookup.used)
        if dtype == torch.uint8:
            embedded, numbers = _empty(len(values), num_embedded, torch.float32), _empty(len(values), num_values, dtype)
            matrices, first = [embedded, numbers], 0
        else:
            embedded = numbers = _empty(len(values), num_embedded + num_values, dtype)
            matrices, first = [embedded], num_embedded
        place = 0
        for table, ids in zip(tables, bags, strict=True):
            own = np.ascontiguousarray(ids.reshape(len(values), -1), dtype=np.int64)
            _write_means(table, own, as_array(embedded), place)
            place += table.shape[1]
        lookup.write(values, as_array(numbers), first, powers)
        return matrices


def _empty(count: int, width: int, dtype: torch.dtype) -> Num[Tensor, "rows _"]:
    """Room for rows of a width, and the zeros that fill them up."""
    rows = torch.empty(count, width + padding(width), dtype=dtype)
    rows[:, width:] = 0
    return rows


def _weights(*tables: nn.Module) -> list[Array]:
    return [as_array(table.weight) for table in tables if isinstance(table, EmbeddingTable)]


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
