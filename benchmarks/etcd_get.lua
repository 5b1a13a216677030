-- etcd's JSON gateway: POST /v3/kv/range for one key, linearizable (the default).
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local draw_key, head

function init()
  bench.seed_thread()
  draw_key = bench.drawing_keys(bench.base64)
  -- All keys are of one length.
  local size = #'{"key":""}' + #draw_key()
  head = "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. size .. '\r\n\r\n{"key":"'
end

function request()
  return head .. draw_key() .. '"}'
end
