-- etcd's JSON gateway: POST /v3/kv/put, key and value in base64.
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local draw_key, values, head

function init()
  bench.seed_thread()
  draw_key = bench.drawing_keys(bench.base64)
  values = bench.all_values(function(value) return '","value":"' .. bench.base64(value) .. '"}' end)
  -- All keys are of one length, and so are all values.
  local size = #'{"key":"' + #draw_key() + #values[1]
  head = "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. size .. '\r\n\r\n{"key":"'
end

function request()
  return head .. draw_key() .. bench.choose(values)
end
