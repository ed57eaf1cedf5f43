// Command table lays CSV out in columns: CSV on stdin, an aligned table and column totals on stdout.
package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(from io.Reader, to io.Writer) error {
	rows, err := csv.NewReader(from).ReadAll()
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("no rows")
	}
	table := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	for _, row := range append(rows, totals(rows)) {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}

// totals sums each column whose every cell, below the header, is a number.
func totals(rows [][]string) []string {
	line := make([]string, len(rows[0]))
	for column := range line {
		sum, numeric := 0.0, len(rows) > 1
		for _, row := range rows[1:] {
			value, err := strconv.ParseFloat(row[column], 64)
			numeric = numeric && err == nil
			sum += value
		}
		if numeric {
			line[column] = strconv.FormatFloat(sum, 'f', -1, 64)
		}
	}
	if line[0] == "" {
		line[0] = "total"
	}
	return line
}
