-- wrk's script: cycles through the bodies of a file (each one's length on a line, then itself), and prints what it saw
-- as one line of JSON. wrk … -s wrk.lua URL -- PATH FILE CONTENT-TYPE

local bodies, position = {}, 0

function init(args)
  local headers = { ["Content-Type"] = args[3] }
  local file = assert(io.open(args[2], "rb"))
  local length = file:read("*n", 1)
  while length do
    bodies[#bodies + 1] = wrk.format("POST", args[1], headers, file:read(length))
    length = file:read("*n", 1)
  end
  file:close()
end

function request()
  position = position % #bodies + 1
  return bodies[position]
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"wrk": true, "seconds": %.6f, "answers": %d, "refused": %d, "broken": %d, "timeouts": %d, '
      .. '"p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}',
    summary.duration / 1e6, summary.requests, errors.status, errors.connect + errors.read + errors.write,
    errors.timeout, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3))
end
