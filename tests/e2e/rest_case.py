"""One row of the table of REST cases, and the names that rows share. Pure."""

from dataclasses import dataclass, field
from typing import Any

REGEX = "model_servers/http_rest_api_util.cc: ParseModelInfo"
PROCESS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessRequest"
SERVER = "model_servers/http_server.cc: RestApiRequestDispatcher::ProcessRequest"
PREDICT = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessPredictRequest"
CLASSIFY = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessClassifyRequest"
REGRESS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessRegressRequest"
METADATA = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessModelMetadataRequest"
STATUS = "model_servers/http_rest_api_handler.cc: HttpRestApiHandler::ProcessModelStatusRequest"
LOOKUP = "model_servers/server_core.cc: ServableRequestFromModelSpec"
JSON = "util/json_tensor.cc: "
FILL = JSON + "FillPredictRequestFromJson"
ROWS = JSON + "FillTensorMapFromInstancesList"
COLUMNS = JSON + "FillTensorMapFromInputsMap"
VALUE = JSON + "AddValueToTensor"
DENSE_SHAPE = JSON + "GetDenseTensorShape"
EXAMPLES = JSON + "FillExampleFromJson"
LIST = JSON + "FillClassifyRegressRequestFromJson"
DECIMAL = JSON + "WriteDecimal"
WRITE = JSON + "AddSingleValueAndAdvance"
ROW_REPLY = JSON + "MakeRowFormatJsonFromTensors"
COLUMN_REPLY = JSON + "MakeColumnarFormatJsonFromTensors"

HALF, SUM = "/v1/models/half_plus_two:predict", "/v1/models/sum:predict"
DTYPES, TWISTED = "/v1/models/dtypes:predict", "/v1/models/twisted:predict"
CLASSIFY_PATH, REGRESS_PATH = "/v1/models/half_plus_two:classify", "/v1/models/half_plus_two:regress"
MALFORMED = "Malformed request: "


@dataclass(frozen=True)
class RestCase:
    """`expected`: an error's text (its beginning where it ends in "..."), or a reply's JSON; `exactly`: its bytes."""

    id: str
    path: str
    body: str | None
    status: int
    expected: Any
    source: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    exactly: bool = False
