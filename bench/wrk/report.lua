-- What every load ends with: one line of JSON for the bench.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"failed":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

-- A number of its own for each thread, from 1.
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

-- What comes before a word and what comes after it: a request that is made once is cheaper than one that is made each time.
function split(text, word)
  local from, to = text:find(word, 1, true)
  return text:sub(1, from - 1), text:sub(to + 1)
end
