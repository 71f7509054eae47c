-- GETs one cart at random. Arguments: the path before the id, a file of ids, each with as many characters, one a line.
dofile("report.lua")
local before, after, ids, width, last

function init(arguments)
  local file = assert(io.open(arguments[2], "rb"))
  ids = file:read("*a")
  file:close()
  width = ids:find("\n", 1, true)
  last = #ids / width - 1
  before, after = split(wrk.format("GET", arguments[1] .. "ID"), "ID")
  math.randomseed(os.time() * 8 + number)
end

function request()
  local from = math.random(0, last) * width
  return before .. ids:sub(from + 1, from + width - 1) .. after
end
