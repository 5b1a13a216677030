-- PUT /v1/kv/NAME with the value as the raw body.
local here = debug.getinfo(1, "S").source:match("^@(.*/)")
local bench = dofile(here .. "common.lua")

local draw_key, values

function init()
  bench.seed_thread()
  draw_key = bench.drawing_keys(function(key) return key end)
  values = bench.all_values(function(value)
    return " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " .. #value .. "\r\n\r\n" .. value
  end)
end

function request()
  return "PUT /v1/kv/" .. draw_key() .. bench.choose(values)
end
