-- The same GET again and again; the path is in the address.
dofile("report.lua")
