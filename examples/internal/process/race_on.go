//go:build race

package process

// raceFlags make programs report races where this one does.
func raceFlags() []string { return []string{"-race"} }
