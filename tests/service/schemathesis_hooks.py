"""Arrow streams for schemathesis, which knows no such body: whole ones and broken ones, right and wrong columns."""

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
