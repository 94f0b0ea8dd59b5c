package depgraph

import (
	"errors"
	"fmt"
	"strings"
)

// What [Graph.StartupOrder] fails with, for [errors.Is].
var (
	// ErrCycle says that plugins wait for each other; the error is a [*CycleError].
	ErrCycle = errors.New("dependency cycle")
	// ErrMissing says that a plugin requires what nobody else provides; the error is, or
	// wraps, a [*MissingError].
	ErrMissing = errors.New("missing dependency")
)

// CycleError names plugins that wait for each other.
type CycleError struct {
	// Plugins are runtime ids; each requires what the next one provides, and the last one
	// is the first one again.
	Plugins []string
}

// Error names the plugins one by one.
func (e *CycleError) Error() string {
	return ErrCycle.Error() + ": " + strings.Join(e.Plugins, " -> ")
}

// Is reports whether target is [ErrCycle].
func (e *CycleError) Is(target error) bool { return target == ErrCycle }

// MissingError names a requirement that no other plugin satisfies.
type MissingError struct {
	// Plugin is the runtime id of the plugin that requires Type in the version MinVersion.
	Plugin, Type, MinVersion string
	// Cause is why MinVersion cannot be read; nil if it can.
	Cause error
}

// Error says what is missing.
func (e *MissingError) Error() string {
	text := fmt.Sprintf("%v: %s requires %s", ErrMissing, e.Plugin, e.Type)
	if e.MinVersion != "" {
		text += fmt.Sprintf(" (%s)", e.MinVersion)
	}

	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}

	return text
}

// Is reports whether target is [ErrMissing].
func (e *MissingError) Is(target error) bool { return target == ErrMissing }

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Cause }
