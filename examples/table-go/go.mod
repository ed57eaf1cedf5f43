module dunlin.example/table

go 1.23
