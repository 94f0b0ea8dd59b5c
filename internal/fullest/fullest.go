// Package fullest finds who has most of what is counted by name.
package fullest

// Of returns the first name, in order, that has most, and how many. It is empty where nobody has any.
func Of[C any](counts map[string]C, size func(C) int) (name string, most int) {
	for k, c := range counts {
		if n := size(c); n > most || n == most && most > 0 && k < name {
			name, most = k, n
		}
	}
	return name, most
}

// Count returns the same of plain counts.
func Count(counts map[string]int) (name string, most int) {
	return Of(counts, func(n int) int { return n })
}
