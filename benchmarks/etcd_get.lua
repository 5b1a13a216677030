-- etcd's JSON gateway: POST /v3/kv/range for one key, linearizable (the default).
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local requests

function init()
  bench.seed_thread()
  requests = bench.all_keys(function(key)
    local body = '{"key":"' .. bench.base64(key) .. '"}'
    return "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
  end)
end

function request()
  return bench.choose(requests)
end
