-- What the scripts for wrk share: the same keys, values and report for both systems.
--
-- The settings come through the environment, because wrk gives its arguments to
-- init() only, which is too late to choose a thread's address:
--   BENCH_ADDRESSES   host:port host:port ...; thread n connects to the n-th, in turn
--   BENCH_KEYS        how many keys there are, bench:00000000 and so on; below 10^8
--   BENCH_VALUE_SIZE  bytes of each value
--   BENCH_SEED        of the choice of keys

local bench = {}

local VALUES = 16 -- different values, so that nothing can compress them all into one
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local keys = tonumber(os.getenv("BENCH_KEYS"))
local value_size = tonumber(os.getenv("BENCH_VALUE_SIZE"))
local seed = tonumber(os.getenv("BENCH_SEED"))

function bench.base64(text)
  local out = {}
  for i = 1, #text, 3 do
    local a, b, c = text:byte(i, i + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    for place, divisor in ipairs({262144, 4096, 64, 1}) do
      local digit = math.floor(bits / divisor) % 64
      local padding = (place == 3 and not b) or (place == 4 and not c)
      out[#out + 1] = padding and "=" or ALPHABET:sub(digit + 1, digit + 1)
    end
  end
  return table.concat(out)
end

-- A function that draws a key and returns it encoded, from pieces encoded beforehand.
-- Every 3 bytes become 4 in base64, so pieces of 6, 3, 3 and 2 bytes can be put together.
--
-- Not a list of all keys: wrk starts a thread before it calls the next one's init(), and
-- its clock only behind the last. What the first answers meanwhile would count.
function bench.drawing_keys(encode)
  local head, threes, twos = encode("bench:"), {}, {}
  for i = 0, 999 do threes[i] = encode(string.format("%03d", i)) end
  for i = 0, 99 do twos[i] = encode(string.format("%02d", i)) end
  local floor, random = math.floor, math.random
  return function()
    local number = random(0, keys - 1)
    return head .. threes[floor(number / 100000)] .. threes[floor(number / 100) % 1000]
      .. twos[number % 100]
  end
end

function bench.all_values(encode)
  local made = {}
  for i = 1, VALUES do
    local bytes = {}
    for j = 1, value_size do
      bytes[j] = string.char(math.random(0, 255))
    end
    made[i] = encode(table.concat(bytes))
  end
  return made
end

-- To be called first in init(): every thread draws its own sequence of keys.
function bench.seed_thread()
  math.randomseed(seed * 100 + thread_number)
end

function bench.choose(list)
  return list[math.random(#list)]
end

-- wrk's hooks

local threads = 0

function setup(thread)
  local addresses = {}
  for host, port in os.getenv("BENCH_ADDRESSES"):gmatch("(%S+):(%d+)") do
    addresses[#addresses + 1] = wrk.lookup(host, port)[1]
  end
  thread.addr = addresses[threads % #addresses + 1]
  thread:set("thread_number", threads)
  threads = threads + 1
end

-- One line that benchmarks/wrk.py reads; durations and latencies in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end

return bench
