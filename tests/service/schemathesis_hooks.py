"""Arrow streams and arrays for schemathesis, which knows no such bodies: whole and broken ones, right and wrong."""

import io

import numpy as np
import pyarrow as pa
import schemathesis
from hypothesis import strategies as st


@st.composite
def arrow_streams(draw: st.DrawFn) -> bytes:
    n = draw(st.integers(0, 4))
    cells = {
        "age_years": st.floats() | st.none(),
        "sex": st.sampled_from(["female", "male", "unheard of"]),
        "smoker": st.booleans() | st.none(),
        "cholesterol_mg_dl": st.integers(0, 800),
        "weight_kg": st.floats(40, 100),
    }
    chosen = draw(st.lists(st.sampled_from(list(cells)), unique=True))
    table = pa.table({name: draw(st.lists(cells[name], min_size=n, max_size=n)) for name in chosen})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    whole = sink.getvalue().to_pybytes()
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


schemathesis.openapi.media_type("application/vnd.apache.arrow.stream", arrow_streams())


@st.composite
def npy_files(draw: st.DrawFn) -> bytes:
    shape = draw(st.sampled_from([(2, 50), (3, 2, 50), (8, 8), (2, 8, 8), (1, 8, 8), (50,), (0, 2, 50)]))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape) * draw(st.sampled_from([1, 0, 1e6]))
    file = io.BytesIO()
    np.save(file, numbers.astype(draw(st.sampled_from(["f4", "f8", ">f4", "i2", "U1", "O"]))))
    whole = file.getvalue()
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


schemathesis.openapi.media_type("application/x-npy", npy_files())
for kind in ("application/octet-stream", "image/png", "application/dicom"):
    schemathesis.openapi.media_type(kind, st.binary(max_size=500) | st.just(bytes(400)))
