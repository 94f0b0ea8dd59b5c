//go:build !race

package process

func raceFlags() []string { return nil }
