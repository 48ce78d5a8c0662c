module golang

go 1.18
