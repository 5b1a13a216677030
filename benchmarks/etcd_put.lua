-- etcd's JSON gateway: POST /v3/kv/put, key and value in base64.
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local keys, values, head

function init()
  bench.seed_thread()
  keys = bench.all_keys(function(key) return '{"key":"' .. bench.base64(key) end)
  values = bench.all_values(function(value) return '","value":"' .. bench.base64(value) .. '"}' end)
  -- All keys are of one length, and so are all values.
  head = "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. #keys[1] + #values[1] .. "\r\n\r\n"
end

function request()
  return head .. bench.choose(keys) .. bench.choose(values)
end
