"""What classify, regress and multi-inference share: tf.Examples in, one run, a result read from a signature's outputs.

Pure but for the model; main thread of the worker. TF Serving: servables/tensorflow/util.cc, classifier.cc and
regressor.cc. Serialized protos that are put one after the other parse as their merge, and of two features of one name
the later wins: so the context goes before each example.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format

from modelpool.supervisor.wire.parsing import parse
from modelpool.supervisor.wire.status import InvalidArgument
from modelpool.supervisor.wire.tensors import MAX_TENSOR_BYTES

from . import reply_bytes, rest_examples
from .model_spec import Identity, signature_key
from .plan import Model, Plan

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one method reads a signature: `classify.READING` and `regress.READING`.

    `noun` is the method's word in error texts. `endpoints` gives the tensor to feed and those to fetch;
    `fill_result` fills the method's result from a signature, the number of examples and the outputs by tensor name;
    `json` is that result as the body of a REST reply.
    """

    method_name: str
    noun: str
    request_type: Any
    response_type: Any
    endpoints: Callable[[Any], tuple[str, list[str]]]
    fill_result: Callable[[Any, Any, int, Outputs], None]
    json: Callable[[Any], bytes]

    def check_method_name(self, signature: Any) -> None:
        """Raises InvalidArgument (classifier.cc PreProcessClassification, regressor.cc PreProcessRegression)."""
        if signature.method_name != self.method_name:
            raise InvalidArgument(
                f"Expected {self.noun} signature method_name to be {self.method_name}. Was: {signature.method_name}"
            )


class ExamplesCall:
    """Classify or Regress, as `reading` says, on one loaded model.

    `check_method_names`: refuse signatures whose method_name is another. TF Serving's default is not to: what TF2
    exports always says predict.
    """

    def __init__(self, model: Model, identity: Identity, reading: Reading, *, check_method_names: bool = False) -> None:
        self._model = model
        self._identity = identity
        self._reading = reading
        self._check_method_names = check_method_names

    def grpc(self, payload: bytes) -> bytes:
        """A serialized request to a serialized response. Raises PoolError."""
        return self.plan_payload(payload).answer(self._model)

    def rest(self, payload: bytes) -> bytes:
        """A REST body to the JSON reply. Raises PoolError."""
        return self.plan_body(payload).answer(self._model)

    def plan_payload(self, payload: bytes) -> Plan:
        """A serialized request, to become a serialized response. Raises PoolError."""
        return self._plan(self.request_of_payload(payload), reply_bytes.serialize)

    def plan_body(self, payload: bytes) -> Plan:
        """A REST body, to become the JSON reply. Raises PoolError."""
        return self._plan(self.request_of_body(payload), lambda response: self._reading.json(response.result))

    def request_of_payload(self, payload: bytes) -> Any:
        """The request that was sent by gRPC. Raises PoolError. Any thread."""
        return parse(self._reading.request_type, payload)

    def request_of_body(self, payload: bytes) -> Any:
        """The request that asks what a REST body asks. Raises PoolError. Any thread."""
        asked = self._reading.request_type()
        asked.model_spec.name = self._identity.name
        rest_examples.fill_request(asked, payload)
        return asked

    def respond(self, asked: Any) -> Any:
        """A request to a response. Raises PoolError."""
        responses: list[Any] = []

        def keep(response: Any) -> bytes:
            responses.append(response)
            return b""

        self._plan(asked, keep).answer(self._model)
        return responses[0]

    def _plan(self, asked: Any, write: Callable[[Any], bytes]) -> Plan:
        """`write` makes the reply of the response."""
        key = signature_key(asked.model_spec)
        signature = self._model.signatures.get(key)
        if signature is None:
            raise InvalidArgument(f"No signature was found with the name: {key}")
        if self._check_method_names:
            self._reading.check_method_name(signature)
        input_name, output_names = self._reading.endpoints(signature)
        vector = serialized(asked.input)

        def finish(outputs: list[np.ndarray]) -> bytes:
            response = self._reading.response_type()
            self._identity.fill(response.model_spec, key)
            named = dict(zip(output_names, outputs, strict=True))
            self._reading.fill_result(response.result, signature, len(vector), named)
            return write(response)

        return Plan({input_name: vector}, output_names, finish, (key,))


def serialized(request_input: Any) -> np.ndarray:
    """A tensorflow.serving.Input to a string tensor [batch]. TF Serving: InputToSerializedExampleTensor.

    Raises InvalidArgument when there is no example, or a context that before each of them is more than any message.
    """
    kind = request_input.WhichOneof("kind")
    listed = getattr(request_input, kind).examples if kind else ()
    if not listed:
        raise InvalidArgument("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        if len(context) * len(listed) > MAX_TENSOR_BYTES:
            raise InvalidArgument(
                f"A context of {len(context)} bytes for each of {len(listed)} examples is more than {MAX_TENSOR_BYTES} "
                "bytes"
            )
    vector = np.empty(len(listed), object)
    vector[:] = [context + example.SerializeToString() for example in listed]
    return vector


def signature_text(signature: Any) -> str:
    """A SignatureDef as DebugString writes it: maps in the order of their keys, other bytes than ASCII escaped."""
    return text_format.MessageToString(signature, as_utf8=False)
