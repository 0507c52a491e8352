"""A block of requests becomes a block of decisions.

Arrow record batches come in, Arrow record batches of one schema come out.  Columns are handed to
the kernel (``_kernels.route_block``) as buffers, and no Python object is made for a request.  Every
road of ``tinydancer.etl`` to a decision ends here; ``tinydancer.etl.matches`` is the counterpart
for semantic routes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydancer import _kernels
from tinydancer.etl.block import Block, check_fields, key_fields, plain, problems, text_buffers
from tinydancer.etl.columns import INPUTS, Roles
from tinydancer.etl.terms import Arrays, Options, Terms
from tinydancer.route import Router

__all__ = ["Decider", "Options"]

# Why a request with words has no decision.
NO_AGENT = "no eligible agent"

# Where fewer of the texts of a batch are different, each different one is decided once.
FEW = 0.9


class Decider:
    """Decides blocks of requests with one registry, one set of options.

    Args:
        router: the registry.
        options: objective and limits of all requests, where columns say nothing else.
        reasoning: whether decisions carry their sentence.
        cost_scale: USD at which cost_utility is 0.5.
        latency_scale: ms at which latency_utility is 0.5.

    Raises:
        InvalidInputError: for an unknown objective or a limit that is none.
    """

    inputs = INPUTS

    def __init__(
        self,
        router: Router,
        options: Options | None = None,
        *,
        reasoning: bool = False,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> None:
        self.router = router
        self.options = Options() if options is None else options
        self.reasoning = reasoning
        self.cost_scale = cost_scale
        self.latency_scale = latency_scale
        self._terms = Terms(router, self.options)
        self._agents = pa.array([agent.name for agent in router.agents], pa.string())

    def schema(self, roles: Roles, source: pa.Schema) -> pa.Schema:
        """What comes out of batches of a schema: the key, the columns of route_results, problem."""
        taken = key_fields(roles, source)
        taken.append(pa.field("agent_name", pa.string()))
        for name in (
            "confidence",
            "estimated_cost",
            "estimated_latency_ms",
            "expected_quality",
            "similarity",
        ):
            taken.append(pa.field(name, pa.float64()))
        if self.reasoning:
            taken.append(pa.field("reasoning", pa.large_string()))
        taken.append(pa.field("problem", pa.string()))
        check_fields(taken)
        return pa.schema(taken)

    def block(self, batch: pa.RecordBatch, roles: Roles) -> pa.RecordBatch:
        """Decide a batch: one row for each of its rows, in its order.

        Raises:
            InvalidInputError: for a limit, a vector or a text that is none, and its subclasses; the
                detail names the row.
        """
        block = Block(batch, roles, self.router.encoder)
        terms = self._terms.of(batch, roles, block.name_row)
        spread = None
        if terms is self._terms.common and block.vectors is None and block.array is not None:
            # Where texts repeat, each different one is decided once.
            coded = block.array.dictionary_encode()
            if len(coded.dictionary) < FEW * len(coded) and coded.null_count == 0:
                spread = coded.indices.to_numpy(zero_copy_only=False)
                block.texts = text_buffers(coded.dictionary)
        found = self._decide(block, terms)
        if spread is not None:
            found["spread"] = spread
        return self._rows(block, found, self.schema(roles, batch.schema))

    def _decide(self, block: Block, terms: Arrays) -> Arrays:
        """The one call that decides."""
        router = self.router
        found: Arrays = _kernels.route_block(
            router._registry,
            block.encoder,
            texts=block.texts,
            vectors=block.vectors,
            mu=router.encoder.fit_mu,
            s=router.encoder.fit_s,
            objectives=self._terms.objectives,
            weights=self._terms.weights,
            cost_scale=self.cost_scale,
            latency_scale=self.latency_scale,
            reasoning=self.reasoning,
            model=router.model,
            outputs=router._outputs,
            **terms,
        )
        return found

    def _rows(self, block: Block, found: Arrays, schema: pa.Schema) -> pa.RecordBatch:
        spread = found.pop("spread", None)
        sentences = found.pop("reasoning")
        if sentences is not None:
            offsets, data = sentences
            texts = pa.LargeStringArray.from_buffers(
                len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data)
            )
        if spread is not None:
            found = {name: values[spread] for name, values in found.items()}
            if sentences is not None:
                texts = texts.take(pa.array(spread))
        block.raise_failures(found["status"])
        missing = found["agent"] == _kernels.NONE
        chosen = pa.array(np.where(missing, 0, found["agent"]).astype(np.int64), mask=missing)
        quality = pa.array(found["expected_quality"], mask=missing)
        columns = [block.batch.column(field.name) for field in key_fields(block.roles, schema)]
        columns = [plain(column) for column in columns]
        columns += [
            self._agents.take(chosen),
            quality,
            pa.array(found["cost"], mask=np.isnan(found["cost"])),
            pa.array(found["latency"], mask=np.isnan(found["latency"])),
            quality,
            pa.array(found["similarity"].astype(np.float64), mask=missing),
        ]
        if sentences is not None:
            columns.append(pc.if_else(pa.array(missing), pa.scalar(None, pa.large_string()), texts))
        columns.append(problems(found["status"], missing, NO_AGENT))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def fingerprint(self) -> str:
        """What decisions depend on besides request and options, as 64 hexadecimal digits."""
        router = self.router
        hashed = hashlib.sha256()
        registry = router._registry
        facts = [
            router.encoder.id,
            # Where the file of the encoder is not here, its vectors are all that counts.
            getattr(router.encoder, "checksum", None),
            router.encoder.fit_mu,
            router.encoder.fit_s,
            None if router.model is None else router.model.checksum,
            self.cost_scale,
            self.latency_scale,
            [agent.name for agent in router.agents],
            sorted(router._pools),
            sorted(router._capabilities),
            router._phrases,
            [(name, asdict(policy)) for name, policy in sorted(router.policies.items())],
        ]
        hashed.update(repr(facts).encode("utf-8", "surrogatepass"))
        for array in registry.arrays:
            hashed.update(array.tobytes())
        return hashed.hexdigest()

    def job(self) -> Arrays:
        """What of the decider a cut run must have in common with the one that continues it."""
        options = {one.name: getattr(self.options, one.name) for one in fields(Options)}
        return {"command": "route", "options": options, "reasoning": self.reasoning}
